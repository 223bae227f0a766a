# SPDX-License-Identifier: Apache-2.0
"""Postprocessing of joint-position chunks: origin, smoothing, and joint limits.

Absolute joint angles cannot be inferred from small images to the milliradian, so a model may predict them relative to
the measured ones, as openpi and LeRobot do for ALOHA. Samples of a generative model are noisy from row to row: at
50 Hz, 2 mrad exceed 60 rad/s². Nor do they end exactly at a joint's limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from embodiment_descriptions import ActionLayout

ROUGHNESS = 3  # order of the differences that smoothing minimizes: constant accelerations are preserved
# Measured on expert chunks of ALOHA (50 rows at 50 Hz) with white noise of 10 mrad: all are within limits from 300 on;
# 1000 changes the rows of a clean chunk by less than 10 mrad.
WEIGHT = 1000.0
RATE = 50.0  # [Hz] at which WEIGHT was measured
FIXED = 1e9  # weight of a row that must not change
OVERSHOOT = 0.02  # [rad] beyond a limit due to the model's inaccuracy; more is an error, which a gate refuses
MARGIN = 0.002  # [rad] to a limit: between two rows at it, a spline overshoots


def smoothed(chunk: np.ndarray, layout: ActionLayout, period: float, fixed: int = 0) -> np.ndarray:
    """The chunk (H, C) with the least sum of squared changes and squared third differences (Whittaker 1923).

    Grippers are unchanged: they may switch in one step. period [s]: of the rows; slower chunks are smoothed less.
    fixed: leading rows that the robot is already executing; they are unchanged, too.
    """
    joints = layout.joints
    if len(chunk) <= ROUGHNESS:
        return chunk
    result = np.array(chunk)
    weight = WEIGHT * (1.0 / (period * RATE)) ** (2 * ROUGHNESS)
    result[:, joints] = _smoother(len(chunk), weight, fixed) @ chunk[:, joints]
    return result


def within_limits(
    chunk: np.ndarray, channel_names: Sequence[str], limits: Mapping[str, tuple[float, float]]
) -> np.ndarray:
    """The chunk (H, C); joints up to OVERSHOOT beyond their limits (lower, upper) [rad] are moved MARGIN inside.

    Otherwise half of the motions to the end of a joint's range would be refused. Larger violations are unchanged.
    """
    result = np.array(chunk)
    for channel, name in enumerate(channel_names):
        if name in limits:
            lower, upper = limits[name]
            nearest = np.clip(chunk[:, channel], lower + MARGIN, upper - MARGIN)
            close = np.abs(chunk[:, channel] - nearest) <= OVERSHOOT + MARGIN
            result[close, channel] = nearest[close]
    return result


@cache
def _smoother(steps: int, weight: float, fixed: int) -> np.ndarray:
    """(steps, steps) smoothing matrix for that many rows."""
    differences = np.diff(np.eye(steps), ROUGHNESS, axis=0)
    trust = np.diag(np.where(np.arange(steps) < fixed, FIXED, 1.0))
    return np.linalg.solve(trust + weight * differences.T @ differences, trust)
