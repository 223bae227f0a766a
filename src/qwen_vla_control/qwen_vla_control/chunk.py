"""A chunk as it arrived: what the gate decides about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Chunk:
    """A policy's prediction as it arrived; `data` is still the flat list of the message.

    Attributes:
        stamp_ns: ROS time of the observation [ns].
        frame_id: base frame of the robot.
        period: time between two rows [s].
        data: horizon * len(channel_names) values, row by row, physical units.
        publisher: identity of who sent it; empty where nobody tells.
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
        """(horizon, channels); only after check_schema found nothing."""
        return self.data.reshape(self.horizon, len(self.channel_names))
