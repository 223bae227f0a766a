# SPDX-License-Identifier: Apache-2.0
"""What a seed determines in a room and the hall behind its door: sizes, colors, furniture, start and instruction.

Free of MuJoCo. The world frame has its origin at the center of the wall between room and hall: the room is at x < 0,
the hall at x > 0, y points left. Every room has a colored floor, every hall a gray one, and a dark mat lies in the hall
at the door, so that the base's location is visible.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qwen_vla_sim.mobile_base.furniture import FURNITURE, RGB, Furniture
from qwen_vla_sim.task import Task

COLORS: dict[str, RGB] = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.65, 0.15),
    "blue": (0.10, 0.25, 0.90),
    "yellow": (0.95, 0.85, 0.10),
    "purple": (0.55, 0.15, 0.75),
}
UNSEEN_COLORS: dict[str, RGB] = {"orange": (0.95, 0.50, 0.05), "cyan": (0.10, 0.80, 0.85), "pink": (0.95, 0.45, 0.70)}
MORE_COLORS: dict[str, RGB] = {  # of scenes with varied looks
    "white": (0.93, 0.93, 0.91),
    "black": (0.10, 0.10, 0.11),
    "brown": (0.42, 0.26, 0.14),
}
WALL = 0.1  # thickness of walls [m]
DOOR_WIDTH = 0.9  # the base is 0.31 m wide
MAT_DEPTH = 0.6  # of the mat in the hall, as wide as the door [m]
IN_ROOM, IN_HALL = 3, 2  # number of things in each
SIGHT = 0.12  # least free distance around a line of sight [m]
DRIFT_SPEED = 0.05  # of a moving target [m/s]
DRIFT = 0.35  # to either side of its start [m]


@dataclass(frozen=True)
class Thing:
    """A piece of furniture.

    Attributes:
        x, y, yaw: its pose [m, rad] in the world frame.
        instance: index into FURNITURE[kind].
        drift: unit vector along which it moves; None: it stands still.
        shade: of its color; None: the usual one.
    """

    kind: str
    color: str | None
    x: float
    y: float
    yaw: float
    instance: int = 0
    drift: tuple[float, float] | None = None
    shade: RGB | None = None

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}" if self.color else self.kind

    @property
    def form(self) -> Furniture:
        return FURNITURE[self.kind][self.instance]

    @property
    def rgb(self) -> RGB | None:
        return self.shade or ((COLORS | UNSEEN_COLORS | MORE_COLORS)[self.color] if self.color else None)

    def place_at(self, time: float) -> np.ndarray:
        """(2,) position [m] `time` [s] after the start: back and forth between the ends of its drift."""
        place = np.array([self.x, self.y])
        if self.drift is None:
            return place
        phase = (time * DRIFT_SPEED / DRIFT) % 4.0
        return place + DRIFT * (phase if phase < 1 else 2 - phase if phase < 3 else phase - 4) * np.array(self.drift)


@dataclass(frozen=True)
class Scene:
    """Everything that task and seed determine. Lengths in m, angles in rad, light intensities in 0..1.

    Attributes:
        template: the instruction with the field {thing}.
        room, hall: inner size along x and y; both are centered on y = 0.
        door: y of its center.
        target: index into `things` of the final goal, None: the hall.
        start: x, y, heading.
    """

    seed: int
    task: Task
    instruction: str
    template: str
    room: tuple[float, float]
    hall: tuple[float, float]
    door: float
    things: tuple[Thing, ...]
    target: int | None
    start: tuple[float, float, float]
    room_floor: RGB
    room_wall: RGB
    hall_floor: RGB
    hall_wall: RGB
    light_intensity: float
    light_direction: tuple[float, float, float]

    @property
    def target_name(self) -> str:
        """Name of the final goal."""
        return "door" if self.target is None else self.things[self.target].name

    def with_things_at(self, places: np.ndarray) -> Scene:
        """The same scene with its things at `places` (n, 2) [m]."""
        moved = zip(self.things, np.asarray(places).tolist(), strict=True)
        return replace(self, things=tuple(replace(thing, x=x, y=y) for thing, (x, y) in moved))


def in_hall(thing: Thing) -> bool:
    """Whether a thing stands in the hall."""
    return thing.x > 0


def space(scene: Scene, hall: bool) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest x and y [m] between the walls of the room or of the hall."""
    depth, width = scene.hall if hall else scene.room
    near, far = WALL / 2, WALL / 2 + depth
    x = (near, far) if hall else (-far, -near)
    return np.array([x[0], -width / 2]), np.array([x[1], width / 2])


def sees(scene: Scene, place: np.ndarray, thing: int | None) -> bool:
    """Whether no other thing is between a position (2,) and a thing, None: the door; walls are ignored."""
    end = np.array([0.0, scene.door]) if thing is None else np.array([scene.things[thing].x, scene.things[thing].y])
    line = end - place
    for other, t in enumerate(scene.things):
        if other == thing:
            continue
        share = np.clip((np.array([t.x, t.y]) - place) @ line / max(line @ line, 1e-9), 0, 1)
        if np.hypot(*(place + share * line - (t.x, t.y))) < t.form.radius + SIGHT:
            return False
    return True
