# SPDX-License-Identifier: Apache-2.0
"""From a chunk to the joint path that may be executed, or to the reasons for refusing it. Free of ROS and torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.angles import nearest_turn
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.chunk_schema import ChunkSchema, check_schema
from qwen_vla_control.gate.chunk_to_joints import ChunkToJoints
from qwen_vla_control.gate.joint_rules import (
    MotionRules,
    check_motion,
    check_reference,
    check_start,
    check_workspace,
    grown,
)
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.gate.self_collision import SelfCollision
from qwen_vla_control.motion.joint_path import JointPath, rest_to_rest
from qwen_vla_control.motion.timed_path import TimedPath
from qwen_vla_control.reasons import Reason, Refused, Violation, refuse_if

# Home motions stay well below what the gate allows, in speed, acceleration and distance per row.
HOME_SHARE = 0.8
LONGEST_HOME = 120.0  # [s]
# The way home may leave the workspace by so much, sideways and upwards, around where the end effector stands: out of a
# folded pose at the edge there is hardly another.
HOME_MARGIN = 0.02  # [m]
# Within a step of the spline the speed is up to twice the mean.
GRIPPER_SHARE_OF_SPEED = 0.5


class ArmGate:
    """The gate of one robot with arms: rules from its URDF and YAML, kinematics, and the order of the checks.

    Attributes:
        joints: all commanded joints, the columns of every path and vector here.
        schema: what a chunk must declare.
        motion: how the joints may move.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        """Derive the rules; ValueError when the robot's control mode has no joint path."""
        self._embodiment = embodiment
        self._to_joints = ChunkToJoints(embodiment)
        self.joints = self._to_joints.joints
        self.schema = ChunkSchema.of(embodiment)
        self.motion = MotionRules.of(embodiment)
        self._loose = replace(self.motion, acceleration=np.full(len(self.joints), np.inf))
        self._home = np.array([embodiment.home[name] for name in self.joints])
        self._continuous = np.array([embodiment.limits[name].type == "continuous" for name in self.joints])
        self._grippers = [self.joints.index(arm.gripper.joint) for arm in embodiment.arms if arm.gripper]
        self._limits_acceleration = bool(np.isfinite(self.motion.acceleration).any())
        enabled = embodiment.safety.self_collision
        self._self_collision = SelfCollision(embodiment.urdf, self.joints, self._home) if enabled else None

    def poses(self, joints: np.ndarray) -> np.ndarray:
        """End-effector poses in the base frame of each arm: (steps, joints) or (joints,) -> (arms, steps, 4, 4)."""
        return self._to_joints.poses(joints)

    def rows_of(self, chunk: Chunk, anchor: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """Joint positions (horizon, joints) that a chunk requests.

        Args:
            chunk: of this robot.
            anchor: (joints,) observed positions, which the chunk is relative to.
            start: (joints,) where the motion begins; by default where the joints were observed.

        Raises:
            Refused: the chunk does not match the schema, or cannot be followed.
        """
        refuse_if(check_schema(chunk, self.schema))
        rows = self._to_joints.path(chunk.rows.astype(float), anchor, start)
        self._let_grippers_follow(rows, anchor if start is None else start, chunk.period)
        return rows

    def decide(self, chunk: Chunk, state: RobotState) -> TimedPath[JointPath]:
        """Decide about a chunk.

        Returns:
            The first execution_horizon steps, from `state.start` to rest, starting at `state.now_ns`. All steps of
            the chunk have passed the gate, not only these; accelerations are checked only for the executed steps.

        Raises:
            Refused: with every reason found.
        """
        start, velocity = state.start, state.velocity
        rows = self.rows_of(chunk, state.observed, None if state.reference is None else start)
        if self._limits_acceleration:
            speed = np.zeros(len(start)) if velocity is None else velocity
            limit = self.motion.acceleration
            predicted = JointPath.blended_in(self.joints, rows, chunk.period, start, speed, limit)
            executed = predicted.decelerated(chunk.execution_horizon, limit)
        else:
            predicted = JointPath.through(self.joints, np.vstack([start, rows]), chunk.period, velocity)
            executed = predicted.first(chunk.execution_horizon)
        found = self.check_start(state, rows[0]) + check_motion(predicted, self._loose)
        refuse_if(found + check_motion(executed, self.motion) + self._check_workspace(predicted))
        refuse_if(self._check_collisions(predicted))
        return TimedPath(executed, state.now_ns, chunk.execution_horizon)

    def blended_path(self, chunk: Chunk, state: RobotState, blend: Callable[[np.ndarray], JointPath]) -> JointPath:
        """Decide about a chunk that takes over while the robot moves.

        Args:
            chunk: as it arrived.
            state: of the robot.
            blend: makes the path from what is being executed into the rows of the chunk (horizon, joints).

        Returns:
            The whole path from `blend`. Both the chunk alone and the blended path have passed the gate.

        Raises:
            Refused: with every reason found.
        """
        rows = self.rows_of(chunk, state.observed)
        predicted = JointPath.through(self.joints, np.vstack([state.observed, rows]), chunk.period)
        refuse_if(check_motion(predicted, self._loose) + self._check_workspace(predicted))
        refuse_if(self._check_collisions(predicted))
        path = blend(rows)
        if self._limits_acceleration:
            path = path.decelerated(path.steps, self.motion.acceleration)
        found = self.check_start(state, path.positions[1]) + check_motion(path, self.motion)
        refuse_if(found + self._check_workspace(path))
        refuse_if(self._check_collisions(path))
        return path

    def check_start(self, state: RobotState, first: np.ndarray) -> list[Violation]:
        """Check how a path begins whose first row (joints,) is `first`: as its controllers see it, and as measured."""
        reference = state.reference
        found = check_start(first, state.measured, self.motion)
        if reference is None:
            return found
        found += check_reference(reference, state.measured, self.motion, at_rest=state.motion is None)
        return found + check_start(first, reference.positions, self.motion)

    def check(self, path: JointPath, margin: float | None = None) -> None:
        """Check a path that is to be executed unchanged; it may leave the workspace by `margin` [m] around its start.

        Raises:
            Refused: with every reason found.
        """
        refuse_if(check_motion(path, self.motion) + self._check_workspace(path, margin))
        refuse_if(self._check_collisions(path))

    def home_path(self, measured: np.ndarray, speed_share: float) -> JointPath:
        """Plan the motion from `measured` (joints,) to the home pose, no faster than `speed_share` of the limits.

        Continuous joints turn the short way. The motion may begin outside the workspace and pass it close to there.

        Raises:
            Refused: the straight motion in joint space does not pass the gate, or would take too long.
        """
        home = np.where(self._continuous, nearest_turn(self._home, measured), self._home)
        return self.slow_path(measured, home, speed_share, "home", HOME_MARGIN)

    def slow_path(
        self, start: np.ndarray, goal: np.ndarray, speed_share: float, name: str, margin: float | None = None
    ) -> JointPath:
        """Plan the motion from rest to rest that is straight in joint space.

        Args:
            start: (joints,) first positions.
            goal: (joints,) last positions.
            speed_share: of the speed limits, which it does not exceed.
            name: where it leads, for error messages ("home").
            margin: by which it may leave the workspace around `start` [m]; None: not at all.

        Raises:
            Refused: it does not pass the gate, or would take too long.
        """
        speed = speed_share * np.minimum(self.motion.speed, HOME_SHARE * self.motion.step / self.schema.period)
        time = float(np.max(np.abs(goal - start) / speed))
        if not time <= LONGEST_HOME:  # NaN is not
            text = (
                f"the motion {name} takes at least {time:.0f} s (limit {LONGEST_HOME:.0f} s); "
                "are the measured joint positions right?"
            )
            raise Refused.because(Reason.START_JUMP, text)
        limit = HOME_SHARE * self.motion.acceleration
        path = rest_to_rest(self.joints, start, goal, speed, self.schema.period, limit)
        self.check(path, margin)
        return path

    def _let_grippers_follow(self, rows: np.ndarray, start: np.ndarray, period: float) -> None:
        """Limit the grippers to the speed they can reach, in place.

        A policy switches between open and closed from one row to the next; at a high rate no gripper is that fast. It
        lags behind its command, as behind any controller.
        """
        reach = GRIPPER_SHARE_OF_SPEED * self.motion.speed[self._grippers] * period
        before = start[self._grippers]
        for row in rows:
            before = np.clip(row[self._grippers], before - reach, before + reach)
            row[self._grippers] = before

    def _check_workspace(self, path: JointPath, margin: float | None = None) -> list[Violation]:
        """Check the end effectors against the workspace; a margin [m] lets it hold that much around the start."""
        if not np.isfinite(path.positions).all():
            return []
        box = self._embodiment.safety.workspace
        if box is None:
            return []
        found = []
        for tip in self._to_joints.positions(path.positions):
            lower, upper = (box.min, box.max) if margin is None else grown(box.min, box.max, tip[0], margin)
            found += check_workspace(tip, lower, upper)
        return found

    def _check_collisions(self, path: JointPath) -> list[Violation]:
        """Check the parts of the robot against each other.

        Last, and only where nothing else was found: it samples the path at small joint distances, and a step that is
        far too long would need any number of samples.
        """
        return self._self_collision.check(path.positions) if self._self_collision else []
