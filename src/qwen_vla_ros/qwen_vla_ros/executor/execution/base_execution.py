# SPDX-License-Identifier: Apache-2.0
"""Execution of the paths of a mobile base. Owns what only a base has: its pose from odometry, by which it follows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate import BaseGate, RobotState, Violation
from qwen_vla_control.motion.base_following import WINDOW, BaseFollowingWatch
from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.motion.command_state import Motion
from qwen_vla_control.observation.odometry_reader import OdometryReader
from qwen_vla_control.observation.plausibility import OdometryPlausibility
from qwen_vla_ros.executor.execution.execution import Execution, Held, Source
from qwen_vla_ros.executor.executor_parameters import ODOMETRY
from qwen_vla_ros.ros.lifecycle import ManagedNode
from qwen_vla_ros.ros.publishers import count_on, publisher_name

GAP = 0.2  # [s] the farthest pose that counts as that of another time


class BaseExecution(Execution[BasePath, OdometryReader, OdometryPlausibility]):
    """Drives the base; a stop is zero velocity."""

    moves, age_name = "its base", "odometry age [s]"

    def __init__(self, node: ManagedNode, embodiment: Embodiment) -> None:
        """Create gate, reader and command interfaces; see Execution."""
        odometry, limits = embodiment.odometry, embodiment.safety.base
        if odometry is None or limits is None:
            raise ValueError(f"embodiment '{embodiment.name}' has no `odometry`, or no `safety.base` in its YAML")
        state = OdometryReader(embodiment, node.resolve_topic_name)
        graph = partial(publisher_name, node), partial(count_on, node)
        plausibility = OdometryPlausibility(state, limits, *graph)
        super().__init__(node, embodiment, BaseGate(embodiment), state, plausibility)
        self._following = BaseFollowingWatch()
        self.sources = (Source(ODOMETRY, odometry.topic, self._take),)

    def _take(self, message: Any, steady_ns: int, publisher: bytes) -> None:
        before = self._state.latest()
        self._state.take(message, steady_ns)
        self._plausibility.record(before, publisher, steady_ns)

    def base_pose(self) -> np.ndarray | None:
        """Pose (3,) of the base from odometry [m, m, rad], None when unknown."""
        pose = None if self.lost() else self._state.latest()
        return None if pose is None else pose.vector

    def not_following(self) -> Violation | None:
        """Whether the base stands still on its way."""
        pose = self._state.latest()
        if pose is None:
            return None
        before = self._state.near(pose.stamp_ns - round(WINDOW * 1e9), GAP)
        return self._following.fault(before.vector, pose.vector, pose.stamp_ns) if before else None

    def unfinished(self) -> Violation | None:
        """Whether the base stood still until the end."""
        pose = self._state.latest()
        return None if pose is None else self._following.unfinished(pose.vector)

    def _began(self, motion: Motion[BasePath]) -> None:
        pose = self._state.latest()
        if pose is not None:
            self._following.begin(motion.path, motion.start_ns, pose.vector)

    def finish(self, now_ns: int) -> None:
        """Record that the motion is complete."""
        super().finish(now_ns)
        self._following.end()

    def _path_of(self, chunk: Chunk, state: RobotState) -> BasePath:
        if self.overlaps:  # the path follower smooths it
            chunk = replace(chunk, execution_horizon=chunk.horizon)
        return self.gate.decide(chunk, replace(state, frame=self._state.frame)).path

    def hold(self, at_ns: int | None = None) -> Held:
        """Bring the base to rest, wherever it is."""
        self._following.end()
        failures = self._stop_all(None)
        return Held("zero velocity", self._commanded.end(), failures)
