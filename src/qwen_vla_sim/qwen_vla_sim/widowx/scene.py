"""What a seed decides about a tabletop scene: which cubes lie where, the light, the camera jitter and the sentence.

Free of MuJoCo, so that data sets, evaluation and the simulator can name a scene by its seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.65, 0.15),
    "blue": (0.10, 0.25, 0.90),
    "yellow": (0.95, 0.85, 0.10),
    "purple": (0.55, 0.15, 0.75),
    "cyan": (0.10, 0.80, 0.85),
}
SENTENCES = (
    "pick up the {colour} cube",
    "lift the {colour} cube",
    "grab the {colour} block",
    "take the {colour} cube off the table",
)
CUBES_PER_SCENE = 3
CUBE_SIZE = 0.040  # edge [m]: fits the WidowX gripper's 30–74 mm opening with 17 mm of room on each side
REGION_X = (0.22, 0.38)  # [m], base_link; reachable with the tool pointing straight down
REGION_Y = (-0.15, 0.15)
CLEARANCE = 0.085  # least distance of two cube centres [m]: an open finger (47 mm out) clears a rotated neighbour
MAX_YAW = 0.30  # cubes lie within this angle of the gripper's closing axis [rad]


@dataclass(frozen=True)
class Cube:
    """One cube at rest: position of its centre on the table [m] and yaw [rad] in base_link."""

    colour: str
    x: float
    y: float
    yaw: float


@dataclass(frozen=True)
class Scene:
    """Everything that a seed decides. `target` indexes `cubes`; offsets are in metres, intensities in 0..1."""

    seed: int
    cubes: tuple[Cube, ...]
    target: int
    instruction: str
    table_rgb: tuple[float, float, float]
    light_intensity: float
    light_position: tuple[float, float, float]
    camera_offset: tuple[float, float, float]
    camera_target_offset: tuple[float, float, float]

    @property
    def target_colour(self) -> str:
        return self.cubes[self.target].colour

    def instruction_for(self, cube: int) -> str:
        """The scene's own sentence with another cube of the scene named in it."""
        return self.instruction.replace(self.target_colour, self.cubes[cube].colour)


def sample_scene(seed: int) -> Scene:
    """The scene of a seed; the same seed gives the same scene on every machine (NumPy's PCG64)."""
    rng = np.random.default_rng(seed)
    colours = rng.permutation(list(COLOURS))[:CUBES_PER_SCENE]
    places = _separated_points(rng, CUBES_PER_SCENE)
    cubes = tuple(
        Cube(str(colour), float(x), float(y), float(rng.uniform(-MAX_YAW, MAX_YAW)))
        for colour, (x, y) in zip(colours, places, strict=True)
    )
    target = int(rng.integers(len(cubes)))
    sentence = SENTENCES[int(rng.integers(len(SENTENCES)))]
    grey = rng.uniform(0.45, 0.75)
    return Scene(
        seed=seed,
        cubes=cubes,
        target=target,
        instruction=sentence.format(colour=cubes[target].colour),
        table_rgb=tuple(float(v) for v in np.clip(grey + rng.uniform(-0.06, 0.06, 3), 0, 1)),
        light_intensity=float(rng.uniform(0.5, 0.9)),
        light_position=tuple(float(v) for v in rng.uniform((-0.3, -0.8, 1.2), (0.9, 0.8, 1.8))),
        camera_offset=tuple(float(v) for v in rng.uniform(-0.015, 0.015, 3)),
        camera_target_offset=tuple(float(v) for v in rng.uniform(-0.010, 0.010, 3)),
    )


def _separated_points(rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` points of the region, pairwise at least CLEARANCE apart: redraw the whole set until it fits."""
    low, high = np.array([REGION_X[0], REGION_Y[0]]), np.array([REGION_X[1], REGION_Y[1]])
    while True:
        points = rng.uniform(low, high, size=(count, 2))
        gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(count)
        if gaps.min() >= CLEARANCE:
            return points
