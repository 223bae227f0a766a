# SPDX-License-Identifier: Apache-2.0
"""Estimates the latency of a repeated computation, for planning. Free of torch."""

from __future__ import annotations

import math
from collections import deque

import numpy as np


class LatencyEstimate:
    """95th percentile of recent times [s]; the first is excluded: it warms up caches and compilers."""

    def __init__(self, window: int = 100) -> None:
        self._times: deque[float] = deque(maxlen=window)
        self._warm = False

    def add(self, seconds: float) -> None:
        if self._warm:
            self._times.append(seconds)
        self._warm = True

    @property
    def seconds(self) -> float | None:
        """The estimate [s]; None before the second call."""
        return float(np.percentile(self._times, 95)) if self._times else None

    def steps(self, period: float) -> int:
        """Steps of ``period`` seconds that begin in that time; 0 without an estimate."""
        return math.ceil((self.seconds or 0.0) / period)
