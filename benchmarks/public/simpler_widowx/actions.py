# SPDX-License-Identifier: Apache-2.0
"""Between poses of the tip and the actions of mani_skill's controller, in the robot's root frame.

An action (7,) is Δx Δy Δz [m] and Euler angles XYZ [rad], both along the root's axes and added to the controller's own
target, and the gripper: 1 opens, -1 closes.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.public.protocol.poses import orientation, shifted

EULER = "XYZ"


def action_towards(pose: np.ndarray, target: np.ndarray, opened: bool) -> np.ndarray:
    """The action after which the controller's target (4, 4) is a pose (4, 4)."""
    turn = (orientation(pose) * orientation(target).inv()).as_euler(EULER)
    return np.concatenate([pose[:3, 3] - target[:3, 3], turn, [1.0 if opened else -1.0]])


def applied(target: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The controller's target (4, 4) after an action."""
    return shifted(target, action[:3], Rotation.from_euler(EULER, action[3:6]))
