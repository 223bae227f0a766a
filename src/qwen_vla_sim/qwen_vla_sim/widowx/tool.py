"""The WidowX with its tool straight down: joints from positions of the tip, and what a chunk may ask for."""

from __future__ import annotations

import numpy as np

from embodiment_descriptions import Embodiment, Kinematics, pose_from_delta
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
        """(7,) joints that do `step`, from `joints` on; KinematicsError when it is out of reach."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.orientation, step.position
        return np.append(self.kinematics.inverse(pose, joints[:6]), self.embodiment.gripper_to_joint(step.gripper))

    def follow(self, chunk: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """(H, 7) `eef_delta` chunk, anchored at the measured `joints` (7,), as (H, 7) joint targets.

        ValueError when the chunk leads out of reach or out of the workspace, or asks for more speed or for longer steps
        than the robot allows: as before the real robot, a chunk is executed as a whole or not at all.
        """
        origin = self.kinematics.forward(joints[:6])
        poses = pose_from_delta(origin, np.asarray(chunk[:, :6], float))
        self._check_workspace(poses[:, :3, 3])
        arm = self.kinematics.follow(poses, joints[:6])
        self._check_motion(arm, joints[:6])
        fingers = [self.embodiment.gripper_to_joint(float(fraction)) for fraction in chunk[:, 6]]
        return np.column_stack([arm, fingers])

    def _check_workspace(self, positions: np.ndarray) -> None:
        box = self.embodiment.safety.workspace
        if box is None:
            return
        outside = ((positions < box.min) | (positions > box.max)).any(axis=1)
        if outside.any():
            step = int(outside.argmax())
            raise ValueError(f"step {step}: the tip at {positions[step].round(3)} m is outside the workspace")

    def _check_motion(self, arm: np.ndarray, start: np.ndarray) -> None:
        safety = self.embodiment.safety
        fastest = self.kinematics.speed_fractions(arm, start, self.embodiment.period).max()
        if fastest > safety.max_joint_speed_fraction:
            raise ValueError(f"the chunk needs {fastest:.2f} times a joint's speed limit")
        steps = np.abs(np.diff(np.vstack([start, arm]), axis=0)).max(axis=1)
        for step, limit in ((0, safety.max_start_jump_rad), (int(steps.argmax()), safety.max_step_rad)):
            if steps[step] > limit:
                raise ValueError(f"step {step}: a joint turns by {steps[step]:.2f} rad; the limit is {limit:g} rad")
