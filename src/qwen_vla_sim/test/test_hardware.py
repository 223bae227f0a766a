# SPDX-License-Identifier: Apache-2.0
"""The simulated robot fails as hardware does: what its servos are told then, and what is measured."""

from __future__ import annotations

import numpy as np
import pytest
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qwen_vla_sim.controllers.simulated_robot import SimulatedRobot
from qwen_vla_sim.widowx.suite import WidowXSuite

S = 1_000_000_000
ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
CONTROLLER, WAIST = "arm_controller", 0


@pytest.fixture
def robot() -> SimulatedRobot:
    robot = SimulatedRobot(WidowXSuite().make_world())
    robot.reset(11)
    return robot


def joints(robot: SimulatedRobot) -> np.ndarray:
    return np.array(robot.joints().positions[:6])


def go(robot: SimulatedRobot, positions: np.ndarray, seconds: float) -> None:
    point = JointTrajectoryPoint(positions=list(map(float, positions)), velocities=[0.0] * 6)
    point.time_from_start.sec, point.time_from_start.nanosec = divmod(round(seconds * S), S)
    robot.command(CONTROLLER, JointTrajectory(joint_names=ARM, points=[point]))


def turned(positions: np.ndarray, by: float) -> np.ndarray:
    return positions + by * np.eye(6)[WAIST]


def push(robot: SimulatedRobot, by: float) -> None:
    """Switch the torque off, move the waist, switch the torque on."""
    robot.hardware.set_torque("", False)
    robot.hardware.push("waist", by)
    robot.advance(1000)
    robot.hardware.set_torque("", True)
    robot.advance(100)


def test_a_limp_arm_goes_where_it_is_pushed_and_stays_there_with_torque(robot):
    home = joints(robot)
    push(robot, 0.5)
    np.testing.assert_allclose(joints(robot), turned(home, 0.5), atol=2e-3)
    assert robot.limits.peak().step < 1e-9, "nobody has commanded anything"


def test_the_next_command_makes_an_arm_that_was_pushed_jump(robot):
    """The controller starts from its own reference, even where it is told to hold where the arm is measured."""
    push(robot, 0.5)
    go(robot, joints(robot), 0.1)
    robot.advance(10)
    assert robot.limits.peak().step > 0.45 and robot.limits.peak().stepping_joint == "waist"


def test_a_controller_that_was_deactivated_meanwhile_starts_where_the_arm_is(robot):
    push(robot, 0.5)
    robot.set_active(CONTROLLER, False)
    robot.set_active(CONTROLLER, True)
    go(robot, turned(joints(robot), -0.1), 1.0)
    robot.advance(600)
    assert robot.limits.peak().step < 2e-3


def test_a_joint_with_torque_cannot_be_pushed(robot):
    with pytest.raises(ValueError, match="waist cannot be pushed: torque is on"):
        robot.hardware.push("waist", 0.1)


def test_hardware_that_does_not_follow_stands_until_it_takes_the_next_command(robot):
    home = joints(robot)
    robot.hardware.set_following("", False)
    go(robot, turned(home, 0.3), 1.0)
    robot.advance(700)
    np.testing.assert_allclose(joints(robot), home, atol=2e-3)
    robot.hardware.set_following("", True)
    robot.advance(100)
    np.testing.assert_allclose(joints(robot), home, atol=2e-3)
    go(robot, turned(home, 0.4), 1.0)
    robot.advance(10)
    peak = robot.limits.peak()
    assert peak.step > 0.25 and peak.catch_up == 0, "a new command makes it jump"


def test_a_command_in_the_moment_in_which_hardware_follows_again_makes_it_jump(robot):
    home = joints(robot)
    push(robot, 0.3)
    robot.hardware.set_torque("", False)
    robot.advance(10)
    robot.hardware.set_torque("", True)
    go(robot, turned(home, 0.1), 1.0)
    robot.advance(10)
    peak = robot.limits.peak()
    assert peak.step > 0.25 and peak.catch_up == 0


def test_hardware_that_follows_again_on_the_way_catches_up_and_that_is_told_by_itself(robot):
    home = joints(robot)
    robot.hardware.set_following("waist", False)
    go(robot, turned(home, 0.3), 1.0)
    robot.advance(250)
    lag = robot.interfaces[CONTROLLER].command[WAIST] - home[WAIST]
    robot.hardware.set_following("waist", True)
    robot.advance(300)
    peak = robot.limits.peak()
    assert peak.catching_joint == "waist" and peak.catch_up == pytest.approx(lag, abs=2e-3)
    assert peak.speed_share < 0.5, "nobody has commanded it faster"


def test_an_inactive_controller_drops_what_it_hears_and_stops_on_its_way(robot):
    home = joints(robot)
    go(robot, turned(home, 0.4), 1.0)
    robot.advance(250)
    robot.set_active(CONTROLLER, False)
    robot.advance(100)
    stopped = joints(robot)
    go(robot, home, 0.5)
    robot.advance(500)
    np.testing.assert_allclose(joints(robot), stopped, atol=2e-3)
    assert 0.1 < stopped[WAIST] - home[WAIST] < 0.35
    robot.set_active(CONTROLLER, True)
    robot.advance(250)
    np.testing.assert_allclose(joints(robot), stopped, atol=5e-3)


def test_an_encoder_that_is_off_changes_what_is_measured_and_nothing_else(robot):
    before = joints(robot)
    robot.hardware.set_offset("elbow", 0.02)
    robot.advance(100)
    np.testing.assert_allclose(joints(robot) - before, 0.02 * np.eye(6)[2], atol=1e-3)


def test_a_limiter_counts_from_the_last_command_also_after_the_controller_was_activated_anew(robot):
    """So the arm jumps to where it was commanded last, although its controller starts where it is."""
    robot.set_limited(True)
    push(robot, 0.5)
    robot.set_active(CONTROLLER, False)
    robot.set_active(CONTROLLER, True)
    before = joints(robot)[WAIST]
    robot.advance(1)
    assert robot.limits.peak().step > 0.45
    robot.advance(50)
    assert joints(robot)[WAIST] < before - 0.03


def test_a_limiter_ends_the_controller_of_a_joint_that_is_measured_outside_its_limits(robot):
    robot.set_limited(True)
    beyond = robot.world.embodiment.limits["elbow"].upper - joints(robot)[2]
    robot.hardware.set_offset("elbow", beyond + 0.005)
    robot.advance(1)
    assert not robot.inactive
    robot.hardware.set_offset("elbow", beyond + 0.02)
    robot.advance(1)
    assert robot.inactive == {CONTROLLER}
    home = joints(robot)
    go(robot, turned(home, 0.2), 0.2)
    robot.advance(200)
    np.testing.assert_allclose(joints(robot), home, atol=2e-3)


def test_a_limiter_keeps_speeds_and_positions(robot):
    robot.set_limited(True)
    upper = robot.world.embodiment.limits["waist"].upper
    go(robot, turned(joints(robot), upper + 1.0), 0.1)
    robot.advance(50)
    peak = robot.limits.peak()
    assert 0.99 < peak.speed_share <= 1.0 + 1e-9 and peak.excess <= 0.0


def test_a_reset_repairs_everything(robot):
    home = joints(robot)
    robot.hardware.set_torque("", False)
    robot.hardware.set_following("", False)
    robot.hardware.set_offset("waist", 0.2)
    robot.set_active(CONTROLLER, False)
    robot.reset(11)
    go(robot, turned(home, 0.2), 0.5)
    robot.advance(400)
    np.testing.assert_allclose(joints(robot), turned(home, 0.2), atol=5e-3)


def test_unknown_names_are_refused_with_those_that_there_are(robot):
    with pytest.raises(ValueError, match="no joint 'hip'; there are: waist, shoulder"):
        robot.hardware.set_torque("hip", False)
    with pytest.raises(ValueError, match="no controller 'leg_controller'; there are: arm_controller"):
        robot.set_active("leg_controller", False)
