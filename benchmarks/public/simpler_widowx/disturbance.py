# SPDX-License-Identifier: Apache-2.0
"""Disturbs the expert while it is recorded, so that demonstrations show how to recover (as in DAgger and DART)."""

from __future__ import annotations

import numpy as np

from benchmarks.public.simpler_widowx.expert import MOVES

SHARE = 0.10  # of the steps at which a disturbance begins
LENGTH = (1, 4)  # steps: from, to before
AT_THE_START = 0.4  # share of the episodes that begin with a longer one
LONGER = (2, 6)
PUSH, TWIST = 0.018, 0.12  # standard deviations: [m] along each axis, [rad] about the vertical


class Disturbance:
    """Adds an offset to the executed action for some steps; the demonstrated action stays the expert's."""

    def __init__(self, seed: int) -> None:
        """The same offsets for the same seed."""
        self._random = np.random.default_rng([seed, 1])
        self._left, self._offset = 0, np.zeros(7)
        if self._random.random() < AT_THE_START:
            self._begin(LONGER)

    def applied(self, action: np.ndarray, phase: str) -> np.ndarray:
        """The action (7,) to execute in a phase of the expert; while the fingers move, it is the expert's."""
        if not self._left and self._random.random() < SHARE:
            self._begin(LENGTH)
        if not self._left or phase not in MOVES:
            return action
        self._left -= 1
        offset = self._offset.copy()
        if phase in ("down", "lower"):
            offset[:3] *= 0.5
            offset[2] = abs(offset[2])  # not into the table
        if phase not in ("above", "down"):
            offset[5] = 0.0  # only there is the orientation corrected
        return action + offset

    def _begin(self, steps: tuple[int, int]) -> None:
        self._left, self._offset = int(self._random.integers(*steps)), np.zeros(7)
        self._offset[:3] = self._random.normal(scale=PUSH, size=3)
        self._offset[5] = self._random.normal(scale=TWIST)
