# SPDX-License-Identifier: Apache-2.0
"""An arm that somebody has moved never jumps: its controller would start from its own reference.

Judged by the simulator, which sees what its servos are told. The last test shows that it would see a jump.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator

import pytest
from misbehaving_robot import Fault, MisbehavingRobot
from ros_peer import Processes
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ChunkReport

MOVED = 0.5  # [rad] of the waist
HAS_MANAGER = importlib.util.find_spec("controller_manager_msgs") is not None


@pytest.fixture(scope="module")
def started() -> Iterator[MisbehavingRobot]:
    with Processes() as processes, MisbehavingRobot(processes) as robot:
        robot.start()
        yield robot


@pytest.fixture
def robot(started: MisbehavingRobot) -> MisbehavingRobot:
    started.begin_anew()
    started.report(started.have_accepted(), ChunkReport.COMPLETED)  # its controllers have got something to remember
    started.clear()
    return started


def assert_nothing_is_sent(robot: MisbehavingRobot) -> None:
    robot.assert_never_jumped()
    assert not robot.arm_commands and not robot.gripper_commands


def assert_nothing_moves(robot: MisbehavingRobot) -> None:
    before = robot.arm()
    assert_nothing_is_sent(robot)
    assert abs(robot.arm() - before).max() < 0.005


def test_the_emergency_stop_sends_nothing_to_an_arm_at_rest(robot):
    button = robot.node.create_publisher(Bool, "estop", 1)
    robot.wait(lambda: button.get_subscription_count() >= 2, "executor_node to hear the emergency stop")
    robot.push_by_hand("waist", MOVED)
    button.publish(Bool(data=True))
    robot.wait(lambda: Reason.EMERGENCY_STOP in robot.refusal()[0], "the stop")
    button.publish(Bool(data=False))
    assert_nothing_moves(robot)
    robot.wait(lambda: robot.trigger("executor_node/reset_estop").success, "the reset")
    robot.in_turn(lambda: robot.node.destroy_publisher(button))


def test_stop_sends_nothing_to_an_arm_at_rest(robot):
    robot.push_by_hand("waist", MOVED)
    response = robot.trigger("executor_node/stop")
    assert response.success and "nothing was sent" in response.message
    assert_nothing_moves(robot)


def test_go_home_is_refused_and_says_which_joint_and_what_to_do(robot):
    robot.push_by_hand("waist", MOVED)
    response = robot.trigger("executor_node/go_home")
    assert not response.success
    assert "'waist'" in response.message and "~/resynchronize" in response.message
    assert_nothing_moves(robot)


def test_a_chunk_is_refused_with_both_values(robot):
    start = robot.joints["waist"]
    robot.push_by_hand("waist", MOVED)
    codes, message = robot.refusal()
    assert codes == [Reason.REFERENCE_MISMATCH]
    values = re.search(r"joint 'waist': its controller starts from (\S+) .* measured at (\S+),", message).groups()
    assert [float(value) for value in values] == pytest.approx([start, start + MOVED], abs=0.01)
    status = robot.wait(lambda: robot.latest_diagnostics("executor_node: execution"), "diagnostics")
    robot.wait(lambda: "starts from" in robot.latest_diagnostics("executor_node: execution").message, "the problem")
    assert status.hardware_id == "widowx"
    assert_nothing_moves(robot)


def test_a_chunk_is_refused_also_after_a_small_push(robot):
    robot.pass_time(0.5)  # it comes to rest
    robot.push_by_hand("waist", 0.06)
    codes, message = robot.refusal()
    assert codes == [Reason.REFERENCE_MISMATCH]
    assert "'waist' has moved by 0.0" in message and "without a command" in message
    assert_nothing_moves(robot)


def test_the_reference_is_led_to_a_limp_arm_and_then_it_moves_again(robot):
    if HAS_MANAGER:
        pytest.skip("there is a controller manager, which restarts the controller")
    robot.push_by_hand("waist", MOVED, torque=False)
    assert "moving the reference of arm_controller" in robot.resynchronize()
    assert robot.report(0, ChunkReport.COMPLETED).message == "resynchronization completed"
    robot.wait(lambda: "nothing was done" in robot.trigger("executor_node/resynchronize").message, "both to agree")
    robot.misbehave(Fault.NO_TORQUE, on=False)
    assert_moves_on(robot)


def test_a_stop_lets_a_reference_arrive_so_that_a_controller_that_has_begun_anew_stays(robot):
    if HAS_MANAGER:
        pytest.skip("there is a controller manager, which restarts the controller")
    robot.push_by_hand("waist", MOVED)
    robot.misbehave(Fault.INACTIVE, "arm_controller")
    robot.misbehave(Fault.INACTIVE, "arm_controller", on=False)  # it begins where the arm is, and nobody is told
    before = robot.arm()
    assert "moving the reference of arm_controller" in robot.resynchronize()
    robot.pass_time(0.4)
    assert "the references go on to where the joints are" in robot.trigger("executor_node/hold").message
    robot.pass_time(2.0)
    robot.assert_never_jumped()
    assert abs(robot.arm() - before).max() < 0.005
    codes, message = robot.refusal()
    assert codes == [Reason.REFERENCE_MISMATCH] and "~/resynchronize was interrupted" in message
    robot.clear()
    assert "moving the reference of arm_controller" in robot.resynchronize()
    assert robot.report(0, ChunkReport.COMPLETED).message == "resynchronization completed"
    assert_moves_on(robot)


def test_a_controller_manager_restarts_the_controller_and_then_it_moves_again(robot):
    pytest.importorskip("controller_manager_msgs", reason="apt install ros-jazzy-controller-manager-msgs")
    robot.push_by_hand("waist", MOVED)
    assert "deactivating and activating arm_controller" in robot.resynchronize()
    assert robot.report(0, ChunkReport.COMPLETED).message == "arm_controller was deactivated and activated"
    robot.wait(lambda: "nothing was done" in robot.trigger("executor_node/resynchronize").message, "both to agree")
    assert_moves_on(robot)


def test_nothing_is_resynchronized_while_the_arm_is_still_being_moved(robot):
    robot.misbehave(Fault.NO_TORQUE)
    start = robot.joints["waist"]
    robot.misbehave(Fault.MOVED, "waist", 1.5)  # takes three seconds
    robot.wait(lambda: robot.joints["waist"] - start > 0.2, "the arm to be moved")
    response = robot.trigger("executor_node/resynchronize")
    assert not response.success
    assert "'waist' has moved by" in response.message and "wait until it rests" in response.message
    assert_nothing_is_sent(robot)


def assert_moves_on(robot: MisbehavingRobot) -> None:
    robot.clear()
    before = robot.arm()
    robot.report(robot.have_accepted(), ChunkReport.COMPLETED)
    robot.assert_never_jumped()
    assert 0.02 < abs(robot.arm() - before).max() < 0.4


def test_a_command_that_passes_no_executor_would_have_made_it_jump(robot):
    """What a hold at the measured position does: without it the tests above could not fail."""
    robot.push_by_hand("waist", MOVED)
    names = robot.embodiment.arms[0].joints
    point = JointTrajectoryPoint(positions=[robot.joints[name] for name in names], velocities=[0.0] * len(names))
    point.time_from_start.nanosec = 100_000_000
    topic = robot.embodiment.commands[0].topic
    publisher = robot.node.create_publisher(JointTrajectory, topic, 1)
    robot.wait(lambda: publisher.get_subscription_count() >= 2, "the controller")
    publisher.publish(JointTrajectory(joint_names=names, points=[point]))
    robot.wait(lambda: robot.limits()["longest step"] > 0.4, "the jump")
