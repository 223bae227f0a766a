# SPDX-License-Identifier: Apache-2.0
"""Times and poses mean in a message what they meant before."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.duration import Duration
from rclpy.time import Time
from scipy.spatial.transform import Rotation

from qwen_vla_rclpy.messages import (
    duration_message,
    planar_pose_message,
    pose_message,
    time_message,
    transform_message,
)


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_a_stamp_is_the_same_time(nanoseconds: int) -> None:
    assert Time.from_msg(time_message(nanoseconds)).nanoseconds == nanoseconds


@given(st.integers(-(10**15), 10**15))
def test_a_duration_is_as_long(microseconds: int) -> None:
    message = duration_message(microseconds / 1e6)
    assert 0 <= message.nanosec < 10**9, "also of a negative one"
    assert Duration.from_msg(message).nanoseconds == pytest.approx(microseconds * 1000, abs=200)


def matrix(rotation: Rotation, position: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.as_matrix(), position
    return pose


@pytest.mark.parametrize("seed", range(5))
def test_a_pose_and_a_transform_are_where_the_matrix_is(seed: int) -> None:
    pose = matrix(Rotation.random(rng=seed), (1.0, -2.0, 3.0))
    for place, turn in (
        (pose_message(pose).position, pose_message(pose).orientation),
        (transform_message(pose).translation, transform_message(pose).rotation),
    ):
        assert (place.x, place.y, place.z) == (1.0, -2.0, 3.0) and turn.w >= 0
        found = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
        np.testing.assert_allclose(found, pose[:3, :3], atol=1e-12)


@pytest.mark.parametrize("heading", [0.0, 0.5, -1.5, 3.1])
def test_a_pose_in_the_plane_is_a_pose(heading: float) -> None:
    planar = planar_pose_message(np.array([0.5, -0.25, heading]))
    whole = pose_message(matrix(Rotation.from_euler("z", heading), (0.5, -0.25, 0.0)))
    for name in ("x", "y", "z"):
        assert getattr(planar.position, name) == getattr(whole.position, name)
    for name in ("x", "y", "z", "w"):
        assert getattr(planar.orientation, name) == pytest.approx(getattr(whole.orientation, name))
