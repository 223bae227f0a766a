"""What an evaluation reports: rows per episode and the success rate with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class EpisodeRow:
    """One episode. seconds: simulated time; distance: tip to the judged cube at the end [m]; ended: how."""

    seed: int
    instruction: str
    target: str
    success: bool
    chunks: int
    refused: int
    seconds: float
    distance: float
    ended: str
    latency_ms_p50: float


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % score interval of a success rate (Wilson 1927); (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return max(0.0, min(rate, low)), min(1.0, max(rate, high))  # at 0 and 1 rounding would leave the rate outside


def summarize(suite: str, seed: int, rows: list[EpisodeRow], **conditions) -> dict:
    """The evaluation as plain data, ready for JSON."""
    successes = sum(row.success for row in rows)
    return {
        "suite": suite,
        "seed": seed,
        "episodes": len(rows),
        "successes": successes,
        "success_rate": successes / len(rows) if rows else 0.0,
        "wilson_95": list(wilson_interval(successes, len(rows))),
        "latency_ms_p50": float(np.median([row.latency_ms_p50 for row in rows])) if rows else 0.0,
        **conditions,
        "rows": [asdict(row) for row in rows],
    }
