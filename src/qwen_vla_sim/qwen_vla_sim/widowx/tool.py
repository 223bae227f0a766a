# SPDX-License-Identifier: Apache-2.0
"""Kinematics of the WidowX with its tool pointing straight down: joints from tip positions."""

from __future__ import annotations

import numpy as np

from embodiment_descriptions import Embodiment, Kinematics
from qwen_vla_sim.widowx.grasping import Step


class ToolDown:
    """Kinematics of the arm.

    Attributes:
        home: (7,) joints [rad; last: left_finger, m].
        home_pose, orientation: (4, 4) pose of the tip at home in base_link; its rotation (3, 3), tool straight down.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        self.embodiment = embodiment
        self.kinematics = Kinematics(embodiment)
        self.home = np.array([embodiment.home[name] for name in embodiment.joint_names])
        self.home_pose = self.kinematics.forward(self.home[:6])
        self.orientation = self.home_pose[:3, :3]

    def joints_for(self, step: Step, joints: np.ndarray) -> np.ndarray:
        """(7,) joints of `step`, solved from `joints`; KinematicsError when it is out of reach."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.orientation, step.position
        return np.append(self.kinematics.inverse(pose, joints[:6]), self.embodiment.gripper_to_joint(step.gripper))
