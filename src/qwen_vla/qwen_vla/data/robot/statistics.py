# SPDX-License-Identifier: Apache-2.0
"""q01 and q99 of a dataset (paper §2.4, eq. 5): exact, in constant memory, cached until the data changes.

The values are streamed twice. As unsigned integers in the order of the numbers, float32 values have 2¹⁶ upper halves:
the first pass counts these and finds the halves with the requested ranks, the second counts the lower halves in them.
This gives the exact order statistics; between two of them the quantile is linear, as in NumPy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from qwen_vla.data.formats.cache import cache_folder
from qwen_vla.json_files import read_json
from qwen_vla.model.normalization import HIGH, LOW, Quantiles, QuantilesRecord
from qwen_vla.output_files import write_json

BINS = 1 << 16
Blocks = Callable[[], Iterable[np.ndarray]]


class CachedQuantiles(BaseModel):
    """A file of the cache: quantiles, and everything they depend on."""

    made_from: dict[str, Any]
    quantiles: QuantilesRecord


def cached_quantiles(root: Path, made_from: dict, blocks: Blocks, names: Sequence[str]) -> Quantiles:
    """The dataset's q01 and q99, from its cache if computed before from the same data.

    made_from: everything that the values depend on, including the hash of the data. blocks: yields the values, (n, C)
    arrays, again on each call.
    """
    wanted = json.loads(json.dumps({**made_from, "names": list(names)}))
    label = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:12]
    path = cache_folder(root) / f"quantiles-{label}.json"
    if path.exists():
        known = read_json(path, CachedQuantiles, "delete it to compute it again")
        if known.made_from == wanted:
            return known.quantiles.quantiles
    low, high = exact_quantiles(blocks, (LOW, HIGH))
    found = Quantiles(low, high, tuple(names))
    write_json(path, {"made_from": wanted, "quantiles": found.to_json()})
    return found


def exact_quantiles(blocks: Blocks, shares: Sequence[float]) -> np.ndarray:
    """(len(shares), C) quantiles of float32 values given in blocks (n, C); ValueError without values or with a NaN."""
    upper = _count_upper(blocks)
    count = int(upper[0].sum())
    places = np.asarray(shares) * (count - 1)
    ranks = np.stack([np.floor(places), np.ceil(places)], axis=1).astype(np.int64).reshape(-1)
    ends = np.cumsum(upper, axis=1)
    halves = np.stack([np.searchsorted(channel, ranks, side="right") for channel in ends])  # (C, ranks)
    before = np.take_along_axis(ends - upper, halves, axis=1)
    values = _find(blocks, halves, ranks - before).reshape(len(upper), -1, 2)
    weight = places - np.floor(places)
    return (values[..., 0] + (values[..., 1] - values[..., 0]) * weight).T


def _count_upper(blocks: Blocks) -> np.ndarray:
    """(C, BINS) number of values with each upper half."""
    counts = None
    for block in blocks():
        if not np.isfinite(block).all():
            raise ValueError("quantiles need finite values")
        counts = np.zeros((block.shape[1], BINS), np.int64) if counts is None else counts
        for channel, keys in enumerate(_ordered(block).T):
            counts[channel] += np.bincount(keys >> 16, minlength=BINS)
    if counts is None or not counts[0].any():
        raise ValueError("quantiles need at least one row")
    return counts


def _find(blocks: Blocks, halves: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """(C, R) the values with the given ranks among those with the given upper halves (C, R)."""
    counts = {(c, half): np.zeros(BINS, np.int64) for c, row in enumerate(halves) for half in row}
    for block in blocks():
        keys = _ordered(block)
        for (channel, half), found in counts.items():
            column = keys[:, channel]
            found += np.bincount(column[column >> 16 == half] & (BINS - 1), minlength=BINS)
    result = np.zeros(halves.shape)
    for (channel, place), half in np.ndenumerate(halves):
        lower = np.searchsorted(np.cumsum(counts[channel, half]), ranks[channel, place], side="right")
        result[channel, place] = _number(np.uint32((int(half) << 16) | int(lower)))
    return result


def _ordered(values: np.ndarray) -> np.ndarray:
    """float32 numbers as uint32 with the same order."""
    bits = (np.asarray(values, np.float32) + np.float32(0)).view(np.uint32)  # + 0: a single zero
    return np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))


def _number(key: np.uint32) -> float:
    """Undo `_ordered`."""
    bits = key & np.uint32((1 << 31) - 1) if key >> np.uint32(31) else ~key
    return float(np.array(bits, np.uint32).view(np.float32))
