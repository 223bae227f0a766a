"""Where the base can go in a scene, and the shortest way: straight lines around things and through the door."""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import dijkstra

from qwen_vla_sim.mobile_base.scene import DOOR_WIDTH, WALL, Scene, space

CORNERS = 8  # of the polygon in which a way leads around a thing
SLACK = 1e-3  # [m] by which corners of a way lie outside what they lead around
BEYOND = 5.0  # [m] the wall between room and hall ends beyond all rooms


class FreeSpace:
    """Shortest ways of a disc of `radius` [m] to one goal (2,); a visibility graph.

    The thing with the index `target` is no obstacle: a way to its middle ends there. A place inside of what has to be
    kept away from is taken as it is; the way leads out of it.
    """

    def __init__(self, scene: Scene, goal: np.ndarray, radius: float, target: int | None = None) -> None:
        self.goal = np.asarray(goal, float)
        others = [thing for index, thing in enumerate(scene.things) if index != target]
        self._centres = np.array([[thing.x, thing.y] for thing in others])
        self._radii = np.array([thing.form.radius for thing in others]) + radius
        # The walls themselves, too: who begins too near to one may leave it, but not through it.
        self._walls = np.concatenate([_walls(scene.door, radius), _walls(scene.door, 0.0)])
        self._nodes = np.vstack([self._corners(scene, radius), self.goal])
        first, second = np.triu_indices(len(self._nodes), 1)
        free = self._free(self._nodes[first], self._nodes[second])
        lengths = np.linalg.norm(self._nodes[first] - self._nodes[second], axis=1)
        graph = np.zeros((len(self._nodes),) * 2)
        graph[first[free], second[free]] = lengths[free]
        # From every corner to the goal, and which corner comes next.
        self._left, self._next = dijkstra(graph, directed=False, indices=len(self._nodes) - 1, return_predecessors=True)

    def way(self, start: np.ndarray) -> np.ndarray:
        """(n, 2) corners of the shortest way from `start` to the goal, both included; ValueError if there is none."""
        start = np.asarray(start, float)
        begin = np.broadcast_to(start, self._nodes.shape)
        total = np.where(
            self._free(begin, self._nodes), np.linalg.norm(self._nodes - start, axis=1) + self._left, np.inf
        )
        node = int(np.argmin(total))
        if not np.isfinite(total[node]):
            raise ValueError(f"no way from {start.round(2)} to {self.goal.round(2)}")
        corners = [start]
        while node >= 0:
            corners.append(self._nodes[node])
            node = int(self._next[node])
        return np.array(corners)

    def distance(self, start: np.ndarray) -> float:
        """Length of the shortest way [m]; the straight line where there is none: it begins inside an obstacle."""
        try:
            return length(self.way(start))
        except ValueError:
            return float(np.linalg.norm(self.goal - start))

    def _corners(self, scene: Scene, radius: float) -> np.ndarray:
        """(n, 2) where ways can bend: around things, and at the door."""
        angles = 2 * np.pi * np.arange(CORNERS) / CORNERS
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) / np.cos(np.pi / CORNERS)
        around = (self._centres[:, None] + (self._radii[:, None, None] + SLACK) * ring).reshape(-1, 2)
        kept = np.zeros(len(around), bool)
        for hall in (False, True):
            low, high = space(scene, hall)
            kept |= ((around > low + radius) & (around < high - radius)).all(axis=1)
        apart = np.linalg.norm(around[:, None] - self._centres, axis=2) > self._radii
        x, (low, high) = WALL / 2 + radius + SLACK, (self._walls[0, 3] + SLACK, self._walls[1, 1] - SLACK)
        door = np.array([[-x, low], [-x, high], [x, low], [x, high]])
        return np.vstack([around[kept & apart.all(axis=1)], door])

    def _free(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """(N,) whether the lines between (N, 2) places touch nothing. What a line begins in does not count."""
        way = end - begin
        squared = np.maximum((way**2).sum(axis=1), 1e-12)
        offset = self._centres - begin[:, None]
        share = np.clip((offset * way[:, None]).sum(axis=2) / squared[:, None], 0, 1)
        gaps = np.linalg.norm(offset - share[..., None] * way[:, None], axis=2)
        allowed = np.minimum(self._radii, np.linalg.norm(offset, axis=2) - SLACK)
        free = (gaps >= allowed - 1e-9).all(axis=1)
        for x0, y0, x1, y1 in self._walls:
            free &= ~_crosses(begin, way, np.array([x0, y0]), np.array([x1, y1]))
        return free


def _walls(door: float, radius: float) -> np.ndarray:
    """(2, 4) least x, y and greatest x, y of the wall on both sides of the door, `radius` [m] larger all around."""
    x, gap = WALL / 2 + radius, DOOR_WIDTH / 2 - radius
    return np.array([[-x, -BEYOND, x, door - gap], [-x, door + gap, x, BEYOND]])


def length(way: np.ndarray) -> float:
    """Length of a way (n, 2) [m]."""
    return float(np.linalg.norm(np.diff(way, axis=0), axis=1).sum())


def shortened(way: np.ndarray, end: float) -> np.ndarray:
    """A way (n, 2) without its last `end` [m]; its start alone where it is no longer than that."""
    left = length(way) - end
    if left <= 0:
        return way[:1]
    along = _along(way)
    last = np.array([np.interp(left, along, column) for column in way.T])
    return np.vstack([way[along < left], last])


def resampled(way: np.ndarray, step: float) -> np.ndarray:
    """Points (m, 2) along a way (n, 2), `step` [m] apart, and its end."""
    along = _along(way)
    wanted = np.append(np.arange(0.0, along[-1], step), along[-1])
    return np.stack([np.interp(wanted, along, column) for column in way.T], axis=1)


def _along(way: np.ndarray) -> np.ndarray:
    """(n,) way from the start to each corner [m]."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1))])


def _crosses(begin: np.ndarray, way: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(N,) whether lines pass through the inside of a box; one that begins inside may leave it."""
    inside = ((begin > low) & (begin < high)).all(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (low - begin) / way, (high - begin) / way
    parallel = np.abs(way) < 1e-12
    outside = parallel & ((begin <= low) | (begin >= high))
    enter = np.where(parallel, -np.inf, np.minimum(one, other)).max(axis=1)
    leave = np.where(parallel, np.inf, np.maximum(one, other)).min(axis=1)
    crossed = (np.maximum(enter, 0) < np.minimum(leave, 1) - 1e-9) & ~outside.any(axis=1)
    return crossed & ~inside
