# SPDX-License-Identifier: Apache-2.0
"""How regularly a periodic callback is called. Free of ROS; nothing is allocated between two calls."""

from __future__ import annotations

import numpy as np

CAPACITY = 3000  # calls: a minute at 50 Hz


class LoopTiming:
    """The times of the latest calls of a periodic callback."""

    def __init__(self, period: float) -> None:
        """`period` [s]: intended time between two calls."""
        self._period_ns = period * 1e9
        self._times = np.zeros(CAPACITY, np.int64)
        self._count = 0

    def tick(self, steady_ns: int) -> None:
        """Record a call at a time of the steady clock."""
        self._times[self._count % CAPACITY] = steady_ns
        self._count += 1

    def jitter_ms(self) -> dict[str, float]:
        """Deviation of the times between calls from the period: p50, p99 and max [ms]; NaN before the second call."""
        if self._count < 2:
            return dict.fromkeys(("p50", "p99", "max"), float("nan"))
        full = self._count > CAPACITY
        times = np.roll(self._times, -(self._count % CAPACITY)) if full else self._times[: self._count]
        off = np.abs(np.diff(times) - self._period_ns) / 1e6
        return {"p50": float(np.median(off)), "p99": float(np.quantile(off, 0.99)), "max": float(off.max())}
