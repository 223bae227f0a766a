# SPDX-License-Identifier: Apache-2.0
"""Keeps simulated time in step with the steady clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LARGEST_LAG = 0.1  # [s] a larger lag is not caught up: simulated time then runs slower than real time
SHORTEST_PAUSE = 0.0002  # [s] even when late, so that threads waiting for the simulation's lock get it


class Pacer:
    """Wakes its thread once per simulated period.

    Slightly late periods are caught up at once. A simulation that the machine is too slow for loses real time instead
    (`lost` [s]), so that its lag does not grow without bound. `now` is a steady clock.
    """

    def __init__(self, period: float, now: Callable[[], float] = time.monotonic) -> None:
        self.period = period  # simulated [s]
        self.lost = 0.0
        self._reported = 0.0
        self._now = now
        self._due = now()

    def restart(self) -> None:
        """Restart at the current time, for example after a pause."""
        self._due = self._now()

    def wait(self, stop: threading.Event, factor: float = 1.0) -> None:
        """Sleep until the next period is due at `factor` times real speed, or `stop` is set."""
        self._due += self.period / factor
        ahead = self._due - self._now()
        if ahead < -LARGEST_LAG:
            self.lost -= ahead
            self.restart()
        stop.wait(max(ahead, SHORTEST_PAUSE))

    def take_loss(self) -> bool:
        """Whether real time was lost since the last call."""
        reported, self._reported = self._reported, self.lost
        return self.lost > reported


class Schedule:
    """When something with a rate of `rate` [Hz] is due, on the grid of simulated time; rate 0 means never."""

    def __init__(self, rate: float) -> None:
        self._period_ns = round(1e9 / rate) if rate > 0 else 0
        self._next_ns = 0

    def due(self, now_ns: int, force: bool = False) -> bool:
        """Whether it is due at `now_ns` or forced; if so, the next time is scheduled."""
        if not self._period_ns or (now_ns < self._next_ns and not force):
            return False
        self._next_ns = (now_ns // self._period_ns + 1) * self._period_ns
        return True
