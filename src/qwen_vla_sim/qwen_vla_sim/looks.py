# SPDX-License-Identifier: Apache-2.0
"""Training scenes that look more varied than the usual ones: any surroundings, more colors, more shades.

A model that has seen a few looks fails in others. What the shifts `colour` and `background` show stays unseen: every
color drawn here is apart from theirs, every light outside their ranges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RGB = tuple[float, float, float]
VARIED_SEEDS = range(4_000_000, 5_000_000)  # all others keep the looks with which they were published
APART = 0.12  # least distance of two colors in RGB, each channel in 0..1
PALE_OR_DARK = 0.35  # largest share of white or black in a shade
JITTER = 0.05  # of shades, per channel
USUAL = 0.25  # share of lights from the usual range


def varies(seed: int, shift: str | None) -> bool:
    """Whether the scene of a seed has a varied look; a shifted one never has."""
    return shift is None and seed in VARIED_SEEDS


def any_color(rng: np.random.Generator, avoided: Sequence[RGB], low: float = 0.10, high: float = 0.95) -> RGB:
    """Draw a color with channels in [low, high], apart from the avoided ones."""
    while True:
        drawn = rgb_of(rng.uniform(low, high, 3))
        if is_apart(drawn, avoided):
            return drawn


def any_shade(rng: np.random.Generator, rgb: RGB, avoided: Sequence[RGB]) -> RGB:
    """Draw a paler or darker shade of a color, apart from the avoided ones."""
    while True:
        share, end = rng.uniform(0, PALE_OR_DARK), float(rng.integers(2))
        drawn = rgb_of((1 - share) * np.array(rgb) + share * end + rng.uniform(-JITTER, JITTER, 3))
        if is_apart(drawn, avoided):
            return drawn


def any_light(
    rng: np.random.Generator,
    usual: tuple[float, float],
    avoided: Sequence[tuple[float, float]],
    low: float = 0.25,
    high: float = 1.15,
) -> float:
    """Draw the brightness of a lamp in [low, high], outside the avoided ranges, often from the usual one."""
    while True:
        drawn = float(rng.uniform(*(usual if rng.random() < USUAL else (low, high))))
        if all(not below <= drawn <= above for below, above in avoided):
            return drawn


def is_apart(color: RGB, avoided: Sequence[RGB]) -> bool:
    """Whether a color is at least APART from all of these."""
    return all(np.linalg.norm(np.subtract(color, other)) >= APART for other in avoided)


def rgb_of(values: np.ndarray) -> RGB:
    """A tuple of the three channels, each clipped to 0..1."""
    red, green, blue = (float(v) for v in np.clip(values, 0, 1))
    return red, green, blue
