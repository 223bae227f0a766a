# SPDX-License-Identifier: Apache-2.0
"""Chunks of absolute joint positions."""

from __future__ import annotations

import numpy as np

from embodiment_descriptions import Embodiment


def turning_waists(robot: Embodiment, displacement: float) -> np.ndarray:
    """Rows (50, C) float32: from home the first joint of each arm turns by `displacement` [rad], from rest to rest."""
    return moving_waists(robot, displacement * (1 - np.cos(np.linspace(0.0, np.pi, 50))) / 2)


def moving_waists(robot: Embodiment, travel: np.ndarray) -> np.ndarray:
    """Rows (n, C) float32: the first joint of each arm is `travel` (n,) [rad] away from home."""
    rows = np.tile([q for arm in robot.arms for q in (*(robot.home[j] for j in arm.joints), 0.0)], (len(travel), 1))
    per_arm = rows.shape[1] // len(robot.arms)
    rows[:, ::per_arm] += travel[:, None]
    return rows.astype(np.float32)
