# SPDX-License-Identifier: Apache-2.0
"""Whether this process itself was frozen (Ctrl-Z, a suspended machine): then nothing was watched or received."""

from __future__ import annotations

FROZEN = 0.3  # [s] steady, between two readings
CATCH_UP = 0.06  # [s] steady, to receive the messages of the meantime


class FreezeWatch:
    """Compares the steady clock with its last reading."""

    def __init__(self, steady_ns: int) -> None:
        """Start at a steady time [ns]."""
        self._looked_ns, self._judges_from_ns = steady_ns, 0

    def frozen(self, steady_ns: int) -> float:
        """Read the clock; returns for how long the process was just frozen [s], 0 when it was not."""
        gap, self._looked_ns = (steady_ns - self._looked_ns) / 1e9, steady_ns
        if gap <= FROZEN:
            return 0.0
        self._judges_from_ns = steady_ns + round(CATCH_UP * 1e9)
        return gap

    def catching_up(self, steady_ns: int) -> bool:
        """Whether messages from while it was frozen may still have to be received."""
        return steady_ns < self._judges_from_ns
