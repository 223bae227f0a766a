"""From the rows of a chunk to joint positions, in both control modes of arms. Free of ROS and torch."""

from __future__ import annotations

import numpy as np

from embodiment_descriptions import Embodiment, Kinematics, KinematicsError, pose_from_delta
from qwen_vla_control.reasons import Reason, Refused

MODES = ("eef_delta", "joint_position")
POSE_CHANNELS = 6
# How far beyond 0 closed .. 1 open a gripper channel may lie. A regressor overshoots the ends of its range a little;
# the finger then stops at its end, as a real gripper does. More than that is no rounding but a wrong unit.
GRIPPER_OVERSHOOT = 0.1


class ChunkToJoints:
    """Joint positions for the rows of `eef_delta` and `joint_position` chunks of one robot.

    Attributes:
        joints: names of the columns it returns: all arm joints, then all gripper joints.
        base_frame: frame of the end-effector positions.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        """Prepare the kinematics of every arm; ValueError for a control mode that has no joint path."""
        if embodiment.control_mode not in MODES:
            raise ValueError(
                f"embodiment '{embodiment.name}' has control mode '{embodiment.control_mode}', whose chunks are no "
                f"joint positions; those of {' and '.join(MODES)} are"
            )
        self._by_pose = embodiment.control_mode == "eef_delta"
        if embodiment.waist and self._by_pose:
            raise ValueError(f"embodiment '{embodiment.name}' has a waist, which no eef_delta channel moves")
        self._embodiment = embodiment
        self._kinematics = [Kinematics(embodiment, arm=i) for i in range(len(embodiment.arms))]
        self.joints = tuple(embodiment.joint_names)
        self.base_frame = embodiment.base_frame

    def path(self, rows: np.ndarray, anchor: np.ndarray) -> np.ndarray:
        """Joint positions that follow a chunk.

        Args:
            rows: (horizon, channels). eef_delta: per arm a translation [m] and a rotation vector [rad], relative to the
                end effector at the observation; joint_position: the positions of its joints [rad | m]. Then the gripper
                opening [1] if the arm has one. joint_position: in the end the joints of the waist.
            anchor: (joints,) joint positions at the observation [rad | m].

        Returns:
            (horizon, joints) [rad | m].

        Raises:
            Refused: UNREACHABLE or POSITION_LIMIT.
        """
        result = np.tile(np.asarray(anchor, float), (len(rows), 1))
        channel = 0
        for arm, kinematics in zip(self._embodiment.arms, self._kinematics, strict=True):
            columns = self._columns(arm.joints)
            own = rows[:, channel : channel + (POSE_CHANNELS if self._by_pose else len(columns))]
            followed = self._follow(arm.name, kinematics, own, anchor[columns]) if self._by_pose else own
            result[:, columns] = followed
            channel += own.shape[1]
            if arm.gripper is not None:
                result[:, self._columns([arm.gripper.joint])[0]] = self._fingers(arm.gripper, rows[:, channel])
                channel += 1
        if self._embodiment.waist:
            result[:, self._columns(self._embodiment.waist)] = rows[:, channel:]
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
        return gripper.closed + np.clip(opening, 0.0, 1.0) * (gripper.open - gripper.closed)
