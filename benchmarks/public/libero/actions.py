# SPDX-License-Identifier: Apache-2.0
"""Between poses of the tip and the actions of robosuite's OSC_POSE, in the robot's base frame.

An action (7,) is a translation in units of 5 cm, a rotation vector in units of 0.5 rad, and the gripper: -1 opens, 1
closes; everything is in [-1, 1]. At every action the controller adds translation and rotation to the *measured* pose,
and drives the tip there; in the 50 ms of an action it comes about a quarter of the way.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.public.protocol.poses import orientation, shifted

POSITION_STEP, ROTATION_STEP = 0.05, 0.5  # [m], [rad] of 1.0
SCALE = np.repeat([POSITION_STEP, ROTATION_STEP], 3)
IDLE = np.array([0.0, 0, 0, 0, 0, 0, -1.0])  # holds, with the fingers open


def action_towards(pose: np.ndarray, hand: np.ndarray, opened: bool) -> np.ndarray:
    """The action that drives the tip, now at `hand` (4, 4), to a pose (4, 4), as far as an action can."""
    turn = (orientation(pose) * orientation(hand).inv()).as_rotvec()
    return scaled(np.concatenate([pose[:3, 3] - hand[:3, 3], turn, [1.0 if opened else -1.0]]))


def scaled(delta: np.ndarray) -> np.ndarray:
    """The action for a translation [m], a rotation vector [rad] and a gripper, 1 open and -1 closed (7,)."""
    return np.append(np.clip(delta[:6] / SCALE, -1.0, 1.0), -delta[6])


def aimed_at(hand: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The pose (4, 4) to which an action drives the tip, which is at `hand` (4, 4)."""
    step = action[:6] * SCALE
    return shifted(hand, step[:3], Rotation.from_rotvec(step[3:]))
