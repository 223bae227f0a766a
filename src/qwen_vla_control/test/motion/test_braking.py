# SPDX-License-Identifier: Apache-2.0
"""Joints that are stopped in front of a limit do not pass it while they brake."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qwen_vla_control.motion.braking import FARTHEST_BACK, braking_position, farthest_turning, time_to_hold
from qwen_vla_control.motion.joint_path import JointPath

TIME = 0.1  # [s]
LOWER, UPPER = np.array([-1.0]), np.array([1.0])
MOMENTS = np.linspace(0.0, 1.0, 2001)


def braked(position: float, velocity: float, held: float, time: float = TIME) -> np.ndarray:
    """Positions on the way to rest, as a JointTrajectoryController interpolates."""
    way, gap = velocity * time, held - position
    return position + way * MOMENTS + (3 * gap - 2 * way) * MOMENTS**2 + (way - 2 * gap) * MOMENTS**3


def test_far_from_its_limits_a_joint_is_held_where_it_is():
    path = JointPath.through(("elbow",), [[-0.3], [0.0], [0.3]], 0.1)
    assert braking_position(path, 0.1, TIME, LOWER, UPPER) == pytest.approx(path.at(0.1)[0])
    (velocity,) = path.at(0.1)[1]
    assert braked(0.0, velocity, 0.0).max() == pytest.approx(4 / 27 * velocity * TIME, rel=1e-3)


@given(st.floats(0.001, 3.0), st.floats(0.5, 10.0), st.sampled_from([-1, 1]))
def test_a_joint_that_could_still_brake_turns_just_before_its_limit(speed, braking, side):
    """It could: its room is at least the way that it needs while it brakes with `braking` [rad/s^2]."""
    room = speed**2 / (2 * braking)
    assume(room < 1.5)
    position, velocity = side * (1.0 - room), side * speed
    (bound,) = farthest_turning(np.array([position]), np.array([velocity]), TIME, LOWER, UPPER)
    assert (side * braked(position, velocity, bound)).max() == pytest.approx(1.0, abs=2e-6)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("late", [-0.1, -0.05, -0.02, 0.0, 0.005, 0.02, 0.05])
def test_a_stop_at_any_moment_of_a_path_to_the_limit_stays_before_it_though_messages_are_late(side, late):
    rows = side * np.array([[0.97], [0.975], [0.98], [0.995], [0.998], [1.0], [0.99], [1.0], [1.0]])
    path = JointPath.through(("finger",), rows, 0.1)
    for elapsed in np.arange(0.0, path.duration, 0.005):
        (held,) = braking_position(path, elapsed, TIME, LOWER, UPPER)
        (there,), (velocity,) = path.at(elapsed + late)
        assert (side * braked(there, velocity, held)).max() <= 1.0 + 1e-6, elapsed


def test_a_joint_is_not_held_farther_back_than_allowed():
    path = JointPath.through(("finger",), [[0.0], [1.0], [1.0]], 0.1)
    for elapsed in np.arange(0.0, 0.2, 0.005):
        position = path.at(elapsed)[0]
        assert abs(braking_position(path, elapsed, TIME, LOWER, UPPER) - position) <= FARTHEST_BACK * TIME + 1e-12


@given(st.floats(-3.0, 3.0), st.floats(0.1, 3.0), st.floats(-1.0, 1.0))
def test_no_joint_is_too_fast_whether_its_controller_begins_where_it_was_commanded_or_where_it_is(away, limit, share):
    time = time_to_hold(np.array([abs(away)]), np.array([limit]), TIME)
    for position, velocity in ((away, share * limit), (away, 0.0), (0.0, share * limit)):
        speeds = np.abs(np.diff(braked(position, velocity, 0.0, time))) / (time * np.diff(MOMENTS))
        assert speeds.max() <= limit * (1 + 1e-9)


def test_joints_that_follow_come_to_rest_in_the_usual_time():
    assert time_to_hold(np.array([0.0, 0.1]), np.array([3.1, 3.1]), TIME) == TIME


def test_a_joint_that_stands_beyond_a_limit_is_held_there():
    path = JointPath.through(("finger",), [[1.01], [1.01]], 0.1)
    assert braking_position(path, 0.05, TIME, LOWER, UPPER) == pytest.approx(1.01)
