"""Execution of the paths of a mobile base. Owns what only a base has: its pose from odometry, by which it follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate import BaseGate, RobotState
from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.observation.odometry_reader import OdometryReader
from qwen_vla_ros.executor.execution.execution import Execution, Held, Source
from qwen_vla_ros.executor.executor_parameters import ODOMETRY
from qwen_vla_ros.ros.lifecycle import ManagedNode


class BaseExecution(Execution):
    """Drives the base; a stop is zero velocity."""

    moves, age_name = "its base", "odometry age [s]"

    def __init__(self, node: ManagedNode, embodiment: Embodiment) -> None:
        """Create gate, reader and command interfaces; see Execution."""
        state = OdometryReader(embodiment, node.resolve_topic_name)
        super().__init__(node, embodiment, BaseGate(embodiment), state)
        self.sources = (Source(ODOMETRY, embodiment.odometry.topic, self._take),)

    def _take(self, message: Any, steady_ns: int, _publisher: bytes) -> None:
        self._state.take(message, steady_ns)

    def base_pose(self) -> np.ndarray | None:
        """Pose (3,) of the base from odometry [m, m, rad], None when unknown."""
        return None if self._fault() else self._state.latest().vector

    def _path_of(self, chunk: Chunk, state: RobotState) -> BasePath:
        if self.overlaps:  # the path follower smooths it
            chunk = replace(chunk, execution_horizon=chunk.horizon)
        return self.gate.decide(chunk, replace(state, frame=self._state.frame)).path

    def hold(self, at_ns: int | None = None) -> Held:
        """Bring the base to rest, wherever it is."""
        failures = self._stop_all(None)
        return Held("zero velocity", self._commanded.end(), failures)
