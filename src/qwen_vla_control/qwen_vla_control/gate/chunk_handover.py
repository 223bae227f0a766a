"""Decides about chunks that take over while the robot moves: placed in time, blended, through the gate. Free of ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from qwen_vla_control.gate import Chunk
from qwen_vla_control.gate.arm_gate import ChunkDecision
from qwen_vla_control.motion.blending import NANOSECONDS, Blender, Plan, Span
from qwen_vla_control.motion.command_state import Motion
from qwen_vla_control.motion.joint_path import JointPath

NOTHING_SKIPPED = 0.5  # steps; a chunk of which less is behind the robot begins with its first row


class HandOver:
    """What an executor adds to its gate where chunks overlap."""

    def __init__(self, decision: ChunkDecision, blender: Blender) -> None:
        """Begin at rest."""
        self._decision, self._blender = decision, blender
        self._span = Span()
        self._proposed: Plan | None = None

    def path_of(
        self, chunk: Chunk, anchor: np.ndarray, measured: np.ndarray, motion: Motion | None, now: Callable[[], int]
    ) -> JointPath:
        """Decide about a chunk; as ChunkDecision.path_of, but for all of its rows, so that no pause has to follow.

        Args:
            chunk: as it arrived.
            anchor: (joints,) positions at the time of the observation [rad | m].
            measured: (joints,) positions now.
            motion: what is being executed.
            now: ROS time [ns]; asked when the inverse kinematics are done, which take time.
        """
        self._proposed = None
        if motion is None and self._skipped(chunk, now()) < NOTHING_SKIPPED * chunk.period:
            path = self._decision.path_of(replace(chunk, execution_horizon=chunk.horizon), anchor, measured)
            self._proposed = Plan(path, now(), chunk.execution_horizon)
            return path

        def blend(rows: np.ndarray) -> JointPath:
            at = now()
            speed = motion.commanded(chunk.stamp_ns)[1] if motion and motion.start_ns <= chunk.stamp_ns else None
            whole = JointPath.through(self._decision.joints, np.vstack([anchor, rows]), chunk.period, speed)
            start = at - round(self._skipped(chunk, at) * NANOSECONDS)
            self._proposed = Plan(whole, start, chunk.execution_horizon)
            running = Plan(motion.path, motion.start_ns) if motion is not None else None
            return self._blender.path(self._proposed, at, running, measured)

        return self._decision.blended_path_of(chunk, anchor, measured, blend)

    def began(self, path: JointPath, now_ns: int) -> None:
        """Take note that the path that was decided about last has been sent."""
        self._blender.take(self._proposed, now_ns)
        self._span.begin(now_ns, now_ns + round(path.duration * NANOSECONDS))

    def rests(self, now_ns: int) -> None:
        """Take note that the robot was stopped, or has come to rest."""
        self._blender.forget()
        self._span.end(now_ns)

    def _skipped(self, chunk: Chunk, now_ns: int) -> float:
        return self._span.skipped(chunk.stamp_ns, now_ns) / NANOSECONDS
