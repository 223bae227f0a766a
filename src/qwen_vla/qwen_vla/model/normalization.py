# SPDX-License-Identifier: Apache-2.0
"""Quantile normalization of actions (arXiv 2605.30280 §2.4, eq. 5), per dataset and dimension.

a' = 2·(a − q01)/(q99 − q01) − 1, clipped to [−1, 1]. A dimension that never moves (q99 = q01, [open] in the paper) has
its range widened by ±1, so it maps to 0 and back to its constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

LOW, HIGH = 0.01, 0.99
LARGEST = 1e6  # of a quantile: no channel is that large in rad, m, rad/s or m/s

ROUNDING = 1e-4  # share of a range: labels are stored as float32


@dataclass(frozen=True)
class Quantiles:
    """1 % and 99 % quantiles [C] of one dataset's action channels, in the channels' physical units."""

    q01: np.ndarray
    q99: np.ndarray
    channel_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        q01, q99 = (np.array(q, dtype=np.float64) for q in (self.q01, self.q99))
        if q01.ndim != 1 or q01.shape != q99.shape:
            raise ValueError(f"q01 and q99 must be vectors of the same length, got shapes {q01.shape} and {q99.shape}")
        if not (np.isfinite(q01).all() and np.isfinite(q99).all()):
            raise ValueError(f"quantiles must be finite, got q01={q01.tolist()}, q99={q99.tolist()}")
        if len(q01) and max(np.abs(q01).max(), np.abs(q99).max()) > LARGEST:
            raise ValueError(f"quantiles must be within ±{LARGEST:g}, got q01={q01.tolist()}, q99={q99.tolist()}")
        if (q99 < q01).any():
            raise ValueError(f"q99 is below q01 in channels {np.flatnonzero(q99 < q01).tolist()}")
        names = tuple(self.channel_names)
        if names and len(names) != len(q01):
            raise ValueError(f"{len(names)} channel names for {len(q01)} channels: {names}")
        object.__setattr__(self, "q01", q01)
        object.__setattr__(self, "q99", q99)
        object.__setattr__(self, "channel_names", names)

    @classmethod
    def from_data(cls, actions: np.ndarray, channel_names: Sequence[str] = ()) -> Quantiles:
        """Quantiles of ``actions`` [..., C] over all leading axes."""
        rows = np.asarray(actions, dtype=np.float64)
        rows = rows.reshape(-1, rows.shape[-1])
        if len(rows) == 0 or not np.isfinite(rows).all():
            raise ValueError(f"quantiles need at least one row and finite values, got {len(rows)} rows")
        return cls(np.quantile(rows, LOW, axis=0), np.quantile(rows, HIGH, axis=0), tuple(channel_names))

    def to_json(self) -> dict:
        return {"q01": self.q01.tolist(), "q99": self.q99.tolist(), "channel_names": list(map(str, self.channel_names))}

    def normalize(self, actions: np.ndarray) -> np.ndarray:
        """Physical units [..., C] to float32 in [−1, 1]."""
        low, span = self._range()
        return np.clip(2.0 * (self._checked(actions) - low) / span - 1.0, -1.0, 1.0).astype(np.float32)

    def unnormalize(self, actions: np.ndarray) -> np.ndarray:
        """Model units [..., C], clipped to [−1, 1], to float32 in physical units: never outside the 1 %–99 % range."""
        low, span = self._range()
        return (0.5 * (np.clip(self._checked(actions), -1.0, 1.0) + 1.0) * span + low).astype(np.float32)

    def is_outside(self, actions: np.ndarray) -> np.ndarray:
        """Whether physical values [..., C] are outside the range, and would be clipped."""
        low, span = self._range()
        return np.abs(2.0 * (self._checked(actions) - low) / span - 1.0) > 1.0 + ROUNDING

    def united(self, other: Quantiles) -> Quantiles:
        """The smallest range that contains both; ValueError if their channels differ."""
        if len(self.q01) != len(other.q01) or self.channel_names != other.channel_names:
            raise ValueError(f"the channels {list(self.channel_names)} and {list(other.channel_names)} differ")
        return Quantiles(np.minimum(self.q01, other.q01), np.maximum(self.q99, other.q99), self.channel_names)

    def _range(self) -> tuple[np.ndarray, np.ndarray]:
        degenerate = self.q99 - self.q01 <= 1e-8 * np.maximum(1.0, np.abs(self.q01))
        low = np.where(degenerate, self.q01 - 1.0, self.q01)
        high = np.where(degenerate, self.q99 + 1.0, self.q99)
        return low, high - low

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        values = np.asarray(actions, dtype=np.float64)
        if values.shape[-1:] != self.q01.shape:
            raise ValueError(f"actions have {values.shape[-1:]} channels, the statistics {len(self.q01)}")
        return values


class QuantilesRecord(BaseModel):
    """An entry of normalization.json, as written by `Quantiles.to_json`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    q01: list[float]
    q99: list[float]
    channel_names: tuple[str, ...] = ()

    @property
    def quantiles(self) -> Quantiles:
        """The quantiles; ValueError when they contradict each other."""
        return Quantiles(np.array(self.q01), np.array(self.q99), self.channel_names)
