# SPDX-License-Identifier: Apache-2.0
"""Angles modulo 2 pi."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodiment_descriptions.angles import nearest_turn, unwrapped, wrapped

ANGLES = st.floats(-1e3, 1e3)


@given(ANGLES)
def test_a_wrapped_angle_is_the_same_angle(angle: float) -> None:
    assert -math.pi <= wrapped(angle) < math.pi
    np.testing.assert_allclose(np.exp(1j * wrapped(angle)), np.exp(1j * angle), atol=1e-9)


@given(ANGLES, ANGLES)
def test_the_nearest_turn_is_the_same_angle_within_half_a_turn(angle: float, towards: float) -> None:
    found = nearest_turn(angle, towards)
    assert abs(found - towards) <= math.pi + 1e-9
    np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * angle), atol=1e-9)
    assert abs(angle - towards) >= math.pi or found == angle


@pytest.mark.parametrize("angle, towards", [(math.nan, 1.0), (1.0, math.nan)])
def test_nan_leaves_the_angle_unchanged(angle: float, towards: float) -> None:
    np.testing.assert_equal(nearest_turn(angle, towards), angle)


def test_each_of_several_paths_goes_on_from_its_own_start() -> None:
    paths = np.array([[[3.0], [-3.0]], [[-3.0], [3.0]]])
    found = unwrapped(paths, np.array([[2 * math.pi], [0.0]]))
    np.testing.assert_allclose(found[..., 0], [[3.0 + 2 * math.pi, 4 * math.pi - 3.0], [-3.0, 3.0 - 2 * math.pi]])
    np.testing.assert_allclose(unwrapped(paths[1], np.zeros(1))[:, 0], found[1, :, 0])
