# SPDX-License-Identifier: Apache-2.0
"""Poses keep their meaning when they are written the other way."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from embodiment_descriptions.poses import pose_matrix, pose_vector


def matrices(shape, seed):
    rng = np.random.default_rng(seed)
    poses = np.broadcast_to(np.eye(4), (*shape, 4, 4)).copy()
    poses[..., :3, :3] = Rotation.random(int(np.prod(shape)), rng).as_matrix().reshape(*shape, 3, 3)
    poses[..., :3, 3] = rng.normal(size=(*shape, 3))
    return poses


def test_there_and_back():
    for matrix in matrices((20,), 1):
        vector = pose_vector(matrix)
        np.testing.assert_allclose(pose_matrix(vector[:3], vector[3:]), matrix, atol=1e-12)


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 2)])
def test_many_at_once_are_as_one_by_one(shape):
    poses = matrices(shape, 2)
    together = pose_vector(poses)
    assert together.shape == (*shape, 7)
    for index in np.ndindex(shape):
        np.testing.assert_array_equal(together[index], pose_vector(poses[index]))


def test_a_quarter_turn_to_the_left_by_hand():
    np.testing.assert_allclose(
        pose_vector(pose_matrix([1, 2, 3], [0, 0, -(0.5**0.5), -(0.5**0.5)])), [1, 2, 3, 0, 0, 0.5**0.5, 0.5**0.5]
    )
