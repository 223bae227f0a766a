# SPDX-License-Identifier: Apache-2.0
"""Joint paths to messages that a JointTrajectoryController accepts, tested with the simulator's."""

from __future__ import annotations

import numpy as np
import pytest

from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.reasons import Reason, Refused
from qwen_vla_ros.executor.command_interfaces.joint_trajectory import trajectory_message, verify

JOINTS = ("a", "b")


@pytest.fixture
def path():
    return JointPath.through(JOINTS, np.array([[0.0, 1.0], [0.1, 1.0], [0.3, 0.8], [0.3, 0.7]]), 0.2)


def test_row_i_is_due_after_i_periods_and_the_start_is_omitted(path):
    message = trajectory_message(path)
    times = [p.time_from_start.sec + p.time_from_start.nanosec / 1e9 for p in message.points]
    assert np.allclose(times, [0.2, 0.4, 0.6])
    assert np.allclose([p.positions for p in message.points], path.positions[1:])
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (0, 0)


class Controller:
    """The simulator's controller, which follows the rules of ros2_control's."""

    def __init__(self, start: np.ndarray) -> None:
        self._module = pytest.importorskip("qwen_vla_sim.controllers.joint_trajectory_controller")
        self._controller = self._module.JointTrajectoryController(JOINTS, start)
        self._controller.update(0)

    def accept(self, message, milliseconds: int) -> None:
        points = [
            self._module.TrajectoryPoint(
                p.time_from_start.sec * 10**9 + p.time_from_start.nanosec, list(p.positions), list(p.velocities)
            )
            for p in message.points
        ]
        self._controller.accept(self._module.JointTrajectory(message.joint_names, points), milliseconds * 10**6)

    def at(self, milliseconds: int) -> np.ndarray:
        return np.array(self._controller.update(milliseconds * 10**6))


def test_the_controller_accepts_it_and_executes_the_path_that_was_checked(path):
    message = trajectory_message(path)
    verify(message, JOINTS)
    controller = Controller(path.positions[0])
    controller.accept(message, 0)
    for milliseconds in range(0, 800, 7):
        assert np.allclose(controller.at(milliseconds), path.at(milliseconds / 1e3)[0], atol=1e-6)


def test_a_stop_ends_a_trajectory_that_was_accepted_where_it_is(path):
    controller = Controller(path.positions[0])
    controller.accept(trajectory_message(path), 0)
    for milliseconds in range(0, 301, 10):
        controller.at(milliseconds)
    held = path.at(0.3)[0]
    controller.accept(trajectory_message(JointPath.standing(JOINTS, held, 0.1)), 300)
    for milliseconds in range(310, 900, 10):  # it comes to rest within the time of the stop, and stays
        tolerance = 0.03 if milliseconds <= 410 else 1e-6
        assert np.allclose(controller.at(milliseconds), held, atol=tolerance)
    assert np.abs(path.at(0.6)[0] - held).max() > 0.1, "it would have continued"


@pytest.mark.parametrize("fault", ["names", "nan", "velocity at the end", "no points", "short row", "time"])
def test_what_a_controller_would_reject_is_not_sent(path, fault):
    message = trajectory_message(path)
    if fault == "names":
        message.joint_names = ["b", "a"]
    elif fault == "nan":
        message.points[1].positions[0] = float("nan")
    elif fault == "velocity at the end":
        message.points[-1].velocities[0] = 0.1
    elif fault == "no points":
        message.points = []
    elif fault == "short row":
        message.points[1].positions = [0.0]
    else:
        message.points[1].time_from_start = message.points[0].time_from_start
    with pytest.raises(Refused) as refused:
        verify(message, JOINTS)
    assert refused.value.reasons == (Reason.INTERNAL,)
