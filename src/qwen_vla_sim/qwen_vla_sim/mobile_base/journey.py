"""How a base has travelled, judged as vision-language navigation in continuous environments (VLN-CE) is.

Success rate, oracle success rate, success weighted by path length (Anderson et al. 2018), navigation error and
normalised dynamic time warping (Ilharco et al. 2019). There the radius of success is 3 m in houses with ways of some
10 m; here the ways are 1 to 5 m, and it is 0.5 m to the rim of what was named.
"""

from __future__ import annotations

import math

import numpy as np

from qwen_vla_sim.mobile_base.free_space import length, resampled

SUCCESS_RADIUS = 0.5  # [m]
SPACING = 0.1  # of the points of both ways that are compared [m]
ROUNDING = 1e-9  # [m]


class Journey:
    """One episode's way, against a reference (n, 2) from the start to the goal [m].

    Attributes:
        travelled: length of the way so far [m].
        been_there: it has been within the goal's radius at some moment.
    """

    def __init__(self, reference: np.ndarray) -> None:
        self.shortest = length(reference)
        self.travelled, self.been_there = 0.0, False
        self._reference = resampled(reference, SPACING)
        self._last = self._marked = np.array(reference[0], float)
        # Last row of the table of dynamic time warping: cost of pairing all of the way with so much of the reference.
        self._costs = np.cumsum(self._gaps(self._last))

    def go_on(self, place: np.ndarray, reached: bool) -> None:
        """The base is at `place` (2,) now; reached: within the goal's radius."""
        self.travelled += float(np.hypot(*(place - self._last)))
        self._last = np.array(place, float)
        self.been_there |= reached
        if np.hypot(*(self._last - self._marked)) > SPACING - ROUNDING:
            self._warp(self._last)
            self._marked = self._last

    def metrics(self, success: bool, error: float) -> dict[str, float]:
        """sr, osr, spl, ne [m], ndtw of an episode that ends now; error: what is left of the way to the goal [m]."""
        share = self.shortest / max(self.shortest, self.travelled) if self.shortest > 0 else 1.0
        return {
            "sr": float(success),
            "osr": float(success or self.been_there),
            "spl": float(success) * share,
            "ne": error,
            "ndtw": self.ndtw(),
        }

    def ndtw(self) -> float:
        """Likeness of the way and the reference, 0..1: exp(−DTW / (points of the reference · radius))."""
        return math.exp(-float(self._costs[-1]) / (len(self._reference) * SUCCESS_RADIUS))

    def _gaps(self, place: np.ndarray) -> np.ndarray:
        return np.linalg.norm(self._reference - place, axis=1)

    def _warp(self, place: np.ndarray) -> None:
        """One more row of the table."""
        gaps, before = self._gaps(place), self._costs
        costs = np.empty_like(before)
        left = math.inf
        for i, gap in enumerate(gaps):
            left = costs[i] = gap + min(before[i], before[i - 1] if i else math.inf, left)
        self._costs = costs
