# SPDX-License-Identifier: Apache-2.0
"""Free space of a scene, and shortest paths in it: straight lines around things and through the door."""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import dijkstra

from qwen_vla_sim.mobile_base.scene import DOOR_WIDTH, WALL, Scene, space

CORNERS = 8  # of the polygon along which a path leads around a thing
SLACK = 1e-3  # [m] by which corners of a path lie outside the obstacle
ROUNDING = 1e-9  # [m]
BEYOND = 5.0  # [m] half length of the wall between room and hall, beyond all rooms


class FreeSpace:
    """Shortest paths of a disc of `radius` [m] to one goal (2,); a visibility graph.

    The thing with the index `target` is not an obstacle: a path to its center ends there. From a position inside an
    inflated obstacle, the path leads out of it.
    """

    def __init__(self, scene: Scene, goal: np.ndarray, radius: float, target: int | None = None) -> None:
        self.goal = np.asarray(goal, float)
        others = [thing for index, thing in enumerate(scene.things) if index != target]
        self._centers = np.array([[thing.x, thing.y] for thing in others])
        self._radii = np.array([thing.form.radius for thing in others]) + radius
        # The uninflated walls, too: a path that starts too close to one may lead away from it, but not through it.
        self._walls = np.concatenate([_walls(scene.door, radius), _walls(scene.door, 0.0)])
        self._nodes = np.vstack([self._corners(scene, radius), self.goal])
        first, second = np.triu_indices(len(self._nodes), 1)
        free = self._free(self._nodes[first], self._nodes[second])
        lengths = np.linalg.norm(self._nodes[first] - self._nodes[second], axis=1)
        graph = np.zeros((len(self._nodes),) * 2)
        graph[first[free], second[free]] = lengths[free]
        # From every corner: the distance to the goal, and the next corner.
        self._distances, self._next = dijkstra(
            graph, directed=False, indices=len(self._nodes) - 1, return_predecessors=True
        )

    def path(self, start: np.ndarray) -> np.ndarray:
        """(n, 2) corners of the shortest path from `start` to the goal, both included; ValueError if there is none."""
        start = np.asarray(start, float)
        begin = np.broadcast_to(start, self._nodes.shape)
        total = np.where(
            self._free(begin, self._nodes), np.linalg.norm(self._nodes - start, axis=1) + self._distances, np.inf
        )
        node = int(np.argmin(total))
        if not np.isfinite(total[node]):
            raise ValueError(f"no path from {start.round(2)} to {self.goal.round(2)}")
        corners = [start]
        while node >= 0:
            corners.append(self._nodes[node])
            node = int(self._next[node])
        return np.array(corners)

    def distance(self, start: np.ndarray) -> float:
        """Length of the shortest path [m]; of the straight line if there is none, as from inside an obstacle."""
        try:
            return length(self.path(start))
        except ValueError:
            return float(np.linalg.norm(self.goal - start))

    def _corners(self, scene: Scene, radius: float) -> np.ndarray:
        """(n, 2) corners that paths may have: around things, and at the door."""
        angles = 2 * np.pi * np.arange(CORNERS) / CORNERS
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) / np.cos(np.pi / CORNERS)
        around = (self._centers[:, None] + (self._radii[:, None, None] + SLACK) * ring).reshape(-1, 2)
        kept = np.zeros(len(around), bool)
        for hall in (False, True):
            low, high = space(scene, hall)
            kept |= ((around > low + radius) & (around < high - radius)).all(axis=1)
        apart = np.linalg.norm(around[:, None] - self._centers, axis=2) > self._radii
        x, (low, high) = WALL / 2 + radius + SLACK, (self._walls[0, 3] + SLACK, self._walls[1, 1] - SLACK)
        door = np.array([[-x, low], [-x, high], [x, low], [x, high]])
        return np.vstack([around[kept & apart.all(axis=1)], door])

    def _free(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """(N,) whether the lines between (N, 2) points are free. An obstacle in which a line starts is ignored."""
        line = end - begin
        squared = np.maximum((line**2).sum(axis=1), 1e-12)
        offset = self._centers - begin[:, None]
        share = np.clip((offset * line[:, None]).sum(axis=2) / squared[:, None], 0, 1)
        gaps = np.linalg.norm(offset - share[..., None] * line[:, None], axis=2)
        allowed = np.minimum(self._radii, np.linalg.norm(offset, axis=2) - SLACK)
        free = (gaps >= allowed - 1e-9).all(axis=1)
        for x0, y0, x1, y1 in self._walls:
            free &= ~_crosses(begin, line, np.array([x0, y0]), np.array([x1, y1]))
        return free


def _walls(door: float, radius: float) -> np.ndarray:
    """(2, 4) lowest x, y and highest x, y of the wall on each side of the door, inflated by `radius` [m]."""
    x, gap = WALL / 2 + radius, DOOR_WIDTH / 2 - radius
    return np.array([[-x, -BEYOND, x, door - gap], [-x, door + gap, x, BEYOND]])


def length(path: np.ndarray) -> float:
    """Length of a path (n, 2) [m]."""
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())


def shortened(path: np.ndarray, end: float) -> np.ndarray:
    """A path (n, 2) without its last `end` [m]; only its start if it is no longer than that."""
    remaining = length(path) - end
    if remaining <= 0:
        return path[:1]
    along = _along(path)
    last = np.array([np.interp(remaining, along, column) for column in path.T])
    return np.vstack([path[along < remaining], last])


def resampled(path: np.ndarray, step: float) -> np.ndarray:
    """Points (m, 2) along a path (n, 2), `step` [m] apart, and its end; no two are equal, up to rounding."""
    along = _along(path)
    wanted = np.append(np.arange(0.0, along[-1] - ROUNDING, step), along[-1])
    return np.stack([np.interp(wanted, along, column) for column in path.T], axis=1)


def _along(path: np.ndarray) -> np.ndarray:
    """(n,) arc length from the start to each corner [m]."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])


def _crosses(begin: np.ndarray, line: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(N,) whether lines pass through the inside of a box; one that starts inside may leave it."""
    inside = ((begin > low) & (begin < high)).all(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (low - begin) / line, (high - begin) / line
    parallel = np.abs(line) < 1e-12
    outside = parallel & ((begin <= low) | (begin >= high))
    enter = np.where(parallel, -np.inf, np.minimum(one, other)).max(axis=1)
    leave = np.where(parallel, np.inf, np.maximum(one, other)).min(axis=1)
    crossed = (np.maximum(enter, 0) < np.minimum(leave, 1) - 1e-9) & ~outside.any(axis=1)
    return crossed & ~inside
