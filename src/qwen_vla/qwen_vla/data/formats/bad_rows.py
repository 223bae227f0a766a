# SPDX-License-Identifier: Apache-2.0
"""Rows that are unusable for training: reported by file and row, refused or skipped, never silently.

A row is bad if an image is missing or cannot be decoded, a value is not finite or missing, a vector has the wrong
width, or time jumps before it. A bad row excludes every chunk that would contain it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from qwen_vla.data.formats.spec import OnBadRows, report

KEPT = 100  # bad rows listed in provenance; all are counted


@dataclass
class BadRows:
    """The bad rows of one dataset: `reasons` and `places` (file and row) by row index in the whole dataset."""

    reasons: dict[int, list[str]] = field(default_factory=dict)
    places: dict[int, str] = field(default_factory=dict)

    def add(self, row: int, place: str, why: str) -> None:
        known = self.reasons.setdefault(int(row), [])
        if why not in known:
            known.append(why)
        self.places.setdefault(int(row), place)

    def add_not_finite(self, values: np.ndarray, first: int, column: str, place) -> None:
        """Rows of `values` (T, ...) with a NaN or infinity; row 0 has index `first` in the dataset.

        Rows already known to be bad are skipped: their missing values are reported.
        """
        flat = np.asarray(values, dtype=float).reshape(len(values), -1)
        for row in np.flatnonzero(~np.isfinite(flat).all(axis=1)).tolist():
            if first + row in self.reasons:
                continue
            channels = np.flatnonzero(~np.isfinite(flat[row])).tolist()
            self.add(first + row, place(row), f"{column} is not finite in channel {', '.join(map(str, channels))}")

    def add_gaps(self, times: np.ndarray, rate_hz: float, first: int, place) -> None:
        """Rows before which time [s] does not advance by one period ± half a period."""
        steps = np.diff(np.asarray(times, dtype=float))
        for row in (np.flatnonzero(np.abs(steps * rate_hz - 1) > 0.5) + 1).tolist():
            fault = "missing frame" if steps[row - 1] * rate_hz > 1 else "too soon, or another rate than the dataset's"
            why = f"{fault}: {steps[row - 1]:.3f} s after the row before, {1 / rate_hz:.3f} s expected"
            self.add(first + row, place(row), why)

    def __len__(self) -> int:
        return len(self.reasons)

    def mask(self, count: int) -> np.ndarray:
        """(count,) True where the row is good."""
        good = np.ones(count, bool)
        good[[row for row in self.reasons if row < count]] = False
        return good

    def lines(self) -> list[str]:
        """One line per bad row: its place and all its faults."""
        return [f"{self.places[row]}: {'; '.join(why)}" for row, why in sorted(self.reasons.items())]

    def settle(self, on_bad_rows: OnBadRows) -> None:
        """Report the bad rows; DataError with them if they are to be refused."""
        report(self.lines(), on_bad_rows)

    def summary(self) -> dict:
        """For provenance: their number, kinds, and the first of them as text."""
        if not self.reasons:
            return {"bad_rows": 0}
        kinds = Counter(_kind(why) for reasons in self.reasons.values() for why in reasons)
        return {"bad_rows": len(self), "bad_row_kinds": dict(kinds), "bad_rows_listed": self.lines()[:KEPT]}


def usable_rows(good: np.ndarray, steps_needed: np.ndarray) -> np.ndarray:
    """Rows whose chunk contains only good rows.

    good: (N,). steps_needed: (N,) number of rows in a row's chunk, including itself (up to its episode's end).
    """
    bad_before = np.concatenate([[0], np.cumsum(~good)])
    rows = np.arange(len(good))
    return bad_before[rows + steps_needed] == bad_before[rows]


def _kind(why: str) -> str:
    """The kind of a reason: its text up to the first colon or channel."""
    return why.split(":")[0].split(" in channel")[0]
