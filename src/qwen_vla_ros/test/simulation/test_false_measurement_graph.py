# SPDX-License-Identifier: Apache-2.0
"""Whatever joint states say, the arm is never commanded faster than it may be; judged in the simulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from misbehaving_robot import Fault, MisbehavingRobot
from ros_peer import Processes
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ChunkReport
from qwen_vla_ros.ros.distributions import distribution

ENCODER = 0.03  # [rad]


@pytest.fixture(scope="module")
def started() -> Iterator[MisbehavingRobot]:
    with Processes() as processes, MisbehavingRobot(processes) as robot:
        robot.start()
        yield robot


@pytest.fixture
def robot(started: MisbehavingRobot) -> MisbehavingRobot:
    started.begin_anew()
    return started


@pytest.mark.parametrize("wrong", [0.2, 0.8, 1.2])
def test_a_glitch_is_refused_with_its_publisher_and_believed_again_later(robot, wrong):
    def glitch() -> None:
        robot.misbehave(Fault.GLITCH, "elbow", wrong)

    assert "/widowx_sim" in robot.wait_until_refused(Reason.DOUBTFUL_STATE, "'elbow' jumped by", glitch)
    robot.pass_time(0.4)
    robot.have_accepted()
    robot.assert_never_jumped()


@pytest.mark.parametrize("wrong", [0.2, 0.8, 1.2])
def test_a_glitch_during_a_motion_holds_the_arm(robot, wrong):
    number = robot.have_accepted()
    robot.misbehave(Fault.GLITCH, "elbow", wrong)
    assert robot.report(number, ChunkReport.HELD).reason_codes.tolist() == [Reason.DOUBTFUL_STATE]
    robot.assert_never_jumped()


def test_two_publishers_of_one_joint_are_a_fault(robot):
    robot.misbehave(Fault.SECOND_PUBLISHER, amount=0.3)
    robot.wait_until_refused(Reason.DOUBTFUL_STATE, "two publishers report")
    for _ in range(10):
        assert robot.refusal()[0] == [Reason.DOUBTFUL_STATE]
    assert not robot.trigger("executor_node/go_home").success
    assert not robot.arm_commands
    robot.misbehave(Fault.SECOND_PUBLISHER, on=False)
    robot.wait(lambda: robot.verdict(robot.send(robot.chunk())).verdict == ChunkReport.ACCEPTED, "peace")
    robot.assert_never_jumped()


def test_a_forgotten_joint_state_publisher_is_named(robot):
    forgotten = robot.node.create_publisher(JointState, "joint_states", 10)
    false = {name: position + 0.3 for name, position in robot.embodiment.home.items()}

    def tell() -> None:
        stamp = Header(stamp=robot.stamp())
        forgotten.publish(JointState(header=stamp, name=list(false), position=list(false.values())))

    timer = robot.in_turn(lambda: robot.node.create_timer(0.1, tell))
    try:
        robot.wait_until_refused(Reason.DOUBTFUL_STATE, "two publishers report")
        codes, message = robot.refusal()
        assert codes == [Reason.DOUBTFUL_STATE]
        if distribution().tells_publishers:
            assert "/peer on /joint_states and /widowx_sim on /joint_states; stop one of them" in message
        else:
            assert "the same joints on /joint_states; stop one of /peer, /widowx_sim" in message
        assert not robot.trigger("executor_node/go_home").success and not robot.arm_commands
    finally:
        robot.in_turn(lambda: robot.node.destroy_timer(timer))
        robot.in_turn(lambda: robot.node.destroy_publisher(forgotten))
    robot.wait(lambda: robot.verdict(robot.send(robot.chunk())).verdict == ChunkReport.ACCEPTED, "peace")
    robot.assert_never_jumped()


def test_a_second_publisher_that_appears_during_a_motion_holds_the_arm(robot):
    number = robot.have_accepted()
    robot.misbehave(Fault.SECOND_PUBLISHER, amount=1.2)
    assert robot.report(number, ChunkReport.HELD).reason_codes.tolist() == [Reason.DOUBTFUL_STATE]
    robot.assert_never_jumped()


@pytest.fixture
def beyond(robot: MisbehavingRobot) -> MisbehavingRobot:
    """Its wrist is measured 0.02 rad beyond its limit, and controllers know it."""
    limit = robot.embodiment.limits["wrist_angle"].upper
    robot.misbehave(Fault.NO_TORQUE)
    robot.misbehave(Fault.MOVED, "wrist_angle", limit - 0.01 - robot.joints["wrist_angle"])
    robot.misbehave(Fault.ENCODER, "wrist_angle", ENCODER)
    robot.wait(lambda: robot.joints["wrist_angle"] > limit + 0.015, "the wrist to be measured beyond its limit")
    robot.pass_time(0.4)  # the encoder has jumped
    robot.resynchronize()
    robot.report(0, ChunkReport.COMPLETED)
    robot.misbehave(Fault.NO_TORQUE, on=False)
    robot.clear()
    return robot


def test_a_joint_that_is_measured_slightly_beyond_its_limit_may_go_home(beyond):
    response = beyond.trigger("executor_node/go_home")
    assert response.success, response.message
    assert beyond.report(0, ChunkReport.COMPLETED).message == "home motion completed"
    beyond.assert_never_jumped(encoder=ENCODER)


def test_a_joint_that_is_measured_slightly_beyond_its_limit_may_be_moved_by_chunks(beyond):
    beyond.report(beyond.have_accepted(), ChunkReport.COMPLETED)
    beyond.report(beyond.have_accepted(), ChunkReport.COMPLETED)
    beyond.assert_never_jumped(encoder=ENCODER)
