# SPDX-License-Identifier: Apache-2.0
"""Rotations as data sets have them: each kind, written independently, comes back as the same rotation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla.data.robot.rotations import ELEMENTS, quaternions

unit = st.lists(st.floats(-1, 1), min_size=4, max_size=4).map(np.array).filter(lambda q: np.linalg.norm(q) > 0.1)
angle = st.floats(-np.pi, np.pi)


def matrix(quaternion):
    """The rotation matrix of a quaternion x y z w, by its textbook formula."""
    x, y, z, w = np.asarray(quaternion) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def about(axis, angle):
    """The rotation matrix about a unit axis, by Rodrigues' formula."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def read(values, kind):
    return matrix(quaternions(np.array(values, float), kind))


@given(quaternion=unit, length=st.floats(0.6, 3))
def test_a_quaternion_is_itself_whatever_its_length_and_sign(quaternion, length):
    quaternion = quaternion / np.linalg.norm(quaternion)
    for recorded in (quaternion * length, -quaternion):
        np.testing.assert_allclose(read(recorded, "quaternion"), matrix(quaternion), atol=1e-9)


@given(axis=unit, turn=st.floats(0, 3 * np.pi))
def test_a_rotation_vector_turns_about_itself_by_its_length(axis, turn):
    axis = axis[:3] / max(np.linalg.norm(axis[:3]), 1e-12) if np.linalg.norm(axis[:3]) > 1e-3 else np.array([0, 0, 1.0])
    np.testing.assert_allclose(read(axis * turn, "rotation_vector"), about(axis, turn), atol=1e-7)


@given(roll=angle, pitch=angle, yaw=angle)
def test_euler_angles_turn_about_the_fixed_axes_x_y_z_in_turn(roll, pitch, yaw):
    expected = about((0, 0, 1), yaw) @ about((0, 1, 0), pitch) @ about((1, 0, 0), roll)
    np.testing.assert_allclose(read((roll, pitch, yaw), "euler"), expected, atol=1e-9)


@given(quaternion=unit, scale=st.floats(0.1, 10), skew=st.floats(-2, 2))
def test_two_columns_define_the_matrix_also_if_they_are_neither_unit_nor_orthogonal(quaternion, scale, skew):
    whole = matrix(quaternion)
    columns = np.concatenate([scale * whole[:, 0], whole[:, 1] + skew * whole[:, 0]])
    np.testing.assert_allclose(read(columns, "matrix_6d"), whole, atol=1e-8)


@pytest.mark.parametrize("kind", ELEMENTS)
def test_what_is_no_rotation_is_marked_and_nothing_else(kind):
    width = len(ELEMENTS[kind])
    values = np.random.default_rng(0).normal(size=(2, 5, width))
    values[0, 1, -1], values[1, 4, 0] = np.nan, np.inf
    invalid = np.zeros((2, 5), bool)
    invalid[0, 1] = invalid[1, 4] = True
    if kind in ("quaternion", "matrix_6d"):
        values[0, 3], invalid[0, 3] = 0.0, True
    if kind == "matrix_6d":
        values[1, 2, 3:], invalid[1, 2] = 2 * values[1, 2, :3], True
    found = quaternions(values, kind)
    np.testing.assert_array_equal(np.isnan(found).any(axis=-1), invalid)
    np.testing.assert_allclose(np.linalg.norm(found[~invalid], axis=-1), 1)
