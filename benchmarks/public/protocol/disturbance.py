# SPDX-License-Identifier: Apache-2.0
"""Disturbs the expert while it is recorded, so that demonstrations show how to recover (as in DAgger and DART)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.public.protocol.pick_and_place import MOVES

AT_THE_START = 0.4  # share of the episodes that begin with a longer one


@dataclass(frozen=True)
class Disturbances:
    """How often, how long and how strong.

    Attributes:
        share: of the steps at which a disturbance begins.
        length, longer: steps that it lasts: from, to before.
        push, twist: standard deviations of an action's offset: [m] along each axis, [rad] about the vertical.
    """

    share: float
    length: tuple[int, int]
    longer: tuple[int, int]
    push: float
    twist: float


class Disturbance:
    """Adds an offset to the executed action for some steps; the demonstrated action stays the expert's."""

    def __init__(self, kind: Disturbances, seed: int) -> None:
        """The same offsets for the same seed."""
        self._kind, self._random = kind, np.random.default_rng([seed, 1])
        self._left, self._offset = 0, np.zeros(7)
        if self._random.random() < AT_THE_START:
            self._begin(kind.longer)

    def applied(self, action: np.ndarray, phase: str) -> np.ndarray:
        """The action (7,) to execute in a phase of the expert; while the fingers move, it is the expert's."""
        if not self._left and self._random.random() < self._kind.share:
            self._begin(self._kind.length)
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
        self._offset[:3] = self._random.normal(scale=self._kind.push, size=3)
        self._offset[5] = self._random.normal(scale=self._kind.twist)
