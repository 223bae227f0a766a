"""The scenes of the suite `widowx_pick`: three cubes, one of which is named. Free of MuJoCo."""

from __future__ import annotations

import numpy as np

from qwen_vla_sim.widowx.scene import SLOTS, Scene, Surroundings, Thing
from qwen_vla_sim.widowx.tasks import TASKS
from qwen_vla_sim.widowx.things import COLOURS

REGION_X = (0.22, 0.38)  # [m], base_link; reachable with the tool pointing straight down
REGION_Y = (-0.15, 0.15)
CLEARANCE = 0.085  # least distance of two cube centres [m]: an open finger (47 mm out) clears a rotated neighbour
MAX_YAW = 0.30  # cubes lie within this angle of the gripper's closing axis [rad]


def sample_pick_scene(seed: int) -> Scene:
    """The scene of a seed; the same seed gives the same scene on every machine (NumPy's PCG64)."""
    rng = np.random.default_rng(seed)
    task = TASKS["pick_cube"]
    colours = rng.permutation(list(COLOURS))[:SLOTS]
    places = _separated_points(rng, SLOTS)
    things = tuple(
        Thing("cube", i, COLOURS[str(colour)], float(x), float(y), float(rng.uniform(-MAX_YAW, MAX_YAW)), str(colour))
        for i, (colour, (x, y)) in enumerate(zip(colours, places, strict=True))
    )
    target = int(rng.integers(len(things)))
    sentence = task.sentences[int(rng.integers(len(task.sentences)))]
    grey = rng.uniform(0.45, 0.75)
    surroundings = Surroundings(
        table_rgb=tuple(float(v) for v in np.clip(grey + rng.uniform(-0.06, 0.06, 3), 0, 1)),
        light_intensity=float(rng.uniform(0.5, 0.9)),
        light_position=tuple(float(v) for v in rng.uniform((-0.3, -0.8, 1.2), (0.9, 0.8, 1.8))),
        camera_offset=tuple(float(v) for v in rng.uniform(-0.015, 0.015, 3)),
        camera_target_offset=tuple(float(v) for v in rng.uniform(-0.010, 0.010, 3)),
    )
    return Scene(seed, task, things, target, None, sentence, surroundings)


def _separated_points(rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` points of the region, pairwise at least CLEARANCE apart: redraw the whole set until it fits."""
    low, high = np.array([REGION_X[0], REGION_Y[0]]), np.array([REGION_X[1], REGION_Y[1]])
    while True:
        points = rng.uniform(low, high, size=(count, 2))
        gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(count)
        if gaps.min() >= CLEARANCE:
            return points
