# SPDX-License-Identifier: Apache-2.0
"""Appearance of the paths of chunks: the predicted one is a blue line, a refused one is dashed, orange and crossed out.

The colors are those of Okabe and Ito, which color-blind people can tell apart; a white edge makes a line stand out from
things of any color.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

Color = tuple[int, int, int]
EDGE: Color = (255, 255, 255)
DASH = 12.0  # [px] length of a dash, and of the gap after it
SUBPIXEL_BITS = 4  # of cv2's fixed-point coordinates


@dataclass(frozen=True)
class PathStyle:
    """How a path is drawn, and what a legend calls it."""

    name: str
    color: Color
    dashed: bool = False


PREDICTED = PathStyle("predicted path", (0, 114, 178))
REFUSED = PathStyle("refused path", (213, 94, 0), dashed=True)


def draw_line(image: np.ndarray, places: np.ndarray, style: PathStyle = PREDICTED, width: int = 4) -> None:
    """Draw (N, 2) column, row [px] as a line `width` [px] thick, with a mark at its end; NaN leaves a gap."""
    lines = list(_visible(np.asarray(places, float), 10.0 * max(image.shape)))
    pieces = [dash for line in lines for dash in _dashes(line)] if style.dashed else lines
    for color, thickness in ((EDGE, width + 4), (style.color, width)):
        for piece in pieces:
            cv2.polylines(image, [_fixed(piece)], False, color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        if lines:
            _draw_end(image, lines[-1][-1], style, color, thickness, 2 * width)


def _visible(places: np.ndarray, farthest: float) -> Iterator[np.ndarray]:
    """The parts of a path whose points are known and not too far out of an image for cv2."""
    known = np.asarray((np.abs(places) < farthest).all(axis=1))
    for part in np.split(np.arange(len(places)), np.flatnonzero(np.diff(known)) + 1):
        if len(part) and known[part[0]]:
            yield places[part]


def _dashes(line: np.ndarray) -> Iterator[np.ndarray]:
    """The dashes of a line, each as its points."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    for start in np.arange(0.0, along[-1], 2 * DASH):
        ends = np.array([start, min(start + DASH, along[-1])])
        inside = (along > ends[0]) & (along < ends[1])
        first, last = (np.array([np.interp(end, along, line[:, axis]) for axis in range(2)]) for end in ends)
        yield np.vstack([first, line[inside], last])


def _draw_end(
    image: np.ndarray, place: np.ndarray, style: PathStyle, color: Color, thickness: int, radius: int
) -> None:
    """A dot, or a cross at the end of a dashed line."""
    if not style.dashed:
        edge = thickness // 2
        center, size = _fixed(place[None])[0, 0].tolist(), round((radius / 2 + edge) * 2**SUBPIXEL_BITS)
        cv2.circle(image, center, size, color, -1, cv2.LINE_AA, SUBPIXEL_BITS)
        return
    for slope in (1, -1):
        ends = place + np.array([[-radius, -slope * radius], [radius, slope * radius]])
        cv2.polylines(image, [_fixed(ends)], False, color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _fixed(places: np.ndarray) -> np.ndarray:
    """(N, 1, 2) in cv2's fixed-point coordinates."""
    return np.round(places * 2**SUBPIXEL_BITS).astype(np.int32)[:, None]
