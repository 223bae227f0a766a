"""From a chunk to the joint path that may be executed, or to the reasons why not. Free of ROS and torch."""

from __future__ import annotations

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_ros.chunk_to_joints import ChunkToJoints
from qwen_vla_ros.gate import (
    Chunk,
    ChunkRules,
    MotionRules,
    Reason,
    Refused,
    Violation,
    check_form,
    check_motion,
    check_workspace,
)
from qwen_vla_ros.joint_path import JointPath, rest_to_rest

# Home motions stay well below what the gate allows, in speed and in distance per row.
HOME_SHARE_OF_STEP = 0.8


class ChunkDecision:
    """The gate of one robot: rules from its URDF and YAML, kinematics, and the order of the checks.

    Attributes:
        joints: all commanded joints, the columns of every path and vector here.
        form: what a chunk must say about itself.
        motion: how the joints may move.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        """Derive the rules; ValueError when this executor cannot drive such a robot."""
        self._embodiment = embodiment
        self._to_joints = ChunkToJoints(embodiment)
        self.joints = self._to_joints.joints
        self.form = ChunkRules(
            embodiment=embodiment.name,
            control_mode=embodiment.control_mode,
            channel_names=tuple(embodiment.channel_names),
            period=embodiment.period,
            max_horizon=embodiment.chunk_size,
            base_frame=self._to_joints.base_frame,
        )
        self.motion = motion_rules(embodiment)
        self._home = np.array([embodiment.home[name] for name in self.joints])

    def poses(self, joints: np.ndarray) -> np.ndarray:
        """End-effector poses in the base frame of each arm: (steps, joints) or (joints,) -> (arms, steps, 4, 4)."""
        return self._to_joints.poses(joints)

    def path_of(
        self, chunk: Chunk, anchor: np.ndarray, measured: np.ndarray, velocity: np.ndarray | None = None
    ) -> JointPath:
        """Decide about a chunk.

        Args:
            chunk: as it arrived.
            anchor: (joints,) positions at the time of the observation [rad | m].
            measured: (joints,) positions now.
            velocity: (joints,) commanded velocity now, where a motion is being replaced.

        Returns:
            The first execution_horizon steps, from `measured` to rest. All steps of the chunk have passed the gate,
            not only these.

        Raises:
            Refused: with every reason that was found.
        """
        _refuse_if(check_form(chunk, self.form))
        rows = self._to_joints.path(chunk.rows.astype(float), anchor)
        predicted = JointPath.through(self.joints, np.vstack([measured, rows]), chunk.period, velocity)
        executed = predicted.first(chunk.execution_horizon)
        self._check(predicted, executed)
        return executed

    def home_path(self, measured: np.ndarray, speed_share: float) -> JointPath:
        """Plan the motion from `measured` to the home pose, no faster than `speed_share` of the limits.

        Raises:
            Refused: the straight motion in joint space does not pass the gate.
        """
        speed = speed_share * np.minimum(self.motion.speed, HOME_SHARE_OF_STEP * self.motion.step / self.form.period)
        path = rest_to_rest(self.joints, measured, self._home, speed, self.form.period)
        self._check(path)
        return path

    def _check(self, *paths: JointPath) -> None:
        found: list[Violation] = []
        for path in paths:
            found += check_motion(path, self.motion)
            found += self._check_workspace(path)
        _refuse_if(found)

    def _check_workspace(self, path: JointPath) -> list[Violation]:
        box = self._embodiment.safety.workspace
        if box is None or not np.isfinite(path.positions).all():
            return []
        return [v for arm in self._to_joints.positions(path.positions) for v in check_workspace(arm, box.min, box.max)]


def motion_rules(embodiment: Embodiment) -> MotionRules:
    """Limits of the URDF, narrowed by the safety part of the YAML.

    The jump limits are angles and hold for the arm joints; a gripper may go from closed to open in one step, and is
    bounded by its position and velocity limits.
    """
    joints = tuple(embodiment.joint_names)
    limits = [embodiment.limits[name] for name in joints]
    safety = embodiment.safety
    grippers = [arm.gripper.joint for arm in embodiment.arms if arm.gripper]
    jump_of = dict.fromkeys(grippers, np.inf)
    return MotionRules(
        joints=joints,
        lower=np.array([limit.lower for limit in limits]),
        upper=np.array([limit.upper for limit in limits]),
        speed=np.array([limit.velocity * safety.max_joint_speed_fraction for limit in limits]),
        start_jump=np.array([jump_of.get(name, safety.max_start_jump_rad) for name in joints]),
        step=np.array([jump_of.get(name, safety.max_step_rad) for name in joints]),
        acceleration=np.array([jump_of.get(name, safety.max_joint_acceleration or np.inf) for name in joints]),
    )


def joint_vector(names: list[str], positions: list[float], joints: tuple[str, ...]) -> np.ndarray:
    """Order the positions of a JointState message by `joints`.

    Raises:
        Refused: NO_JOINT_STATE, with the joint that is missing or not finite.
    """
    by_name = dict(zip(names, positions, strict=False))
    missing = [name for name in joints if name not in by_name]
    if missing:
        raise Refused.because(
            Reason.NO_JOINT_STATE,
            f"joint states lack {', '.join(missing)}; they have {', '.join(names) or 'no names'}",
        )
    vector = np.array([by_name[name] for name in joints], dtype=float)
    if not np.isfinite(vector).all():
        bad = joints[int(np.argmin(np.isfinite(vector)))]
        raise Refused.because(Reason.NO_JOINT_STATE, f"joint state of '{bad}' is {by_name[bad]}")
    return vector


def _refuse_if(violations: list[Violation]) -> None:
    if violations:
        raise Refused(violations)
