"""Whatever joint states say, the arm is never commanded faster than it may be; judged in the simulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from misbehaving_robot import Fault, MisbehavingRobot
from ros_peer import Processes

from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ChunkReport


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
    before = robot.joints["elbow"]
    with robot.changed:  # no joint state is missed
        robot.misbehave(Fault.GLITCH, "elbow", wrong)
        robot.wait(lambda: robot.joints["elbow"] - before > wrong / 2, "the glitch")
    codes, message = robot.refusal()
    assert Reason.DOUBTFUL_STATE in codes and "'elbow' leaped by" in message and "/widowx_sim" in message
    robot.pass_time(0.4)
    robot.have_accepted()
    robot.assert_never_jumped()


def test_a_glitch_during_a_motion_holds_the_arm(robot):
    number = robot.have_accepted()
    robot.misbehave(Fault.GLITCH, "elbow", 0.8)
    assert robot.report(number, ChunkReport.HELD).reason_codes.tolist() == [Reason.DOUBTFUL_STATE]
    robot.assert_never_jumped()


def test_two_publishers_of_one_joint_are_a_fault(robot):
    robot.misbehave(Fault.SECOND_PUBLISHER, amount=0.3)
    robot.wait(lambda: "is told by two publishers" in robot.refusal()[1], "the refusal")
    for _ in range(10):
        assert robot.refusal()[0] == [Reason.DOUBTFUL_STATE]
    assert not robot.trigger("executor_node/go_home").success
    assert not robot.arm_commands
    robot.misbehave(Fault.SECOND_PUBLISHER, on=False)
    robot.wait(lambda: robot.verdict(robot.send(robot.chunk())).verdict == ChunkReport.ACCEPTED, "peace")
    robot.assert_never_jumped()


def test_a_second_publisher_that_appears_during_a_motion_holds_the_arm(robot):
    number = robot.have_accepted()
    robot.misbehave(Fault.SECOND_PUBLISHER, amount=1.2)
    assert robot.report(number, ChunkReport.HELD).reason_codes.tolist() == [Reason.DOUBTFUL_STATE]
    robot.assert_never_jumped()


def test_a_joint_that_is_measured_slightly_beyond_its_limit_may_leave_it(robot):
    limit = robot.embodiment.limits["elbow"].upper
    robot.misbehave(Fault.NO_TORQUE)
    robot.misbehave(Fault.MOVED, "elbow", limit - 0.01 - robot.joints["elbow"])
    robot.misbehave(Fault.ENCODER, "elbow", 0.03)
    robot.wait(lambda: robot.joints["elbow"] > limit + 0.015, "the elbow to be measured beyond its limit")
    robot.trigger("executor_node/resynchronize")
    robot.report(0, ChunkReport.COMPLETED)
    robot.misbehave(Fault.NO_TORQUE, on=False)
    robot.clear()
    response = robot.trigger("executor_node/go_home")
    assert response.success, response.message
    assert robot.report(0, ChunkReport.COMPLETED).message == "home motion completed"
    robot.assert_never_jumped()
