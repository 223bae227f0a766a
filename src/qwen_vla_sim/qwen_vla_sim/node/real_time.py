"""Keeps simulated time in step with the steady clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LARGEST_LAG = 0.1  # [s] what is further behind is given up: simulated time then runs slower than real time
SHORTEST_PAUSE = 0.0002  # [s] even in a hurry: whoever waits for the simulation's lock gets it now


class Pacer:
    """Wakes its thread once per simulated period.

    Periods that were a little late are caught up at once. A simulation that is slower than the machine allows loses
    real time instead (`lost` [s]), so that it does not run ever more hurried behind the clock. `now` is a steady clock.
    """

    def __init__(self, period: float, now: Callable[[], float] = time.monotonic) -> None:
        self.period = period  # simulated [s]
        self.lost = 0.0
        self._told = 0.0
        self._now = now
        self._due = now()

    def restart(self) -> None:
        """Count from now, for example after a pause."""
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
        told, self._told = self._told, self.lost
        return self.lost > told


class Schedule:
    """Says when something that happens at `rate` [Hz] is due, on the grid of simulated time; rate 0 means never."""

    def __init__(self, rate: float) -> None:
        self._period_ns = round(1e9 / rate) if rate > 0 else 0
        self._next_ns = 0

    def due(self, now_ns: int, force: bool = False) -> bool:
        """Whether it is due at `now_ns`; `force` makes it so. Asking takes the turn."""
        if not self._period_ns or (now_ns < self._next_ns and not force):
            return False
        self._next_ns = (now_ns // self._period_ns + 1) * self._period_ns
        return True
