# SPDX-License-Identifier: Apache-2.0
"""A chunk as received, which is what the gate decides about, and how it is built from a policy's prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embodiment_descriptions import Embodiment


class Prediction(Protocol):
    """The part of a policy's result that a robot needs (see `qwen_vla.ActionChunk`)."""

    @property
    def data(self) -> np.ndarray: ...
    @property
    def channel_names(self) -> tuple[str, ...]: ...
    @property
    def period(self) -> float: ...
    @property
    def control_mode(self) -> str: ...
    @property
    def embodiment(self) -> str: ...
    @property
    def instruction(self) -> str: ...
    @property
    def stamp_ns(self) -> int: ...
    @property
    def execution_horizon(self) -> int: ...


@dataclass(frozen=True)
class Chunk:
    """A policy's prediction as received; `data` is still the flat list of the message.

    Attributes:
        stamp_ns: ROS time of the observation [ns].
        frame_id: base frame of the robot.
        period: time between two rows [s].
        data: horizon * len(channel_names) values, row by row, physical units.
        publisher: identity of the sender; empty where it is unknown.
    """

    chunk_id: int
    stamp_ns: int
    frame_id: str
    embodiment: str
    control_mode: str
    channel_names: tuple[str, ...]
    instruction: str
    horizon: int
    execution_horizon: int
    period: float
    data: np.ndarray
    publisher: bytes = b""

    @property
    def rows(self) -> np.ndarray:
        """(horizon, channels); valid only after check_schema found no violation."""
        return self.data.reshape(self.horizon, len(self.channel_names))

    @classmethod
    def predicted(cls, prediction: Prediction, base_frame: str, chunk_id: int = 0, execution_horizon: int = 0) -> Chunk:
        """Build a chunk from a prediction, unchecked: checking it is the gate's job.

        Args:
            prediction: of a policy.
            base_frame: of the robot that the chunk is sent to.
            chunk_id: number of the chunk.
            execution_horizon: steps to execute; 0: as many as the prediction asks for, or all if it does not say.
        """
        horizon = len(prediction.data)
        return cls(
            chunk_id=chunk_id,
            stamp_ns=prediction.stamp_ns,
            frame_id=base_frame,
            embodiment=prediction.embodiment,
            control_mode=prediction.control_mode,
            channel_names=tuple(prediction.channel_names),
            instruction=prediction.instruction,
            horizon=horizon,
            execution_horizon=min(execution_horizon or prediction.execution_horizon or horizon, horizon),
            period=prediction.period,
            data=np.ascontiguousarray(prediction.data, np.float32).reshape(-1),
        )

    @classmethod
    def of_rows(cls, embodiment: Embodiment, rows: np.ndarray, execution_horizon: int) -> Chunk:
        """Build a chunk from rows (horizon, channels) in the robot's own control mode and channels."""
        return cls(
            chunk_id=0,
            stamp_ns=0,
            frame_id=embodiment.base_frame,
            embodiment=embodiment.name,
            control_mode=embodiment.control_mode,
            channel_names=tuple(embodiment.channel_names),
            instruction="",
            horizon=len(rows),
            execution_horizon=execution_horizon,
            period=embodiment.period,
            data=np.ascontiguousarray(rows, np.float32).reshape(-1),
        )
