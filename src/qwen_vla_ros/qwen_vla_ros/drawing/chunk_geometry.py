# SPDX-License-Identifier: Apache-2.0
"""Predicted paths of end effectors and base, and the joints along them, from a chunk. Free of ROS and torch.

Motion is not judged here: refused chunks are drawn, too, as long as they match the schema of the robot's chunks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions import ControlMode, Embodiment, Kinematics, KinematicsError, pose_from_delta
from embodiment_descriptions.actions import Action
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.chunk_schema import ChunkSchema, check_schema
from qwen_vla_control.observation.robot_pose import RobotPose

FARTHEST = 10_000.0  # [m] viewers fail beyond that
BASE = "base"  # the name of a base's path; arms have names of their own
STEP_IN_TEXT = re.compile(r"\bstep (\d+)")


class CannotDraw(ValueError):
    """A chunk that cannot be placed in the world; the message says what is missing or wrong."""


@dataclass(frozen=True)
class PredictedPath:
    """The predicted path of one arm, or of the base.

    Attributes:
        name: the arm's, or BASE.
        frame: frame in which the poses are expressed.
        poses: (steps + 1, 4, 4) [m]; the first one is the start.
    """

    name: str
    frame: str
    poses: np.ndarray


class ChunkGeometry:
    """The predicted paths of one robot's chunks, in every control mode."""

    def __init__(self, embodiment: Embodiment) -> None:
        """Prepare the kinematics of every arm that the policy moves."""
        self.embodiment = embodiment
        self._schema = ChunkSchema.of(embodiment)
        self.moves_base = embodiment.control_mode.moves_base
        arms = () if self.moves_base else embodiment.arms
        self._by_pose = embodiment.control_mode is ControlMode.EEF_DELTA
        self._kinematics = [Kinematics(embodiment, arm=index) for index in range(len(arms))]

    @property
    def base_frame(self) -> str:
        """The robot's reference frame: that of the first arm, or of the base."""
        return self.embodiment.base_frame

    def paths(self, chunk: Chunk, start: RobotPose, steps: int | None = None) -> list[PredictedPath]:
        """Return the predicted path of every arm, or of the base, over the first `steps` of a chunk (default: all).

        Args:
            chunk: as received.
            start: state of the robot at the chunk's observation.

        Raises:
            CannotDraw: the chunk does not match the robot's schema, a joint is unknown, or the path is not finite.
        """
        found = self._base_or_arms(start, chunk, self._action(chunk, steps))
        if not all((np.abs(path.poses) <= FARTHEST).all() for path in found):  # NaN is not
            raise CannotDraw(f"it leads farther than {FARTHEST:.0f} m")
        return found

    def _base_or_arms(self, start: RobotPose, chunk: Chunk, action: Action) -> list[PredictedPath]:
        if action.base is not None:
            return [self._base_path(chunk, start, action.base)]
        found = []
        for arm, kinematics, part in zip(self.embodiment.arms, self._kinematics, action.arms, strict=True):
            now = self._positions(start, arm.joints)
            if self._by_pose:
                first = kinematics.forward(now)
                poses = [first[None], pose_from_delta(first, part.motion)]
                found.append(PredictedPath(arm.name, arm.base_link, np.concatenate(poses)))
            else:
                path = np.vstack([now, part.motion])
                found.append(PredictedPath(arm.name, arm.base_link, np.stack([kinematics.forward(q) for q in path])))
        return found

    def poses(self, chunk: Chunk, start: RobotPose, steps: int | None = None) -> list[RobotPose]:
        """Return the state of the whole robot after 0, 1, ... steps; ends early where an arm cannot follow.

        Raises:
            CannotDraw: as in `paths`.
        """
        action = self._action(chunk, steps)
        if action.base is not None:
            poses = self._base_path(chunk, start, action.base).poses
            return [RobotPose(start.joints, pose, start.odometry_frame) for pose in poses]
        moved = [dict(start.joints) for _ in range(len(action.arms[0].motion) + 1)]
        for arm, joints in enumerate(self._arm_joints(start, action)):
            moved = moved[: len(joints) + 1]
            for place, positions in zip(moved[1:], joints, strict=False):
                place.update(zip(self.embodiment.arms[arm].joints, map(float, positions), strict=True))
        for step, place in enumerate(moved[1:]):
            place.update(self._others(action, step))
        return [RobotPose(joints, start.base, start.odometry_frame) for joints in moved]

    # --- Parts of a chunk -------------------------------------------------------------------------------------------

    def _action(self, chunk: Chunk, steps: int | None) -> Action:
        """The first `steps` of a chunk by what they move; CannotDraw when it does not match the schema."""
        if violations := check_schema(chunk, self._schema):
            raise CannotDraw("; ".join(violation.message for violation in violations))
        return self.embodiment.layout.decode(chunk.rows[:steps].astype(float))

    def _arm_joints(self, start: RobotPose, action: Action) -> list[np.ndarray]:
        """(steps that can be followed, joints) positions of every arm."""
        found = []
        for arm, kinematics, part in zip(self.embodiment.arms, self._kinematics, action.arms, strict=True):
            now = self._positions(start, arm.joints)
            if self._by_pose:
                targets = pose_from_delta(kinematics.forward(now), part.motion)
                found.append(_as_far_as_possible(kinematics, targets, now))
            else:
                found.append(part.motion)
        return found

    def _others(self, action: Action, step: int) -> dict[str, float]:
        """Positions of gripper, hand and torso joints at one step."""
        e, found = self.embodiment, {}
        for index, (arm, part) in enumerate(zip(e.arms, action.arms, strict=True)):
            if part.gripper is not None and arm.gripper is not None:
                found[arm.gripper.joint] = e.gripper_to_joint(float(part.gripper[step]), index)
            if part.hand is not None:
                found.update(zip(arm.hand, map(float, part.hand[step]), strict=True))
        if action.waist is not None:
            found.update(zip(e.waist, map(float, action.waist[step]), strict=True))
        return found

    def _positions(self, start: RobotPose, joints: tuple[str, ...]) -> np.ndarray:
        missing = [name for name in joints if name not in start.joints]
        if missing:
            raise CannotDraw(f"the joint states lack {', '.join(missing)}")
        return np.array([start.joints[name] for name in joints])

    def _base_path(self, chunk: Chunk, start: RobotPose, rows: np.ndarray) -> PredictedPath:
        """Path of the base: waypoints are relative to the observation; velocities are integrated, constant per step."""
        first = np.eye(4) if start.base is None else start.base
        frame = start.odometry_frame if start.base is not None else chunk.frame_id
        if self.embodiment.control_mode is ControlMode.BASE_VELOCITY:
            poses = [first]
            for twist in rows:
                poses.append(poses[-1] @ arc(twist * chunk.period))
            return PredictedPath(BASE, frame, np.stack(poses))
        return PredictedPath(BASE, frame, np.stack([first, *(first @ planar_pose(*row) for row in rows)]))


def planar_pose(x: float, y: float, theta: float) -> np.ndarray:
    """(4, 4) pose from x, y [m] and theta [rad] in the plane."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([0.0, 0.0, theta]).as_matrix()
    pose[:2, 3] = x, y
    return pose


def arc(displacement: np.ndarray) -> np.ndarray:
    """(4, 4) pose after a motion with constant velocity: the exponential of (x [m], y [m], theta [rad]) in SE(2)."""
    x, y, theta = displacement
    straight, aside = np.sinc(theta / np.pi), (1.0 - np.cos(theta)) / theta if abs(theta) > 1e-9 else theta / 2.0
    return planar_pose(straight * x - aside * y, aside * x + straight * y, theta)


def offending_steps(message: str, steps: int) -> list[int]:
    """Steps named by the message of a refusal, in order; empty when it concerns the chunk as a whole.

    Step k leads from pose k to pose k + 1 of a path. The gate names the first offending step of every kind.
    """
    return sorted({int(number) for number in STEP_IN_TEXT.findall(message) if int(number) < steps})


def _as_far_as_possible(kinematics: Kinematics, targets: np.ndarray, now: np.ndarray) -> np.ndarray:
    try:
        return kinematics.follow(targets, now)
    except KinematicsError as error:
        return kinematics.follow(targets[: error.step], now) if error.step else np.empty((0, len(now)))
