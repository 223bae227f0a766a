# SPDX-License-Identifier: Apache-2.0
"""From a chunk to the base path that may be driven, or to the reasons for refusing it. Free of ROS and torch."""

from __future__ import annotations

import numpy as np

from embodiment_descriptions import ControlMode, Embodiment
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.base_rules import BaseRules, check_base
from qwen_vla_control.gate.chunk_schema import ChunkSchema, check_schema
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.motion.base_path import BasePath, integrated, moved
from qwen_vla_control.motion.timed_path import TimedPath
from qwen_vla_control.reasons import Reason, Refused, refuse_if

SHORT_STEP = 0.01  # [m] below it, a step has no direction


class BaseGate:
    """The gate of one mobile base.

    Attributes:
        joints: empty; see ArmGate.
        schema: what a chunk must declare.
        motion: how fast the base may move.
    """

    joints: tuple[str, ...] = ()

    def __init__(self, embodiment: Embodiment) -> None:
        """Derive the rules; ValueError for a base without limits."""
        limits = embodiment.safety.base
        if limits is None or embodiment.base is None:
            raise ValueError(f"embodiment '{embodiment.name}' has no base, or no `safety.base` in its YAML")
        self._by_velocity = embodiment.control_mode is ControlMode.BASE_VELOCITY
        self._is_differential = embodiment.base.kind == "differential"
        self.schema = ChunkSchema.of(embodiment)
        self.motion = BaseRules(limits.max_linear, limits.max_angular)

    def decide(self, chunk: Chunk, state: RobotState) -> TimedPath[BasePath]:
        """Decide about a chunk: waypoints are relative to `state.observed`, velocities continue from `state.measured`.

        Returns:
            The first execution_horizon steps, from `state.measured` to rest, starting at `state.now_ns`. Waypoints that
            the base has passed since the observation are dropped. All steps of the chunk have passed the gate.

        Raises:
            Refused: with every reason found.
        """
        refuse_if(check_schema(chunk, self.schema))
        rows, measured = chunk.rows.astype(float), state.measured
        if self._by_velocity:
            self._refuse_sideways(rows)
            poses, passed = integrated(measured, rows, chunk.period), 0
        else:
            poses = moved(state.observed, rows)
            passed = steps_behind(poses, measured)
        predicted = BasePath.through(state.frame, np.vstack([measured, poses[passed:]]), chunk.period, state.velocity)
        refuse_if(check_base(predicted, self.motion))
        executed = predicted.first(max(1, chunk.execution_horizon - passed))
        return TimedPath(executed, state.now_ns, executed.steps)

    def home_path(self, measured: np.ndarray, speed_share: float) -> BasePath:
        """Raise Refused: a base has no home pose."""
        raise Refused.because(Reason.WRONG_CONTROL_MODE, "a mobile base has no home pose")

    def _refuse_sideways(self, rows: np.ndarray) -> None:
        if self._is_differential and (np.abs(rows[:, 1]) > self.motion.max_linear * 1e-3).any():
            worst = float(np.abs(rows[:, 1]).max())
            raise Refused.because(
                Reason.UNREACHABLE, f"vy {worst:.3f} m/s, but a differential base cannot drive sideways"
            )


def steps_behind(poses: np.ndarray, measured: np.ndarray) -> int:
    """How many of the first waypoints (steps, 3) a base at `measured` (3,) has passed; never the last one."""
    for step in range(len(poses) - 1):
        displacement = poses[step + 1, :2] - poses[step, :2]
        length = float(np.hypot(*displacement))
        if length < SHORT_STEP or float((poses[step, :2] - measured[:2]) @ displacement) > -SHORT_STEP * length:
            return step
    return len(poses) - 1
