"""Whether this process itself was frozen (Ctrl-Z, a suspended machine): then nobody watched, and nothing was heard."""

from __future__ import annotations

FROZEN = 0.3  # [s] steady, between two looks
CATCH_UP = 0.06  # [s] steady, to hear what happened meanwhile


class FreezeWatch:
    """Compares the steady clock with when it was last looked at."""

    def __init__(self, steady_ns: int) -> None:
        """Begin at a steady time [ns]."""
        self._looked_ns, self._judges_from_ns = steady_ns, 0

    def frozen(self, steady_ns: int) -> float:
        """Look at the clock; returns how long the process has just been frozen [s], 0 when it was not."""
        gap, self._looked_ns = (steady_ns - self._looked_ns) / 1e9, steady_ns
        if gap <= FROZEN:
            return 0.0
        self._judges_from_ns = steady_ns + round(CATCH_UP * 1e9)
        return gap

    def catching_up(self, steady_ns: int) -> bool:
        """Whether messages of the time when it was frozen may still have to be heard."""
        return steady_ns < self._judges_from_ns
