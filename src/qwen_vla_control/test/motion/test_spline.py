# SPDX-License-Identifier: Apache-2.0
"""A path in time is the cubic Hermite spline through its rows, and what is said of its peaks is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.interpolate import CubicHermiteSpline

from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.motion.spline import monotone_velocities

JOINTS = ("a", "b")
PERIOD = 0.25
VALUES = st.floats(-3.0, 3.0)
ROWS = st.integers(2, 7).flatmap(lambda rows: arrays(float, (2, rows, 2), elements=VALUES))


def path(rows) -> JointPath:
    """Any positions with any velocities, but at rest at the end."""
    positions, velocities = rows.copy()
    velocities[-1] = 0.0
    return JointPath(JOINTS, PERIOD, positions, velocities)


def reference(of: JointPath) -> CubicHermiteSpline:
    return CubicHermiteSpline(PERIOD * np.arange(of.steps + 1), of.positions, of.velocities)


def steady(rows: int, speed: float = 1.0, period: float = 0.1) -> JointPath:
    """At one speed from the first row to the last, one joint the other way and half as fast."""
    speeds = np.array([speed, -0.5 * speed])
    return JointPath(JOINTS, period, period * speeds * np.arange(rows + 1)[:, None], np.tile(speeds, (rows + 1, 1)))


# Velocities -----------------------------------------------------------------------------------------------------------


def test_the_velocity_at_a_row_is_the_harmonic_mean_of_the_slopes_beside_it_or_none_where_the_motion_turns():
    positions = np.array([[0.0, 1.0], [1.0, 0.0], [3.0, -3.0], [2.0, -4.0], [2.0, -5.0]])
    expected = np.array([[0.0, 0.0], [4 / 3, -1.5], [0.0, -1.5], [0.0, -1.0], [0.0, 0.0]])
    np.testing.assert_allclose(monotone_velocities(positions, 1.0), expected)
    np.testing.assert_allclose(monotone_velocities(positions, 0.5), 2.0 * expected)
    moving = monotone_velocities(positions, 1.0, np.array([0.3, -0.4]))
    np.testing.assert_allclose(moving, np.vstack([[0.3, -0.4], expected[1:]]))


def test_two_rows_are_a_motion_from_rest_to_rest():
    assert monotone_velocities(np.array([[0.0], [1.0]]), 0.1).tolist() == [[0.0], [0.0]]


# In time --------------------------------------------------------------------------------------------------------------


@given(ROWS, st.floats(0.0, 1.0))
def test_at_any_time_it_is_where_and_as_fast_as_the_spline(rows, share):
    it = path(rows)
    time = share * it.duration
    position, velocity = it.at(time)
    np.testing.assert_allclose(position, reference(it)(time), atol=1e-9)
    np.testing.assert_allclose(velocity, reference(it)(time, 1), atol=1e-8)


@given(ROWS)
def test_at_its_rows_it_is_what_they_say(rows):
    it = path(rows)
    for row in range(it.steps + 1):
        position, velocity = it.at(row * PERIOD)
        np.testing.assert_allclose(position, it.positions[row], atol=1e-9)
        np.testing.assert_allclose(velocity, it.velocities[row], atol=1e-8)


def test_before_its_start_it_is_there_and_after_its_end_it_rests_there():
    it = steady(4)
    for time in (-1.0, 0.0):
        assert [values.tolist() for values in it.at(time)] == [[0.0, 0.0], [1.0, -0.5]]
    for time in (it.duration, 9.0):
        assert [values.tolist() for values in it.at(time)] == [it.positions[-1].tolist(), [0.0, 0.0]]


def test_what_is_told_of_a_time_is_not_the_path_itself():
    it = steady(4)
    for time in (0.0, 9.0):
        for values in it.at(time):
            values += 1.0
    np.testing.assert_array_equal(it.positions, steady(4).positions)
    np.testing.assert_array_equal(it.velocities, steady(4).velocities)


def test_it_lasts_a_period_for_each_step():
    assert (steady(4).steps, steady(4).duration) == (4, pytest.approx(0.4))


# Peaks ----------------------------------------------------------------------------------------------------------------


def times(of: JointPath, per_step: int) -> np.ndarray:
    """(steps, per_step) from the start of each step to its end."""
    return PERIOD * (np.arange(of.steps)[:, None] + np.linspace(0.0, 1.0, per_step))


@given(ROWS)
def test_the_peak_speed_of_each_step_is_that_of_the_spline(rows):
    it = path(rows)
    fastest = np.abs(reference(it)(times(it, 201), 1)).max(axis=1)
    assert (it.peak_speeds() >= fastest - 1e-9).all()
    np.testing.assert_allclose(it.peak_speeds(), fastest, rtol=1e-3, atol=1e-3)


@given(ROWS)
def test_the_peak_acceleration_of_each_step_is_at_one_of_its_ends(rows):
    it = path(rows)
    inside = times(it, 2) + [[1e-9, -1e-9]]  # at a row it jumps from one step to the next
    np.testing.assert_allclose(it.peak_accelerations(), np.abs(reference(it)(inside, 2)).max(axis=1), atol=1e-4)


@given(ROWS)
def test_extents_hold_every_position_and_are_exact_where_velocities_are_monotone(rows):
    for it, exact in ((path(rows), False), (JointPath.through(JOINTS, rows[0], PERIOD), True)):
        low, high = it.extents()
        found = reference(it)(times(it, 21))
        assert (found >= low[:, None] - 1e-9).all() and (found <= high[:, None] + 1e-9).all()
        if exact:
            np.testing.assert_allclose(low, found.min(axis=1), atol=1e-9)
            np.testing.assert_allclose(high, found.max(axis=1), atol=1e-9)


def test_extents_are_those_of_the_control_points():
    it = JointPath(("a",), 0.3, np.array([[0.0], [1.0]]), np.array([[-2.0], [-4.0]]))
    low, high = it.extents()
    assert low.tolist() == [[pytest.approx(-0.2)]] and high.tolist() == [[pytest.approx(1.4)]]


# Shortened ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_the_first_steps_are_the_same_but_for_the_end_where_they_rest(steps):
    it = steady(4)
    short = it.first(steps)
    np.testing.assert_array_equal(short.positions, it.positions[: steps + 1])
    np.testing.assert_array_equal(short.velocities[:-1], it.velocities[:steps])
    assert not short.velocities[-1].any() and it.velocities.all(), "the path itself goes on"
    assert (short.joints, short.period) == (it.joints, it.period)


# Slowing down ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "rows"), [(1.2, (9, 22)), (0.6, (17, 44))])
@pytest.mark.parametrize("steps", [5, 20])
def test_it_slows_down_after_the_steps_that_are_wanted_within_the_limit_and_not_much_longer_than_needed(
    steps, limit, rows
):
    it, limits = steady(60), np.array([limit, np.inf])
    slowed = it.decelerated(steps, limits)
    np.testing.assert_allclose(slowed.positions[: steps + 1], it.positions[: steps + 1], atol=1e-12)
    np.testing.assert_allclose(slowed.velocities[: steps + 1], it.velocities[: steps + 1], atol=1e-12)
    assert rows[0] <= slowed.steps - steps <= rows[1] and not slowed.velocities[-1].any()
    assert (slowed.peak_accelerations() <= limits + 1e-9).all()


def test_both_joints_slow_down_alike_so_that_the_way_stays_the_same():
    slowed = steady(60).decelerated(20, np.array([np.inf, 0.4]))
    np.testing.assert_allclose(slowed.positions[:, 1], -0.5 * slowed.positions[:, 0], atol=1e-12)
    assert slowed.peak_accelerations()[:, 1].max() <= 0.4


def test_the_speed_falls_steadily_to_none_over_twice_the_time_of_the_way_that_is_left():
    slowed = steady(60).decelerated(20, np.array([1.2, np.inf]))
    rows = slowed.steps - 20
    braking = 0.1 * rows
    t = 0.1 * np.arange(rows + 1)
    np.testing.assert_allclose(slowed.positions[20:, 0], 2.0 + t - t**2 / (2 * braking), atol=1e-9)
    assert (np.diff(slowed.velocities[20:, 0]) < 0.0).all()


def test_it_slows_down_earlier_where_the_path_would_end_before_it_stands():
    it = steady(20)
    slowed = it.decelerated(18, np.array([1.2, np.inf]))
    np.testing.assert_allclose(slowed.positions[-1], it.positions[-1], atol=0.06)
    assert (slowed.positions[:, 0] <= it.positions[-1, 0] + 1e-9).all()
    assert (slowed.peak_accelerations()[:, 0] <= 1.2).all() and slowed.steps > 20


def test_where_no_slowing_down_is_gentle_enough_it_takes_all_of_the_path():
    it = steady(4)
    slowed = it.decelerated(2, np.full(2, 0.01))
    assert slowed.steps == 8 and (slowed.peak_accelerations() > 0.01).any()
    np.testing.assert_allclose(slowed.positions[[0, -1]], it.positions[[0, -1]], atol=1e-12)


def test_what_stands_already_needs_no_slowing_down():
    it = replace(steady(8), velocities=np.zeros((9, 2)))
    assert it.decelerated(4, np.full(2, 99.0)).steps == 6, "two steps are the shortest end"
