# SPDX-License-Identifier: Apache-2.0
"""The rows of a demonstration of pick and place, as a benchmark's data set has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.public.protocol.poses import pose_vector


class Track:
    """Collects rows; every few of them have new images, since rendering costs more than all the rest."""

    def __init__(self, look: Callable[[], Mapping[str, np.ndarray]] | None, every: int) -> None:
        """look: returns images and their annotations, as columns; None: the demonstration has none."""
        self._look, self._every = look, every
        self._rows: list[dict[str, np.ndarray]] = []
        self._last: dict[str, np.ndarray] = {}

    def add(self, joints: np.ndarray, hand: np.ndarray, commanded: np.ndarray, opening: float) -> None:
        """A row: joints, measured and commanded pose (4, 4) of the tip, and opening of the gripper, 0 … 1."""
        row = {
            "observation.state": joints,
            "observation.eef_pose": pose_vector(hand),
            "action": np.append(pose_vector(commanded), opening),
        }
        self._rows.append(row | (self._seen() if self._look else {}))

    def columns(self) -> dict[str, np.ndarray]:
        """The columns (N, …) of all rows."""
        return {name: np.stack([row[name] for row in self._rows]) for name in self._rows[0]}

    def _seen(self) -> dict[str, np.ndarray]:
        fresh = len(self._rows) % self._every == 0
        if fresh:
            self._last = dict(self._look())
        return self._last | {"annotation.fresh": np.array([int(fresh)])}


def annotations(points: np.ndarray, objects: tuple[int, int], task: int) -> dict[str, np.ndarray]:
    """The columns for an image.

    Args:
        points: (cameras, 3, 3) of the object, its destination and the tip: u, v, depth; see `Annotations`.
        objects: what the two are, among the benchmark's phrases.
        task: number of the task.
    """
    return {
        "annotation.points": points.astype(np.float32).ravel(),
        "annotation.objects": np.array(objects),
        "annotation.object": np.array([0]),
        "annotation.goal": np.array([1]),
        "annotation.task": np.array([task]),
    }
