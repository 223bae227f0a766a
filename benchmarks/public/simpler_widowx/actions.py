# SPDX-License-Identifier: Apache-2.0
"""Between poses of the tip and the actions of mani_skill's controller, in the robot's root frame.

An action (7,) is Δx Δy Δz [m] and Euler angles XYZ [rad], both along the root's axes and added to the controller's own
target, and the gripper: 1 opens, -1 closes.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

EULER = "XYZ"


def action_towards(pose: np.ndarray, target: np.ndarray, opened: bool) -> np.ndarray:
    """The action after which the controller's target (4, 4) is a pose (4, 4)."""
    turn = Rotation.from_matrix(pose[:3, :3] @ target[:3, :3].T).as_euler(EULER)
    return np.concatenate([pose[:3, 3] - target[:3, 3], turn, [1.0 if opened else -1.0]])


def applied(target: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The controller's target (4, 4) after an action."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler(EULER, action[3:6]).as_matrix() @ target[:3, :3]
    pose[:3, 3] = target[:3, 3] + action[:3]
    return pose


def moved(pose: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """A pose (4, 4) moved by a delta (6,) in its own frame: translation [m] and rotation vector [rad]."""
    step = np.eye(4)
    step[:3, :3], step[:3, 3] = Rotation.from_rotvec(delta[3:]).as_matrix(), delta[:3]
    return pose @ step


def pose_vector(pose: np.ndarray) -> np.ndarray:
    """(7,) position [m] and quaternion x y z w, w ≥ 0, of a pose (4, 4)."""
    return np.concatenate([pose[:3, 3], Rotation.from_matrix(pose[:3, :3]).as_quat(canonical=True)])
