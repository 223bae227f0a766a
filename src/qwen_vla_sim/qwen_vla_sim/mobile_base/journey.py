# SPDX-License-Identifier: Apache-2.0
"""The path that a base has traveled, evaluated as in vision-language navigation in continuous environments (VLN-CE).

Success rate, oracle success rate, success weighted by path length (Anderson et al. 2018), navigation error and
normalized dynamic time warping (Ilharco et al. 2019). There the success radius is 3 m in houses with paths of about
10 m; here the paths are 1 to 5 m, and it is 0.5 m to the rim of the target. As there, success takes a stop within it,
both paths are dense, and standing adds no point.
"""

from __future__ import annotations

import math

import numpy as np

from qwen_vla_sim.mobile_base.free_space import ROUNDING, length, resampled

SUCCESS_RADIUS = 0.5  # [m]
SPACING = 0.1  # of the points of both paths that are compared [m]
REFERENCE = (
    f"the shortest path from the start to the goal, a point every {SPACING:g} m; success takes a stop within "
    f"{SUCCESS_RADIUS:g} m of the target's rim, or in the hall"
)


class Journey:
    """One episode's path, compared with a reference (n, 2) from the start to the goal [m].

    Attributes:
        traveled: length of the path so far [m].
        ever_reached: whether the base has been within the goal's radius at some time.
    """

    def __init__(self, reference: np.ndarray) -> None:
        self.shortest = length(reference)
        self.traveled, self.ever_reached = 0.0, False
        self._reference = resampled(reference, SPACING)
        self._last = self._marked = np.array(reference[0], float)
        # Last row of the dynamic time warping table: cost of aligning the whole path with each part of the reference.
        self._costs = np.cumsum(self._gaps(self._last))

    def update(self, place: np.ndarray, reached: bool) -> None:
        """Record that the base is at `place` (2,); reached: within the goal's radius."""
        self.traveled += float(np.hypot(*(place - self._last)))
        self._last = np.array(place, float)
        self.ever_reached |= reached
        if np.hypot(*(self._last - self._marked)) > SPACING - ROUNDING:
            self._warp(self._last)
            self._marked = self._last

    def metrics(self, success: bool, error: float) -> dict[str, float]:
        """sr, osr, spl, ne [m], ndtw of an episode that ends now; error: remaining path to the goal [m]."""
        share = self.shortest / max(self.shortest, self.traveled) if self.shortest > 0 else 1.0
        return {
            "sr": float(success),
            "osr": float(success or self.ever_reached),
            "spl": float(success) * share,
            "ne": error,
            "ndtw": self.ndtw(),
        }

    def ndtw(self) -> float:
        """Similarity of the path and the reference, 0..1: exp(−DTW / (points of the reference · radius))."""
        return math.exp(-float(self._costs[-1]) / (len(self._reference) * SUCCESS_RADIUS))

    def _gaps(self, place: np.ndarray) -> np.ndarray:
        return np.linalg.norm(self._reference - place, axis=1)

    def _warp(self, place: np.ndarray) -> None:
        """Add a row to the table."""
        gaps, before = self._gaps(place), self._costs
        costs = np.empty_like(before)
        left = math.inf
        for i, gap in enumerate(gaps):
            left = costs[i] = gap + min(before[i], before[i - 1] if i else math.inf, left)
        self._costs = costs
