# SPDX-License-Identifier: Apache-2.0
"""Draws the driven and the predicted path of a base from above, a view that none of its cameras has."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from qwen_vla_ros.simulation.demo.geometry import Situation
from qwen_vla_ros.simulation.demo.paths import draw_line

MARGIN = 0.5  # [m] around all contents
LEAST = 2.0  # [m] minimum extent of a map
GRID = 1.0  # [m] between two lines
PAPER, LINES, DRIVEN, ROBOT = (34, 37, 43), (60, 64, 72), (170, 175, 185), (240, 240, 240)
ROBOT_SIZE = 0.15  # [m] from its center to its front


class MapFromAbove:
    """One scale for a whole episode; the x axis of odometry, the initial heading of the base, points up."""

    def __init__(self, situations: Sequence[Situation], width: int, height: int) -> None:
        """Fit everything that will be drawn into `width` x `height` [px]."""
        driven = [situation.base[:2, 3] for situation in situations if situation.base is not None]
        paths = [points[:, :2] for situation in situations for points in situation.paths.values()]
        places = np.concatenate([np.reshape(driven, (-1, 2)), *paths, np.zeros((1, 2))])
        low, high = places.min(axis=0) - MARGIN, places.max(axis=0) + MARGIN
        self._size, self._middle = (width, height), (low + high) / 2
        self._scale = min(height / max(LEAST, high[0] - low[0]), width / max(LEAST, high[1] - low[1]))
        self._paper = self._draw_grid()

    def draw(self, driven: Sequence[Situation]) -> np.ndarray:
        """(height, width, 3) RGB: the driven path, which ends at the base, and the predicted path from there."""
        image = self._paper.copy()
        bases = [situation.base for situation in driven if situation.base is not None]
        track = self._pixels(np.reshape([base[:2, 3] for base in bases], (-1, 2)))
        cv2.polylines(image, [track], False, DRIVEN, 2, cv2.LINE_AA)
        if bases:
            corners = np.array([[1.0, 0.0], [-0.7, 0.6], [-0.7, -0.6]]) * ROBOT_SIZE
            outline = corners @ bases[-1][:2, :2].T + bases[-1][:2, 3]
            cv2.fillPoly(image, [self._pixels(outline)], ROBOT, cv2.LINE_AA)
        for points in driven[-1].paths.values() if driven else ():
            draw_line(image, self._pixels(points[:, :2]))
        return image

    def _pixels(self, places: np.ndarray) -> np.ndarray:
        """(N, 2) positions [m] to (N, 2) integer column, row."""
        seen = (self._middle - places)[:, ::-1] * self._scale + np.array(self._size) / 2
        return np.round(seen).astype(np.int32)

    def _draw_grid(self) -> np.ndarray:
        width, height = self._size
        image = np.full((height, width, 3), PAPER, np.uint8)
        reach = max(self._size) / self._scale
        for axis in range(2):
            first, last = (np.floor((self._middle[axis] + side * reach) / GRID) for side in (-1, 1))
            for place in np.arange(first, last + 1) * GRID:
                ends = np.repeat(self._middle[None], 2, axis=0)
                ends[:, axis] = place
                ends[:, 1 - axis] += [-reach, reach]
                start, end = self._pixels(ends).tolist()
                cv2.line(image, start, end, LINES, 1, cv2.LINE_AA)
        return image
