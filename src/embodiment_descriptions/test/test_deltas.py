# SPDX-License-Identifier: Apache-2.0
"""Deltas are T0^-1 T, in the frame of the first pose, and can be undone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodiment_descriptions import delta_from_poses, pose_from_delta

SHIFT = st.floats(-1, 1)
# Below half a turn in total length, where a rotation has one rotation vector.
TURN = st.floats(-1.8, 1.8)
DELTA = st.tuples(SHIFT, SHIFT, SHIFT, TURN, TURN, TURN).map(np.array)


@given(DELTA, DELTA)
def test_round_trip_of_a_delta(start: np.ndarray, delta: np.ndarray) -> None:
    if np.linalg.norm(delta[3:]) > np.pi - 1e-3:
        delta[3:] /= 2
    first = pose_from_delta(np.eye(4), start)
    np.testing.assert_allclose(delta_from_poses(first, pose_from_delta(first, delta)), delta, atol=1e-9)


@given(DELTA, DELTA)
def test_round_trip_of_a_pose(start: np.ndarray, end: np.ndarray) -> None:
    first, pose = pose_from_delta(np.eye(4), start), pose_from_delta(np.eye(4), end)
    np.testing.assert_allclose(pose_from_delta(first, delta_from_poses(first, pose)), pose, atol=1e-9)
    np.testing.assert_allclose(first @ pose_from_delta(np.eye(4), delta_from_poses(first, pose)), pose, atol=1e-9)


def test_translation_is_in_the_first_frame() -> None:
    """A tip that points down (its x along -z) and is lowered by 10 cm has moved forward along its own x."""
    first = np.array([[0, 0, 1, 0.3], [0, 1, 0, 0], [-1, 0, 0, 0.2], [0, 0, 0, 1.0]])
    lowered = first.copy()
    lowered[2, 3] -= 0.1
    np.testing.assert_allclose(delta_from_poses(first, lowered), [0.1, 0, 0, 0, 0, 0], atol=1e-12)


def test_rotation_is_a_rotation_vector() -> None:
    turned = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(delta_from_poses(np.eye(4), turned), [0, 0, 0, 0, 0, np.pi / 2], atol=1e-12)


def test_many_at_once() -> None:
    random = np.random.default_rng(0)
    first = pose_from_delta(np.eye(4), random.uniform(-1, 1, 6))
    deltas = random.uniform(-1, 1, (2, 16, 6))
    poses = pose_from_delta(first, deltas)
    assert poses.shape == (2, 16, 4, 4)
    np.testing.assert_allclose(poses[1, 3], pose_from_delta(first, deltas[1, 3]))
    np.testing.assert_allclose(delta_from_poses(first, poses), deltas, atol=1e-12)
    assert delta_from_poses(first, poses[:0]).shape == (0, 16, 6)


def test_wrong_shapes_and_values_are_refused() -> None:
    with pytest.raises(ValueError, match="4x4"):
        delta_from_poses(np.eye(3), np.eye(4))
    with pytest.raises(ValueError, match="6 finite numbers"):
        pose_from_delta(np.eye(4), np.zeros(7))
    with pytest.raises(ValueError, match="6 finite numbers"):
        pose_from_delta(np.eye(4), [0, 0, np.nan, 0, 0, 0])
