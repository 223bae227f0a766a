"""Angles modulo 2 pi: the short way round, and which turn an angle is in."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

TURN = 2.0 * np.pi


def wrapped(angle: ArrayLike) -> NDArray[np.float64]:
    """Return the same angle [rad], at least -pi and below pi."""
    return (np.asarray(angle, np.float64) + np.pi) % TURN - np.pi


def nearest_turn(angle: ArrayLike, towards: ArrayLike) -> NDArray[np.float64]:
    """Return the same angle [rad] in the turn that brings it within pi of `towards` [rad].

    Angles that are there already stay exactly as they are; NaN in either leaves the angle as it is.
    """
    angle = np.asarray(angle, np.float64)
    return angle + TURN * np.nan_to_num(np.round((towards - angle) / TURN))


def unwrapped(angles: ArrayLike, towards: ArrayLike) -> NDArray[np.float64]:
    """Return angles over time without jumps of whole turns.

    Args:
        angles: (..., steps, n) [rad].
        towards: (..., n) [rad]; the first step is in the turn nearest to it, every other one nearest to the one before.
    """
    angles = np.asarray(angles, np.float64)
    before = np.concatenate([np.broadcast_to(towards, angles.shape[:-2] + angles.shape[-1:])[..., None, :], angles], -2)
    turns = np.nan_to_num(np.round(np.diff(before, axis=-2) / TURN))
    return angles - TURN * np.cumsum(turns, axis=-2)
