# SPDX-License-Identifier: Apache-2.0
"""Where a robot was commanded to be in the last moments, also while one path replaces another."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np

from qwen_vla_control.motion.spline import Spline

Path = TypeVar("Path", bound=Spline)


class PathHistory(Generic[Path]):
    """The paths of the last `kept` seconds of one motion.

    Attributes:
        since_ns: ROS time when the motion began from rest [ns].
    """

    def __init__(self, kept: float) -> None:
        """Begin at rest; `kept` [s]."""
        self._kept_ns = kept * 1e9
        self._paths: deque[tuple[int, Path]] = deque()  # since when [ns], from the oldest
        self.since_ns = 0

    def begin(self, path: Path, start_ns: int) -> None:
        """Record a path from ROS time `start_ns` [ns] on, also one that replaces another."""
        if not self._paths:
            self.since_ns = start_ns
        while len(self._paths) > 1 and self._paths[1][0] < start_ns - self._kept_ns:
            self._paths.popleft()
        self._paths.append((start_ns, path))

    def end(self) -> None:
        """Forget everything: the robot rests."""
        self._paths.clear()

    @property
    def latest(self) -> Path | None:
        """The current path; None at rest."""
        return self._paths[-1][1] if self._paths else None

    def pieces(self, since_ns: float, until_ns: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The first and the last row of what was commanded of each path between two ROS times [ns]."""
        ends = [start for start, _ in self._paths][1:] + [math.inf]
        for (start, path), end in zip(self._paths, ends, strict=True):
            first, last = max(start, since_ns), min(end, until_ns)
            if first < last:
                yield path.at((first - start) / 1e9)[0], path.at((last - start) / 1e9)[0]

    def at(self, time_ns: float) -> np.ndarray:
        """The row that was commanded at a ROS time [ns]; only while there is a path."""
        start_ns, path = next((p for p in reversed(self._paths) if p[0] <= time_ns), self._paths[0])
        return path.at((time_ns - start_ns) / 1e9)[0]
