# SPDX-License-Identifier: Apache-2.0
"""Angles modulo 2 pi: wrapping, unwrapping, and the equivalent angle nearest to another one."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

TURN = 2.0 * np.pi


def wrapped(angle: ArrayLike) -> NDArray[np.float64]:
    """Return the same angle [rad] within [-pi, pi)."""
    return (np.asarray(angle, np.float64) + np.pi) % TURN - np.pi


def nearest_turn(angle: ArrayLike, towards: ArrayLike) -> NDArray[np.float64]:
    """Return the same angle [rad], shifted by full turns to within pi of `towards` [rad].

    Angles already within pi are returned exactly; NaN in either leaves the angle unchanged.
    """
    angle, towards = np.asarray(angle, np.float64), np.asarray(towards, np.float64)
    return angle + TURN * np.nan_to_num(np.round((towards - angle) / TURN))


def unwrapped(angles: ArrayLike, towards: ArrayLike) -> NDArray[np.float64]:
    """Return angles over time without jumps of 2 pi.

    Args:
        angles: (..., steps, n) [rad].
        towards: (..., n) [rad]; the first step is the equivalent angle nearest to it, every other one nearest to its
            predecessor.
    """
    angles = np.asarray(angles, np.float64)
    before = np.concatenate([np.broadcast_to(towards, angles.shape[:-2] + angles.shape[-1:])[..., None, :], angles], -2)
    turns = np.nan_to_num(np.round(np.diff(before, axis=-2) / TURN))
    return angles - TURN * np.cumsum(turns, axis=-2)
