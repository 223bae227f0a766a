# SPDX-License-Identifier: Apache-2.0
"""Decides about chunks that take over while the robot moves: timed, blended and checked by the gate. Free of ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.arm_gate import ArmGate
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.motion.blending import Blender, MotionInterval
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.motion.timed_path import TimedPath
from qwen_vla_control.stamps import NANOSECONDS

NOTHING_SKIPPED = 0.5  # steps; a chunk of which less has been passed is executed from its first row


class ChunkHandover:
    """Extends the gate for overlapping chunks; decides like `ArmGate`."""

    def __init__(self, gate: ArmGate, blender: Blender, now: Callable[[], int]) -> None:
        """Begin at rest; `now` returns ROS time [ns] and is called after the inverse kinematics, which take time."""
        self._gate, self._blender, self._now = gate, blender, now
        self._interval = MotionInterval()
        self._proposed: TimedPath[JointPath] | None = None

    def decide(self, chunk: Chunk, state: RobotState) -> TimedPath[JointPath]:
        """Decide about a chunk like `ArmGate.decide`, but for all of its rows, so that no pause has to follow."""
        self._proposed = None
        if state.motion is None and self._skipped(chunk, state.now_ns) < NOTHING_SKIPPED * chunk.period:
            path = self._gate.decide(replace(chunk, execution_horizon=chunk.horizon), state).path
            self._proposed = TimedPath(path, self._now(), chunk.execution_horizon)
            return self._proposed
        started = self._now()

        def blend(rows: np.ndarray) -> JointPath:
            nonlocal started
            started = self._now()
            self._proposed = placed = self._placed(chunk, rows, state, started)
            running = TimedPath(state.motion.path, state.motion.start_ns) if state.motion is not None else None
            return self._blender.path(placed, started, running, state.measured)

        path = self._gate.blended_path(chunk, state, blend)
        return TimedPath(path, started, chunk.execution_horizon)

    def began(self, path: JointPath, now_ns: int) -> None:
        """Record that the path of the last decision was sent."""
        if self._proposed is not None:
            self._blender.take(self._proposed, now_ns)
        self._interval.begin(now_ns, now_ns + round(path.duration * NANOSECONDS))

    def rests(self, now_ns: int) -> None:
        """Record that the robot was stopped or came to rest."""
        self._blender.forget()
        self._interval.end(now_ns)

    def _placed(self, chunk: Chunk, rows: np.ndarray, state: RobotState, now_ns: int) -> TimedPath[JointPath]:
        """The whole chunk on the time axis; the part that the robot has executed meanwhile lies in the past."""
        motion = state.motion
        speed = motion.commanded(chunk.stamp_ns)[1] if motion and motion.start_ns <= chunk.stamp_ns else None
        whole = JointPath.through(self._gate.joints, np.vstack([state.observed, rows]), chunk.period, speed)
        start = now_ns - round(self._skipped(chunk, now_ns) * NANOSECONDS)
        return TimedPath(whole, start, chunk.execution_horizon)

    def _skipped(self, chunk: Chunk, now_ns: int) -> float:
        return self._interval.skipped(chunk.stamp_ns, now_ns) / NANOSECONDS
