# SPDX-License-Identifier: Apache-2.0
"""From the rows of a chunk to joint positions, for both arm control modes. Free of ROS and torch."""

from __future__ import annotations

import numpy as np

from embodiment_descriptions import ControlMode, Embodiment, Kinematics, KinematicsError, pose_from_delta
from qwen_vla_control.reasons import Reason, Refused

# How far a gripper channel may lie outside 0 closed .. 1 open. A regressor slightly overshoots the ends of its range;
# the finger then stops at its limit, as a real gripper does. More than that is not rounding but a wrong unit.
GRIPPER_OVERSHOOT = 0.1


class ChunkToJoints:
    """Joint positions for the rows of `eef_delta` and `joint_position` chunks of one robot.

    Attributes:
        joints: names of the columns it returns: `Embodiment.joint_names`.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        """Prepare the kinematics of every arm; ValueError for a control mode that has no joint path."""
        if embodiment.control_mode.moves_base:
            arms = " and ".join(mode for mode in ControlMode if not mode.moves_base)
            raise ValueError(
                f"embodiment '{embodiment.name}' has control mode '{embodiment.control_mode}', which has no joint "
                f"path; use {arms}"
            )
        self._layout, self._by_pose = embodiment.layout, embodiment.control_mode is ControlMode.EEF_DELTA
        others = {"a waist": embodiment.waist, "a dexterous hand": [arm for arm in embodiment.arms if arm.hand]}
        if self._by_pose and any(others.values()):
            mode, part = embodiment.control_mode, next(part for part, present in others.items() if present)
            raise ValueError(f"embodiment '{embodiment.name}' has {part}, which no {mode} channel moves")
        self._embodiment = embodiment
        self._kinematics = [Kinematics(embodiment, arm=i) for i in range(len(embodiment.arms))]
        self.joints = tuple(embodiment.joint_names)

    def path(self, rows: np.ndarray, anchor: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """Joint positions that follow a chunk.

        Args:
            rows: (horizon, channels) of the robot's layout.
            anchor: (joints,) joint positions at the observation [rad | m].
            start: (joints,) where the motion begins; by default at the anchor. A joint that was observed beyond a limit
                is not led farther out than this.

        Returns:
            (horizon, joints) [rad | m]; continuous joints continue from the anchor without a jump of 2 pi.

        Raises:
            Refused: UNREACHABLE or POSITION_LIMIT.
        """
        start = anchor if start is None else start
        result = np.tile(np.asarray(anchor, float), (len(rows), 1))
        action = self._layout.decode(self._layout.unwrap(rows, self._layout.of_joints(self.joints, anchor)))
        for arm, kinematics, part in zip(self._embodiment.arms, self._kinematics, action.arms, strict=True):
            columns, own = self._columns(arm.joints), part.motion
            if self._by_pose:
                own = self._follow(arm.name, kinematics, own, anchor[columns])
                lower, upper = kinematics.lower, kinematics.upper
                own = np.clip(own, np.minimum(lower, start[columns]), np.maximum(upper, start[columns]))
            result[:, columns] = own
            if part.gripper is not None and arm.gripper is not None:
                result[:, self._columns([arm.gripper.joint])[0]] = self._fingers(arm.gripper, part.gripper)
            if part.hand is not None:
                result[:, self._columns(arm.hand)] = part.hand
        if action.waist is not None:
            result[:, self._columns(self._embodiment.waist)] = action.waist
        return result

    def positions(self, joints: np.ndarray) -> np.ndarray:
        """End-effector positions [m] in the base frame of each arm: (steps, joints) -> (arms, steps, 3)."""
        return self.poses(joints)[..., :3, 3]

    def poses(self, joints: np.ndarray) -> np.ndarray:
        """End-effector poses in the base frame of each arm: (steps, joints) -> (arms, steps, 4, 4)."""
        joints = np.atleast_2d(joints)
        own = [joints[:, self._columns(arm.joints)] for arm in self._embodiment.arms]
        return np.stack([[kin.forward(row) for row in rows] for rows, kin in zip(own, self._kinematics, strict=True)])

    def _columns(self, names) -> list[int]:
        return [self.joints.index(name) for name in names]

    @staticmethod
    def _follow(name: str, kinematics: Kinematics, deltas: np.ndarray, start: np.ndarray) -> np.ndarray:
        origin = kinematics.forward(start)
        try:
            return kinematics.follow(pose_from_delta(origin, deltas), start)
        except KinematicsError as error:
            who = f"arm '{name}'" if name else "the arm"
            raise Refused.because(Reason.UNREACHABLE, f"{who}: {error}") from error

    def _fingers(self, gripper, opening: np.ndarray) -> np.ndarray:
        outside = np.maximum(-opening, opening - 1.0)
        step = int(np.argmax(outside))
        if outside[step] > GRIPPER_OVERSHOOT:
            raise Refused.because(
                Reason.POSITION_LIMIT,
                f"gripper '{gripper.joint}' at step {step}: opening {opening[step]:.3f} is outside 0 closed .. 1 open",
            )
        return gripper.position(opening)
