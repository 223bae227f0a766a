# SPDX-License-Identifier: Apache-2.0
"""Poses of a base and the increments between them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla_control.motion.base_path import BasePath, accumulated, increments, integrated, moved, seen_from

POSE = st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(-3.0, 3.0)).map(np.array)


@given(st.integers(0, 99), st.sampled_from([(), (3,), (2, 3)]))
def test_increments_add_up_to_the_poses(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    start, steps = rng.normal(size=3), rng.uniform(-1, 1, (*shape, 5, 3))
    poses = accumulated(start, steps)
    whole = np.concatenate([np.broadcast_to(start, poses[..., :1, :].shape), poses], axis=-2)
    np.testing.assert_allclose(increments(whole), steps, atol=1e-9)
    pose = start
    for step, reached in zip(steps.reshape(-1, 5, 3)[0], poses.reshape(-1, 5, 3)[0], strict=True):
        pose = moved(pose, step)
        np.testing.assert_allclose(reached, pose, atol=1e-12)


@given(POSE, POSE)
def test_seen_from_is_the_inverse_of_moved(pose, offset):
    back = seen_from(pose, moved(pose, offset))
    assert np.allclose(back, offset, atol=1e-9)


@given(POSE, st.floats(-1, 1), st.floats(-1, 1), st.floats(-2, 2))
def test_integration_is_the_exact_arc(pose, vx, vy, w):
    (coarse,) = integrated(pose, np.array([[vx, vy, w]]), 0.5)
    fine = integrated(pose, np.tile([vx, vy, w], (500, 1)), 0.001)[-1]
    assert np.allclose(coarse, fine, atol=1e-9)


def test_an_offset_is_ahead_and_to_the_left_of_where_a_base_looks():
    pose = np.array([1.0, 2.0, np.pi / 2])
    offsets = np.array([[0.3, 0.1, 0.2], [-0.3, -0.1, 4.0]])
    poses = np.array([[0.9, 2.3, np.pi / 2 + 0.2], [1.1, 1.7, np.pi / 2 + 4.0]])
    np.testing.assert_allclose(moved(pose, offsets), poses)
    np.testing.assert_allclose(seen_from(pose, poses), [[0.3, 0.1, 0.2], [-0.3, -0.1, 4.0 - 2 * np.pi]], atol=1e-12)
    for one, other in (poses, poses[::-1]):
        np.testing.assert_allclose(seen_from(np.array([one, pose]), np.array([other, one]))[0], seen_from(one, other))


def test_velocities_are_kept_for_a_period_each_straight_or_on_an_arc():
    quarter = np.pi / 2
    velocities = np.array([[0.5, 0.0, 0.0], [1.0, 0.0, quarter], [0.0, 1.0, -quarter]])
    found = integrated(np.zeros(3), velocities, 1.0)
    corner = [0.5 + 2 / np.pi, 2 / np.pi, quarter]
    np.testing.assert_allclose(found, [[0.5, 0.0, 0.0], corner, [0.5, 4 / np.pi, 0.0]], atol=1e-12)
    np.testing.assert_allclose(integrated(np.zeros(3), velocities / 2.0, 2.0), found, atol=1e-12)


# Paths ----------------------------------------------------------------------------------------------------------------


def test_a_heading_beyond_pi_is_no_turn_the_long_way():
    path = BasePath.through("odom", np.array([[0, 0, 3.1], [0, 0, -3.1], [0, 0, -3.0]]), 0.5)
    assert np.abs(np.diff(path.positions[:, 2])).max() < 0.2


def test_a_path_goes_through_its_poses_and_ends_at_rest():
    poses = np.array([[0.0, 0.0, 3.0], [0.1, 0.0, -3.0], [0.3, 0.1, -2.9]])
    path = BasePath.through("odom", poses, 0.5, np.array([0.2, 0.0, 0.1]))
    assert (path.frame, path.period, poses[1, 2]) == ("odom", 0.5, -3.0), "what was given stays as it is"
    np.testing.assert_array_equal(path.positions[:, :2], poses[:, :2])
    np.testing.assert_allclose(path.positions[:, 2], [3.0, 2 * np.pi - 3.0, 2 * np.pi - 2.9])
    assert path.velocities[0].tolist() == [0.2, 0.0, 0.1] and not path.velocities[-1].any()
    assert (path.velocities[1] > 0.0).tolist() == [True, False, True]


def test_mean_speeds_are_the_ways_of_the_steps_by_their_time():
    path = BasePath.through("odom", np.array([[0.0, 0.0, 0.0], [-0.3, 0.4, -0.2], [-0.3, 0.4, 0.4]]), 0.5)
    linear, angular = path.mean_speeds()
    np.testing.assert_allclose(linear, [1.0, 0.0])
    np.testing.assert_allclose(angular, [0.4, 1.2])
