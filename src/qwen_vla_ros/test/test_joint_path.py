"""The spline is the one a JointTrajectoryController makes, and stays between its points."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qwen_vla_ros.joint_path import JointPath, rest_to_rest

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
def test_it_never_leaves_the_range_of_two_neighbouring_points(points):
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


def test_select_reorders_joints():
    path = JointPath.through(JOINTS, np.array([[0.0, 10.0], [1.0, 11.0]]), PERIOD)
    assert np.array_equal(path.select(["b"]).positions, [[10.0], [11.0]])


@given(arrays(float, 2, elements=POSITION), arrays(float, 2, elements=POSITION), st.floats(0.1, 3.0))
def test_rest_to_rest_arrives_and_respects_the_speed(start, goal, limit):
    path = rest_to_rest(JOINTS, start, goal, np.full(2, limit), PERIOD)
    assert np.allclose(path.positions[0], start) and np.allclose(path.positions[-1], goal)
    assert (path.velocities[[0, -1]] == 0).all()
    assert (path.peak_speeds() <= limit * 1.02).all()  # a spline through samples of the quintic, not the quintic itself
