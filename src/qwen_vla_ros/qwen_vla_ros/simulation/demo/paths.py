"""How the predicted ways look: a line with a dot for each step, brightest where the robot goes next."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

WAY_COLOURS = (  # next step, last step; of the first arm or the base, and of the second arm
    (np.array([255, 230, 60]), np.array([255, 60, 160])),
    (np.array([60, 240, 255]), np.array([90, 80, 255])),
)
WAY_WORDS = ("yellow", "blue")
Colours = tuple[np.ndarray, np.ndarray]


def draw_way(image: np.ndarray, places: Sequence, colours: Colours, bits: int = 0) -> None:
    """Draw through places (column, row [px], shifted by `bits`), None where a step cannot be drawn."""
    for i, place in enumerate(places):
        share = i / max(1, len(places) - 1)
        colour = tuple(int(c) for c in (1 - share) * colours[0] + share * colours[1])
        if i and place and places[i - 1]:
            cv2.line(image, places[i - 1], place, colour, 2, cv2.LINE_AA, bits)
        if place:
            cv2.circle(image, place, 4 << bits, colour, -1, cv2.LINE_AA, bits)
