# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals of success rates: score intervals of one rate and of the difference of two."""

from __future__ import annotations

import math

Z_95 = 1.959964  # 97.5 % quantile of the normal distribution


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """95 % score interval of a success rate (Wilson 1927); (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    rate = successes / trials
    center = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low, high = (center - spread) / scale, (center + spread) / scale
    return max(0.0, min(rate, low)), min(1.0, max(rate, high))  # at 0 and 1, rounding would exclude the rate


def newcombe_interval(first: tuple[int, int], second: tuple[int, int], z: float = Z_95) -> tuple[float, float]:
    """95 % interval of the rate of `second` minus that of `first`, each (successes, trials); (-1, 1) without trials.

    Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10: the squared
    distances of both rates from the ends of their Wilson intervals are added. The samples are treated as independent,
    which makes the interval conservative for the same scenes under two conditions.
    """
    if not (first[1] and second[1]):
        return -1.0, 1.0
    rates = [successes / trials for successes, trials in (first, second)]
    (low_1, high_1), (low_2, high_2) = (wilson_interval(*sample, z) for sample in (first, second))
    difference = rates[1] - rates[0]
    low = difference - math.hypot(rates[1] - low_2, high_1 - rates[0])
    high = difference + math.hypot(high_2 - rates[1], rates[0] - low_1)
    return max(-1.0, low), min(1.0, high)
