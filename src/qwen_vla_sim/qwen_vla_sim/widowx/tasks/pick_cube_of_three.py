# SPDX-License-Identifier: Apache-2.0
"""`pick_cube` of the suite `widowx_pick`: the same task with its own scenes, small enough for ablations."""

from __future__ import annotations

import numpy as np

from qwen_vla_sim.task import Shift
from qwen_vla_sim.widowx.scene import SLOTS, Scene, Surroundings, Thing
from qwen_vla_sim.widowx.tasks.pick_cube import PickCube
from qwen_vla_sim.widowx.things import COLORS

REGION_X = (0.22, 0.38)  # [m] in base_link; reachable with the tool pointing straight down
REGION_Y = (-0.15, 0.15)
CLEARANCE = 0.085  # smallest distance of two cube centers [m]: an open finger (47 mm out) clears a rotated neighbor
MAX_YAW = 0.30  # cubes are within this angle of the gripper's closing axis [rad]


class PickCubeOfThree(PickCube):
    """Cubes of one size in six pure colors, on a plain table; without shifts."""

    def scene(self, seed: int, shift: Shift | None = None) -> Scene:
        """The scene of a seed; the same on every machine (NumPy's PCG64). ValueError for any shift."""
        if shift:
            raise ValueError(f"scenes of {type(self).__name__} have no shift {shift!r}; those of the suite widowx have")
        rng = np.random.default_rng(seed)
        colors = rng.permutation(list(COLORS))[:SLOTS]
        places = _separated_points(rng, SLOTS)
        things = tuple(
            Thing("cube", i, COLORS[str(c)], float(x), float(y), float(rng.uniform(-MAX_YAW, MAX_YAW)), str(c))
            for i, (c, (x, y)) in enumerate(zip(colors, places, strict=True))
        )
        target = int(rng.integers(len(things)))
        template = self.instructions[int(rng.integers(len(self.instructions)))]
        return Scene(seed, self, things, target, None, template, _surroundings(rng))


def _surroundings(rng: np.random.Generator) -> Surroundings:
    gray = rng.uniform(0.45, 0.75)
    return Surroundings(
        table_rgb=_triple(np.clip(gray + rng.uniform(-0.06, 0.06, 3), 0, 1)),
        light_intensity=float(rng.uniform(0.5, 0.9)),
        light_position=_triple(rng.uniform((-0.3, -0.8, 1.2), (0.9, 0.8, 1.8))),
        camera_offset=_triple(rng.uniform(-0.015, 0.015, 3)),
        camera_target_offset=_triple(rng.uniform(-0.010, 0.010, 3)),
    )


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


def _separated_points(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw `count` points of the region, pairwise at least CLEARANCE apart; the whole set is redrawn until it fits."""
    low, high = np.array([REGION_X[0], REGION_Y[0]]), np.array([REGION_X[1], REGION_Y[1]])
    while True:
        points = rng.uniform(low, high, size=(count, 2))
        gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(count)
        if gaps.min() >= CLEARANCE:
            return points
