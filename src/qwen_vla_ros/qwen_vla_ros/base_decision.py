"""From a chunk to the path of a base that may be driven, or to the reasons why not. Free of ROS and torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.base_path import BasePath, integrated, moved
from qwen_vla_ros.gate import BaseRules, Chunk, ChunkRules, Reason, Refused, check_base, check_form
from qwen_vla_ros.gate.verdict import refuse_if

SHORT_STEP = 0.01  # [m] below it, a step has no direction


class BaseDecision:
    """The gate of one mobile base.

    Attributes:
        joints: none; as in ChunkDecision.
        form: what a chunk must say about itself.
        motion: how fast the base may move.
    """

    joints: tuple[str, ...] = ()

    def __init__(self, embodiment: Embodiment, frame: Callable[[], str]) -> None:
        """Derive the rules; `frame` returns the frame of the odometry. ValueError for a base without limits."""
        limits = embodiment.safety.base
        if limits is None or embodiment.base is None:
            raise ValueError(f"embodiment '{embodiment.name}' has no base, or no `safety.base` in its YAML")
        self._frame = frame
        self._by_velocity = embodiment.control_mode == "base_velocity"
        self._turns_only = embodiment.base.kind == "differential"
        self.form = ChunkRules.of(embodiment)
        self.motion = BaseRules(limits.max_linear, limits.max_angular)

    def path_of(
        self, chunk: Chunk, anchor: np.ndarray, measured: np.ndarray, velocity: np.ndarray | None = None
    ) -> BasePath:
        """Decide about a chunk.

        Args:
            chunk: as it arrived.
            anchor: (3,) pose at the observation by the odometry [m, m, rad]: waypoints are relative to it.
            measured: (3,) pose now: velocities are driven from here.
            velocity: (3,) commanded velocity now in the odometry's frame, where a motion is being replaced.

        Returns:
            The first execution_horizon steps, from `measured` to rest. Waypoints that the base has passed since the
            observation are left out. All steps of the chunk have passed the gate.

        Raises:
            Refused: with every reason that was found.
        """
        refuse_if(check_form(chunk, self.form))
        rows = chunk.rows.astype(float)
        if self._by_velocity:
            self._refuse_sideways(rows)
            poses, passed = integrated(measured, rows, chunk.period), 0
        else:
            poses = moved(anchor, rows)
            passed = steps_behind(poses, measured)
        predicted = BasePath.through(self._frame(), np.vstack([measured, poses[passed:]]), chunk.period, velocity)
        refuse_if(check_base(predicted, self.motion))
        return predicted.first(max(1, chunk.execution_horizon - passed))

    def home_path(self, measured: np.ndarray, speed_share: float) -> BasePath:
        """A base has no home; Refused."""
        raise Refused.because(Reason.WRONG_CONTROL_MODE, "a mobile base has no home pose")

    def _refuse_sideways(self, rows: np.ndarray) -> None:
        if self._turns_only and (np.abs(rows[:, 1]) > self.motion.max_linear * 1e-3).any():
            worst = float(np.abs(rows[:, 1]).max())
            raise Refused.because(
                Reason.UNREACHABLE, f"vy {worst:.3f} m/s, but a differential base cannot drive sideways"
            )


def steps_behind(poses: np.ndarray, measured: np.ndarray) -> int:
    """How many of the first waypoints (steps, 3) a base at `measured` (3,) has passed; the last one always remains."""
    for step in range(len(poses) - 1):
        way = poses[step + 1, :2] - poses[step, :2]
        length = float(np.hypot(*way))
        if length < SHORT_STEP or float((poses[step, :2] - measured[:2]) @ way) > -SHORT_STEP * length:
            return step
    return len(poses) - 1
