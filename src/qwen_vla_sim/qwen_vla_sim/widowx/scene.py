"""What a seed decides about a tabletop scene: things, places, colours, light, camera and instruction.

Free of MuJoCo, so that data sets, evaluation and the simulator can name a scene by its task and seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qwen_vla_sim.task import Task
from qwen_vla_sim.widowx.things import COLOURS, KINDS, UNSEEN_SHADES, Colour, Design

SLOTS = 3  # cubes in a scene at most; of any other kind there is one
MAX_THINGS = 4
JITTER = 0.04  # of trained colours, per channel
# Tables never trained on (the trained ones are greys with a tint), and how bright the lamp is on them.
UNSEEN_TABLES: tuple[Colour, ...] = ((0.52, 0.36, 0.22), (0.28, 0.46, 0.36), (0.28, 0.34, 0.48), (0.74, 0.60, 0.42))
UNSEEN_LIGHT = ((0.38, 0.47), (0.93, 1.03))
DRIFT_SPEED = 0.015  # [m/s] of a target that moves
DRIFT = 0.06  # [m] how far, to and fro


@dataclass(frozen=True)
class Thing:
    """One thing at rest: where its origin is on the table [m] and its yaw [rad] in base_link.

    `slot` tells things of a kind apart, and decides which of the kind's designs it has. `colour` is set where the
    sentences name it.
    """

    kind: str
    slot: int
    rgb: Colour
    x: float
    y: float
    yaw: float
    colour: str = ""
    unseen: bool = False

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}".strip()

    @property
    def design(self) -> Design:
        designs = KINDS[self.kind].unseen_designs if self.unseen else KINDS[self.kind].designs
        return designs[self.slot % len(designs)]

    @property
    def movable(self) -> bool:
        return KINDS[self.kind].movable


@dataclass(frozen=True)
class Surroundings:
    """Table, lamp and fixed camera. Offsets are in metres, the intensity in 0..1."""

    table_rgb: Colour
    light_intensity: float
    light_position: tuple[float, float, float]
    camera_offset: tuple[float, float, float]
    camera_target_offset: tuple[float, float, float]


@dataclass(frozen=True)
class Choice:
    """What kinds of things a scene has, at most SLOTS cubes and one of any other kind, which of them is the target, and
    which one it is brought to (None: it is brought nowhere)."""

    kinds: Sequence[str]
    target: int
    goal: int | None = None


@dataclass(frozen=True)
class Scene:
    """Everything that task and seed decide. `target` and `goal` index `things`; goal None: it is brought nowhere.

    `template` is the instruction with the fields {object}, {colour} and {goal}. `drift` is how far [m] the target moves
    to and fro, at DRIFT_SPEED, until it is reached.
    """

    seed: int
    task: Task
    things: tuple[Thing, ...]
    target: int
    goal: int | None
    template: str
    surroundings: Surroundings
    drift: tuple[float, float] = (0.0, 0.0)

    @property
    def instruction(self) -> str:
        return self.instruction_for(self.target)

    @property
    def named(self) -> Thing:
        """What is taken."""
        return self.things[self.target]

    @property
    def others(self) -> tuple[int, ...]:
        """What could be taken instead of the target."""
        return tuple(i for i, thing in enumerate(self.things) if thing.movable and i != self.target)

    def instruction_for(self, thing: int) -> str:
        """The scene's own instruction with another thing named as what is to be taken."""
        goal = self.goal if thing != self.goal else self.target  # a cube that is to be stacked on itself: swapped
        named = self.things[thing]
        return self.template.format(
            object=named.name, colour=named.colour, goal="" if goal is None else self.things[goal].name
        )


def numbers(seed: int, aspect: int) -> np.random.Generator:
    """Random numbers of one aspect of a scene, which nothing about the other aspects changes."""
    return np.random.default_rng([seed, 5, aspect])


def draw_things(kinds: Sequence[str], unseen: bool, unseen_colours: bool, rng: np.random.Generator) -> list[Thing]:
    """Things of these kinds, not placed yet; cubes have different colours."""
    names, cubes, things = list(rng.permutation(list(COLOURS))), 0, []
    for kind in kinds:
        slot, pick, jitter = int(rng.integers(2)), int(rng.integers(12)), rng.uniform(-JITTER, JITTER, 3)
        colour = ""
        if kind == "cube":
            slot, colour = cubes, str(names[cubes])
            cubes += 1
            choice = UNSEEN_SHADES[colour] if unseen_colours else (COLOURS[colour],)
        else:
            choice = KINDS[kind].unseen_colours if unseen_colours else KINDS[kind].colours
        rgb = _triple(np.clip(np.array(choice[pick % len(choice)]) + jitter, 0, 1))
        things.append(Thing(kind, slot, rgb, 0.0, 0.0, 0.0, colour, unseen))
    return things


def draw_surroundings(unseen: bool, rng: np.random.Generator) -> Surroundings:
    table = np.clip(rng.uniform(0.42, 0.78) + rng.uniform(-0.09, 0.09, 3), 0, 1)
    light = float(rng.uniform(0.5, 0.9))
    place = rng.uniform((-0.3, -0.8, 1.2), (0.9, 0.8, 1.8))
    camera, aim = rng.uniform(-0.015, 0.015, 3), rng.uniform(-0.010, 0.010, 3)
    if unseen:
        table = np.array(UNSEEN_TABLES[rng.integers(len(UNSEEN_TABLES))])
        light = float(rng.uniform(*UNSEEN_LIGHT[rng.integers(len(UNSEEN_LIGHT))]))
    return Surroundings(_triple(table), light, _triple(place), _triple(camera), _triple(aim))


def draw_drift(rng: np.random.Generator) -> tuple[float, float]:
    """Along x or y, either way."""
    way = DRIFT * (1 if rng.random() < 0.5 else -1)
    return (way, 0.0) if rng.random() < 0.5 else (0.0, way)


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z
