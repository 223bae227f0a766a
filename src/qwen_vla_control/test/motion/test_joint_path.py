# SPDX-License-Identifier: Apache-2.0
"""The spline is the one a JointTrajectoryController makes, and stays between its points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qwen_vla_control.motion.joint_path import JointPath, rest_to_rest

POSITION = st.floats(-3.0, 3.0)
POINTS = st.integers(2, 12).flatmap(lambda rows: arrays(float, (rows, 2), elements=POSITION))
JOINTS = ("a", "b")
PERIOD = 0.2


def sampled(path: JointPath, per_step: int = 15) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities, (steps, per_step, joints) each, at interior times of every step."""
    times = (np.arange(path.steps)[:, None] + np.linspace(0.001, 0.999, per_step)) * path.period
    states = [[path.at(time) for time in row] for row in times]
    return np.array([[q for q, _ in row] for row in states]), np.array([[v for _, v in row] for row in states])


@given(POINTS)
def test_it_never_leaves_the_range_of_two_neighboring_points(points):
    positions, _ = sampled(JointPath.through(JOINTS, points, PERIOD))
    low = np.minimum(points[:-1], points[1:])[:, None]
    high = np.maximum(points[:-1], points[1:])[:, None]
    assert (positions >= low - 1e-9).all() and (positions <= high + 1e-9).all()


@given(POINTS, arrays(float, 2, elements=st.floats(-2.0, 2.0)))
def test_peaks_and_extents_bound_every_sample(points, start_velocity):
    path = JointPath.through(JOINTS, points, PERIOD, start_velocity)
    positions, velocities = sampled(path)
    low, high = path.extents()
    assert (np.abs(velocities) <= path.peak_speeds()[:, None] + 1e-9).all()
    assert (positions >= low[:, None] - 1e-9).all() and (positions <= high[:, None] + 1e-9).all()


@given(POINTS)
@settings(max_examples=25)
def test_the_peak_speed_is_reached(points):
    path = JointPath.through(JOINTS, points, PERIOD)
    _, velocities = sampled(path, per_step=100)
    assert np.allclose(np.abs(velocities).max(axis=1), path.peak_speeds(), rtol=0.02, atol=1e-6)


def test_velocities_are_the_derivative_of_the_positions():
    path = JointPath.through(
        JOINTS, np.array([[0, 0], [0.1, 1], [0.3, 0.5], [0.4, 2]], float), PERIOD, np.array([0.3, 0])
    )
    for time in np.linspace(0.01, 0.58, 50):
        (before, _), (after, _), (_, velocity) = path.at(time - 1e-6), path.at(time + 1e-6), path.at(time)
        assert np.allclose((after - before) / 2e-6, velocity, atol=1e-4)


def test_it_ends_at_rest_also_when_shortened():
    path = JointPath.through(JOINTS, np.cumsum(np.ones((9, 2)), axis=0), PERIOD)
    short = path.first(4)
    assert short.steps == 4 and short.duration == 0.8
    assert (short.velocities[-1] == 0).all() and (path.velocities[4] != 0).all()
    assert np.allclose(short.at(99.0)[0], path.positions[4], atol=1e-9)


def test_some_joints_in_another_order_move_as_before():
    positions = np.array([[0.0, 10.0, 20.0], [1.0, 11.0, 22.0], [2.0, 12.0, 24.0]])
    some = JointPath.through(("a", "b", "c"), positions, PERIOD).select(["c", "a"])
    assert some.joints == ("c", "a") and some.period == PERIOD
    assert np.array_equal(some.positions, positions[:, [2, 0]])
    assert some.velocities[1].tolist() == pytest.approx([10.0, 5.0])


def test_standing_is_a_path_of_one_step_that_goes_nowhere():
    still = JointPath.standing(JOINTS, np.array([0.1, -0.2]), 0.3)
    assert (still.joints, still.steps, still.duration) == (JOINTS, 1, 0.3)
    assert still.positions.tolist() == [[0.1, -0.2]] * 2 and still.velocities.tolist() == [[0.0, 0.0]] * 2


# Blended in -----------------------------------------------------------------------------------------------------------

SHORT = 0.02  # [s] period


def rows_of(speed: float, count: int = 50) -> np.ndarray:
    """Rows that a motion at one speed from 0 would have."""
    return np.stack([speed * SHORT * np.arange(1, count + 1), np.zeros(count)], axis=1)


def blended_in(rows, start, velocity, limit) -> JointPath:
    return JointPath.blended_in(JOINTS, rows, SHORT, np.array(start), np.array(velocity), np.array(limit))


def fade_of(offset: np.ndarray) -> int:
    """Row from which on nothing is left of an offset (rows + 1,)."""
    return int(np.flatnonzero(np.abs(offset) > 1e-9)[-1]) + 1


@pytest.mark.parametrize("limit", [70.0, 32.0, 20.0, 2.0])
@pytest.mark.parametrize("offset", [0.1, -0.1])
@pytest.mark.parametrize("speed", [0.0, 0.2, -0.2])
def test_an_offset_is_cancelled_at_first_and_gone_about_as_early_as_the_acceleration_allows(offset, limit, speed):
    path = blended_in(rows_of(speed), [offset, 0.0], [speed, 0.0], [limit, limit])
    found = path.positions[:, 0] - speed * SHORT * np.arange(51)
    fade = fade_of(found)
    s = np.minimum(np.arange(51) / fade, 1.0)
    np.testing.assert_allclose(found, (1 + 2 * s) * (1 - s) ** 2 * offset, atol=1e-12)
    assert not path.positions[:, 1].any() and path.velocities[0].tolist() == [speed, 0.0]
    assert (path.peak_accelerations()[: fade + 1] <= limit).all()
    shortest = np.sqrt(0.6 / limit) / SHORT  # a smooth step of 0.1 in T seconds needs 0.6 / T² of acceleration
    assert shortest <= fade <= 2.1 * shortest


@pytest.mark.parametrize(("limit", "fade"), [(1e9, 1), (0.01, 50)])
def test_at_the_soonest_it_is_gone_in_the_first_row_and_at_the_latest_in_the_last(limit, fade):
    path = blended_in(rows_of(0.2), [0.1, 0.0], [0.2, 0.0], [limit, limit])
    assert fade_of(path.positions[:, 0] - 0.2 * SHORT * np.arange(51)) == fade


@pytest.mark.parametrize("slip", [0.5, -0.5])
def test_so_is_another_velocity(slip):
    path = blended_in(rows_of(0.2), [0.0, 0.0], [0.2 + slip, 0.0], [20.0, 20.0])
    offset = path.positions[:, 0] - 0.2 * SHORT * np.arange(51)
    fade = fade_of(offset)
    s = np.minimum(np.arange(51) / fade, 1.0)
    np.testing.assert_allclose(offset, s * (1 - s) ** 2 * fade * SHORT * slip, atol=1e-12)
    assert path.velocities[0, 0] == pytest.approx(0.2 + slip)
    assert 4 * 0.5 / 20.0 / SHORT <= fade <= 10, "it needs 4 / T of acceleration"


def test_joints_without_a_limit_jump_to_the_first_row():
    path = blended_in(rows_of(0.2), [0.1, 0.3], [0.0, 0.0], [np.inf, 20.0])
    np.testing.assert_array_equal(path.positions[1:, 0], rows_of(0.2)[:, 0])
    assert path.positions[0].tolist() == [0.1, 0.3]
    assert np.count_nonzero(path.positions[:, 1]) > 10


def test_a_chunk_of_one_row_is_blended_in_as_if_it_stood():
    path = blended_in(np.array([[0.1, 0.0]]), [0.1, 0.0], [0.0, 0.0], [1.0, 1.0])
    assert path.positions.tolist() == [[0.1, 0.0]] * 2 and not path.velocities.any()


# From rest to rest ----------------------------------------------------------------------------------------------------


@given(arrays(float, 2, elements=POSITION), arrays(float, 2, elements=POSITION), st.floats(0.1, 3.0))
def test_rest_to_rest_arrives_and_respects_the_speed(start, goal, limit):
    path = rest_to_rest(JOINTS, start, goal, np.full(2, limit), PERIOD)
    assert np.allclose(path.positions[0], start) and np.allclose(path.positions[-1], goal)
    assert (path.velocities[[0, -1]] == 0).all()
    assert (path.peak_speeds() <= limit * 1.02).all()  # a spline through samples of the quintic, not the quintic itself


def test_it_is_the_quintic_without_a_jerk_at_either_end():
    start, goal = np.array([1.0, -1.0]), np.array([2.0, -1.5])
    path = rest_to_rest(JOINTS, start, goal, np.array([1.0, 9.0]), PERIOD)
    assert path.steps == 10 and path.period == PERIOD and path.joints == JOINTS, "1.875 s and more at a peak of 1.0"
    s = np.linspace(0.0, 1.0, 11)[:, None]
    np.testing.assert_allclose(path.positions, start + (goal - start) * (10 * s**3 - 15 * s**4 + 6 * s**5), atol=1e-12)
    slope = (goal - start) * (30 * s**2 - 60 * s**3 + 30 * s**4) / 2.0
    np.testing.assert_allclose(path.velocities, slope, atol=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("way", "speed", "acceleration", "seconds"),
    [
        ([1.0, 0.1], [1.0, 1.0], None, 1.875),
        ([0.1, 1.0], [1.0, 0.5], None, 3.75),
        ([0.5, 0.1], [1.0, 0.1], None, 1.875),
        ([1.0, 0.1], [9.0, 9.0], [1.0, 1.0], np.sqrt(10 / np.sqrt(3))),
        ([0.1, 1.0], [9.0, 9.0], [1.0, 0.25], 2 * np.sqrt(10 / np.sqrt(3))),
        ([1.0, 0.1], [1.0, 1.0], [99.0, 99.0], 1.875),
    ],
)
def test_the_joint_that_needs_longest_sets_the_time(way, speed, acceleration, seconds, sign):
    acceleration = None if acceleration is None else np.array(acceleration)
    path = rest_to_rest(JOINTS, np.zeros(2), sign * np.array(way), np.array(speed), 0.01, acceleration)
    assert seconds <= path.duration < seconds + 0.0101


def test_going_nowhere_takes_two_steps():
    assert rest_to_rest(JOINTS, np.zeros(2), np.zeros(2), np.ones(2), PERIOD).steps == 2
