# SPDX-License-Identifier: Apache-2.0
"""An accepted chunk that nothing executes is noticed, and never reported as completed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from misbehaving_robot import Fault, MisbehavingRobot
from ros_peer import Processes

from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ChunkReport

KNOWS_ACTIVITY = importlib.util.find_spec("controller_manager_msgs") is not None


@pytest.fixture(scope="module")
def started() -> Iterator[MisbehavingRobot]:
    with Processes() as processes, MisbehavingRobot(processes) as robot:
        robot.start()
        yield robot


@pytest.fixture
def robot(started: MisbehavingRobot) -> MisbehavingRobot:
    started.begin_anew()
    return started


def test_hardware_that_ignores_commands(robot):
    robot.misbehave(Fault.NOT_FOLLOWING)
    before = robot.arm()
    number = robot.have_accepted()
    report = robot.assert_held(number, Reason.NOT_FOLLOWING)
    assert "is its controller active, " in report.message
    assert abs(robot.arm() - before).max() < 0.005
    assert len(robot.arm_commands) == len(robot.gripper_commands) == 2, "both controllers were told to hold"
    robot.assert_never_jumped()


def test_a_controller_that_is_deactivated_on_its_way(robot):
    start = robot.arm()
    number = robot.have_accepted()
    robot.wait(lambda: abs(robot.arm() - start).max() > 0.01, "the arm to move")
    robot.misbehave(Fault.INACTIVE, "arm_controller")
    robot.assert_held(number, Reason.NOT_FOLLOWING, Reason.NOT_READY)
    robot.assert_never_jumped()


def test_a_controller_that_is_inactive_before(robot):
    robot.misbehave(Fault.INACTIVE, "arm_controller")
    if KNOWS_ACTIVITY:
        robot.wait_until_told("arm_controller is inactive")
        assert "arm_controller is inactive" in robot.refusal()[1]
        assert not robot.arm_commands and not robot.gripper_commands
    else:
        robot.assert_held(robot.have_accepted(), Reason.NOT_FOLLOWING)
    robot.assert_never_jumped()


def test_a_servo_that_lags_behind_as_the_simulated_ones_do_is_no_fault(robot):
    for _ in range(2):
        robot.report(robot.have_accepted(), ChunkReport.COMPLETED)
    assert robot.trigger("executor_node/go_home").success
    assert robot.report(0, ChunkReport.COMPLETED).message == "home motion completed"
    robot.assert_never_jumped()
