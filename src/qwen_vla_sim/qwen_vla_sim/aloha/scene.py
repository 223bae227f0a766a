# SPDX-License-Identifier: Apache-2.0
"""What a seed determines in a bimanual scene: the things and their positions, the light, the room, the instruction.

Free of MuJoCo, so that datasets, evaluation and the simulator can identify a scene by its task and seed alone. Lengths
are in meters in base_link: the center of the table top, x away from the operator, y to the operator's left.

Sizes and start regions of cube, peg and socket are those of gym-aloha 0.1.5 (Apache-2.0), whose arms are mounted at
y = 0.5, x = -/+ 0.469 of its own frame; ours are at x = -0.019, y = +/- 0.469. The second cube and the second peg,
which make the instruction matter, and the trays are our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qwen_vla_sim.looks import RGB, any_color, any_light, any_shade, rgb_of
from qwen_vla_sim.task import Task

COLORS: dict[str, RGB] = {
    "red": (0.85, 0.08, 0.08),
    "green": (0.08, 0.60, 0.12),
    "blue": (0.08, 0.20, 0.85),
    "yellow": (0.95, 0.80, 0.05),
}
HELD_OUT_COLORS: dict[str, RGB] = {
    "purple": (0.50, 0.10, 0.70),
    "orange": (0.95, 0.42, 0.05),
}
MORE_COLORS: dict[str, RGB] = {  # of scenes with varied looks
    "cyan": (0.10, 0.80, 0.85),
    "white": (0.93, 0.93, 0.91),
    "black": (0.10, 0.10, 0.11),
    "brown": (0.42, 0.26, 0.14),
}
ALL_COLORS = COLORS | HELD_OUT_COLORS | MORE_COLORS
KINDS = ("cube", "peg", "tray")  # of each there may be two in a scene
SOCKET = "socket"
NAMES = (*(f"{color} {kind}" for kind in KINDS for color in ALL_COLORS), SOCKET)  # as in the instructions

CUBE = 0.04  # edge
PEG = (0.02, 0.12, 0.02)  # along y
SOCKET_LENGTH, SOCKET_OUTSIDE, SOCKET_WALL = 0.12, 0.044, 0.004  # a tube along y, open at both ends
PIN = (0.02, 0.08, 0.02)  # in the center of the tube: what the peg has to touch
TRAY = (0.12, 0.16, 0.012)  # its plate
HANDLE = (0.024, 0.08, 0.026)  # a bar at either end of the plate
WIDTHS = {"cube": CUBE, "peg": PEG[0], SOCKET: SOCKET_OUTSIDE, "tray": HANDLE[0]}  # what the fingers close on

Box = tuple[tuple[float, float], tuple[float, float]]  # low and high (x, y)
MARGIN = 0.04  # how far outside the trained region things are when their position is shifted
INSTANCE_SCALES = ((0.80, 0.88), (1.12, 1.20))  # of sizes never trained on
USUAL_LIGHT, OTHER_LIGHT = (0.55, 0.75), ((0.35, 0.45), (0.85, 0.95))  # the latter never trained on
TONES = ((0.62, 0.46, 0.30), (0.35, 0.45, 0.42), (0.25, 0.25, 0.28), (0.80, 0.78, 0.70))  # of rooms never trained on
DRIFT_SPEED = (0.015, 0.03)  # [m/s] of a thing that moves by itself


@dataclass(frozen=True)
class Item:
    """A thing at rest on the table: position of its center, its size relative to the usual one, and its shade.

    Without a shade it has the usual one of its color.
    """

    kind: str
    color: str
    x: float
    y: float
    scale: float = 1.0
    shade: RGB | None = None

    @property
    def name(self) -> str:
        """As in the instructions."""
        return self.kind if self.kind == SOCKET else f"{self.color} {self.kind}"

    @property
    def rgb(self) -> RGB:
        """What it is painted, unless it is the socket."""
        return self.shade or ALL_COLORS[self.color]

    @property
    def width(self) -> float:
        """Distance between the faces on which fingers close [m]."""
        return WIDTHS[self.kind] * self.scale


@dataclass(frozen=True)
class Room:
    """Colors of table, wall and floor (r, g, b), brightness of the lamp in 0..1 and its position [m]."""

    table: tuple[float, float, float]
    wall: tuple[float, float, float]
    floor: tuple[float, float, float]
    light: float
    lamp: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Everything that task and seed determine.

    Attributes:
        items: the things on the table, first two of one kind; `target` indexes the one that the instruction names,
            `goal` the one to which it is to be brought (-1: none).
        template: the instruction with the field {color}.
        region: where the target may be placed in training.
        drift: velocity (vx, vy) [m/s] of the target until a hand touches it.
    """

    seed: int
    task: Task
    items: tuple[Item, ...]
    target: int
    goal: int
    template: str
    room: Room
    region: Box
    drift: tuple[float, float] = (0.0, 0.0)

    @property
    def instruction(self) -> str:
        return self.template.format(color=self.items[self.target].color)

    @property
    def other(self) -> int:
        """Index of the thing of the same kind that the instruction does not name."""
        return 1 - self.target

    @property
    def other_instruction(self) -> str:
        """The same instruction for the other one."""
        return self.template.format(color=self.items[self.other].color)


def draw_place(rng: np.random.Generator, region: Box, outside: bool) -> tuple[float, float]:
    """Draw a position in a region, or in the margin around it."""
    low, high = np.array(region)
    place = rng.uniform(low, high)
    while outside and (place > low - 0.01).all() and (place < high + 0.01).all():
        place = rng.uniform(low - MARGIN, high + MARGIN)
    return float(place[0]), float(place[1])


def draw_room(rng: np.random.Generator) -> Room:
    """Draw a gray room lit from above."""
    table, wall, floor = (
        rgb_of(rng.uniform(low, high) + rng.uniform(-0.04, 0.04, 3))
        for low, high in ((0.50, 0.72), (0.55, 0.75), (0.30, 0.45))
    )
    x, y, z = rng.uniform((-0.2, -0.5, 1.3), (0.5, 0.5, 1.7)).tolist()
    return Room(table, wall, floor, float(rng.uniform(*USUAL_LIGHT)), (x, y, z))


def draw_other_room(rng: np.random.Generator) -> Room:
    """Draw a colored room, darker or brighter, lit from the side."""
    table, wall, floor = (rgb_of(np.array(TONES[k]) + rng.uniform(-0.04, 0.04, 3)) for k in rng.permutation(4)[:3])
    light = float(rng.choice([rng.uniform(*limits) for limits in OTHER_LIGHT]))
    lamp = (float(rng.uniform(-0.6, 0.8)), float(rng.choice([-1.2, 1.2])), float(rng.uniform(0.9, 1.2)))
    return Room(table, wall, floor, light, lamp)


def varied_room(usual: Room, rng: np.random.Generator) -> Room:
    """The same lamp in a room of any colors, in any light but those of other rooms."""
    table, wall, floor = (any_color(rng, TONES) for _ in range(3))
    return replace(usual, table=table, wall=wall, floor=floor, light=any_light(rng, USUAL_LIGHT, OTHER_LIGHT))


def varied_items(items: Sequence[Item], rng: np.random.Generator) -> tuple[Item, ...]:
    """The same things in other colors and shades; the two of a kind differ in color."""
    names = [str(color) for color in rng.permutation(list(COLORS | MORE_COLORS))[:2]]
    held_out = list(HELD_OUT_COLORS.values())
    colored = [replace(item, color=name) for item, name in zip(items[:2], names, strict=True)]
    painted = [replace(item, shade=any_shade(rng, item.rgb, held_out)) for item in colored]
    return (*painted, *items[2:])
