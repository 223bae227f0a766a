# SPDX-License-Identifier: Apache-2.0
"""Keeps clients from filling the log: their records are rate-limited, and suppressed ones are counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable


class Seldom(logging.Filter):
    """Lets a burst of records pass, then one every so many seconds, which gives the number of suppressed ones."""

    def __init__(self, burst: int, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        """every: seconds after which one more record may pass."""
        super().__init__()
        self._burst, self._every, self._clock = burst, every, clock
        self._allowed, self._since, self._left_out = float(burst), clock(), 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record passes; its text may be extended."""
        now = self._clock()
        self._allowed = min(self._burst, self._allowed + (now - self._since) / self._every)
        self._since = now
        if self._allowed < 1:
            self._left_out += 1
            return False
        self._allowed -= 1
        if self._left_out:
            record.msg, record.args = f"{record.getMessage()} ({self._left_out} more were suppressed)", ()
            self._left_out = 0
        return True
