# SPDX-License-Identifier: Apache-2.0
"""What a seed determines in a tabletop scene: things, positions, colors, light, camera and instruction.

Free of MuJoCo, so that datasets, evaluation and the simulator can identify a scene by its task and seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qwen_vla_sim.looks import any_color, any_light, any_shade
from qwen_vla_sim.task import Task
from qwen_vla_sim.widowx.things import COLORS, KINDS, UNSEEN_SHADES, Color, Design

SLOTS = 3  # cubes in a scene at most; at most one of any other kind
MAX_THINGS = 4
JITTER = 0.04  # of trained colors, per channel
# Tables never trained on (the trained ones are tinted grays), and the brightness of the lamp over them.
UNSEEN_TABLES: tuple[Color, ...] = ((0.52, 0.36, 0.22), (0.28, 0.46, 0.36), (0.28, 0.34, 0.48), (0.74, 0.60, 0.42))
UNSEEN_LIGHT = ((0.38, 0.47), (0.93, 1.03))
USUAL_LIGHT = (0.5, 0.9)
ANY_COLOR = 0.3  # share of the things without a named color that have just any, in scenes with varied looks
NAMED_BY_LOOK = ("carrot", "eggplant")  # in shades of their own colors even there
DRIFT_SPEED = 0.015  # [m/s] of a moving target
DRIFT = 0.06  # [m] length of the drift, back and forth


@dataclass(frozen=True)
class Thing:
    """One thing at rest: position of its origin on the table [m] and yaw [rad] in base_link.

    `slot` distinguishes things of a kind and selects one of the kind's designs. `color` is set where instructions name
    it.
    """

    kind: str
    slot: int
    rgb: Color
    x: float
    y: float
    yaw: float
    color: str = ""
    unseen: bool = False

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}".strip()

    @property
    def design(self) -> Design:
        designs = KINDS[self.kind].unseen_designs if self.unseen else KINDS[self.kind].designs
        return designs[self.slot % len(designs)]

    @property
    def movable(self) -> bool:
        return KINDS[self.kind].movable


@dataclass(frozen=True)
class Surroundings:
    """Table, lamp and fixed camera. Offsets are in meters, the intensity in 0..1."""

    table_rgb: Color
    light_intensity: float
    light_position: tuple[float, float, float]
    camera_offset: tuple[float, float, float]
    camera_target_offset: tuple[float, float, float]


@dataclass(frozen=True)
class Choice:
    """The kinds of things of a scene, at most SLOTS cubes and one of any other kind, and the indices of the target and
    of the one it is brought to (None: none)."""

    kinds: Sequence[str]
    target: int
    goal: int | None = None


@dataclass(frozen=True)
class Scene:
    """Everything that task and seed determine. `target` and `goal` index `things`; None: there is no goal.

    `template` is the instruction with the fields {object}, {color} and {goal}. `drift` is the displacement [m] between
    whose ends the target moves back and forth, at DRIFT_SPEED, until it is reached.
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
        """The target, which the instruction names."""
        return self.things[self.target]

    @property
    def goal_index(self) -> int:
        """`goal`, of a scene that has one."""
        if self.goal is None:
            raise ValueError(f"the scene of seed {self.seed} has no goal")
        return self.goal

    @property
    def goal_thing(self) -> Thing:
        """The thing on or in which the target is to be placed, of a scene that has one."""
        return self.things[self.goal_index]

    @property
    def others(self) -> tuple[int, ...]:
        """Indices of the things that could be grasped instead of the target."""
        return tuple(i for i, thing in enumerate(self.things) if thing.movable and i != self.target)

    def instruction_for(self, thing: int) -> str:
        """The scene's instruction with the given thing as the target."""
        goal = self.goal if thing != self.goal else self.target  # a cube cannot be stacked on itself: swap them
        named = self.things[thing]
        return self.template.format(
            object=named.name, color=named.color, goal="" if goal is None else self.things[goal].name
        )


def numbers(seed: int, aspect: int) -> np.random.Generator:
    """Random numbers for one aspect of a scene, independent of all other aspects."""
    return np.random.default_rng([seed, 5, aspect])


def draw_things(kinds: Sequence[str], unseen: bool, unseen_colors: bool, rng: np.random.Generator) -> list[Thing]:
    """Draw things of these kinds, not placed yet; cubes have different colors."""
    names, cubes, things = list(rng.permutation(list(COLORS))), 0, []
    for kind in kinds:
        slot, pick, jitter = int(rng.integers(2)), int(rng.integers(12)), rng.uniform(-JITTER, JITTER, 3)
        color = ""
        if kind == "cube":
            slot, color = cubes, str(names[cubes])
            cubes += 1
            choice = UNSEEN_SHADES[color] if unseen_colors else (COLORS[color],)
        else:
            choice = KINDS[kind].unseen_colors if unseen_colors else KINDS[kind].colors
        rgb = _triple(np.clip(np.array(choice[pick % len(choice)]) + jitter, 0, 1))
        things.append(Thing(kind, slot, rgb, 0.0, 0.0, 0.0, color, unseen))
    return things


def varied_things(things: Sequence[Thing], rng: np.random.Generator) -> list[Thing]:
    """The same things in other shades and colors, for scenes with varied looks."""
    return [replace(thing, rgb=_varied_color(thing, rng)) for thing in things]


def _varied_color(thing: Thing, rng: np.random.Generator) -> Color:
    unseen = UNSEEN_SHADES[thing.color] if thing.color else KINDS[thing.kind].unseen_colors
    if thing.color or thing.kind in NAMED_BY_LOOK or rng.random() > ANY_COLOR:
        return any_shade(rng, thing.rgb, unseen)
    return any_color(rng, unseen)


def draw_surroundings(unseen: bool, rng: np.random.Generator) -> Surroundings:
    table = np.clip(rng.uniform(0.42, 0.78) + rng.uniform(-0.09, 0.09, 3), 0, 1)
    light = float(rng.uniform(*USUAL_LIGHT))
    place = rng.uniform((-0.3, -0.8, 1.2), (0.9, 0.8, 1.8))
    camera, aim = rng.uniform(-0.015, 0.015, 3), rng.uniform(-0.010, 0.010, 3)
    if unseen:
        table = np.array(UNSEEN_TABLES[rng.integers(len(UNSEEN_TABLES))])
        light = float(rng.uniform(*UNSEEN_LIGHT[rng.integers(len(UNSEEN_LIGHT))]))
    return Surroundings(_triple(table), light, _triple(place), _triple(camera), _triple(aim))


def varied_surroundings(usual: Surroundings, rng: np.random.Generator) -> Surroundings:
    """The same camera and lamp over a table of any color, in any light but the unseen ones."""
    table, light = any_color(rng, UNSEEN_TABLES), any_light(rng, USUAL_LIGHT, UNSEEN_LIGHT)
    return replace(usual, table_rgb=table, light_intensity=light)


def draw_drift(rng: np.random.Generator) -> tuple[float, float]:
    """Draw a drift along x or y, in either direction."""
    drift = DRIFT * (1 if rng.random() < 0.5 else -1)
    return (drift, 0.0) if rng.random() < 0.5 else (0.0, drift)


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z
