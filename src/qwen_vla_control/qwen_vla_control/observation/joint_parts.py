# SPDX-License-Identifier: Apache-2.0
"""What a publisher of joint states tells: the joints of its messages, always the same ones, and what came of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from embodiment_descriptions.angles import nearest_turn
from qwen_vla_control.observation.streams import Stream


class Row(NamedTuple):
    """What one message tells of the columns of its part."""

    positions: np.ndarray
    unwrapped: np.ndarray
    velocities: np.ndarray


class Layout(NamedTuple):
    """Which columns a message with certain names tells, in their order, and where in the message each of them stands.

    duplicates: by column, what is wrong with the names.
    """

    columns: np.ndarray
    places: np.ndarray
    continuous: np.ndarray
    duplicates: dict[int, str]


@dataclass(eq=False)
class JointPart:
    """What one publisher tells on one topic in messages with the same joints."""

    source: int
    publisher: bytes
    columns: np.ndarray
    rank: int
    stream: Stream
    unwrapped: np.ndarray
    heard_ns: int = 0

    def push(self, stamp_ns: int, layout: Layout, row: np.ndarray, velocities: np.ndarray, steady_ns: int) -> bool:
        """Store a message; False when it is no newer than the newest."""
        unwrapped = row
        if layout.continuous.any():
            unwrapped = np.where(layout.continuous, nearest_turn(row, self.unwrapped), row)
        if not self.stream.push(stamp_ns, Row(row, unwrapped, velocities), steady_ns):
            return False
        self.unwrapped, self.heard_ns = unwrapped, steady_ns
        return True
