# SPDX-License-Identifier: Apache-2.0
"""Appearance of the predicted paths: a line with a dot for each step, brightest at the next one."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

PATH_COLORS = (  # next step, last step; of the first arm or the base, and of the second arm
    (np.array([255, 230, 60]), np.array([255, 60, 160])),
    (np.array([60, 240, 255]), np.array([90, 80, 255])),
)
PATH_COLOR_NAMES = ("yellow", "blue")
Colors = tuple[np.ndarray, np.ndarray]


def draw_polyline(image: np.ndarray, places: Sequence, colors: Colors, bits: int = 0) -> None:
    """Draw through points (column, row [px], scaled by 2**`bits`), None where a step cannot be drawn."""
    for i, place in enumerate(places):
        share = i / max(1, len(places) - 1)
        color = tuple(int(c) for c in (1 - share) * colors[0] + share * colors[1])
        if i and place and places[i - 1]:
            cv2.line(image, places[i - 1], place, color, 2, cv2.LINE_AA, bits)
        if place:
            cv2.circle(image, place, 4 << bits, color, -1, cv2.LINE_AA, bits)
