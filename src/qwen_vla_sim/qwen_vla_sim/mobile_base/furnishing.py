# SPDX-License-Identifier: Apache-2.0
"""Draws the furniture of a scene, its positions with room for the base to drive around, and the base's start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qwen_vla_sim.looks import any_shade
from qwen_vla_sim.mobile_base.furniture import FURNITURE, UNCOLORED
from qwen_vla_sim.mobile_base.scene import (
    COLORS,
    DRIFT,
    IN_HALL,
    IN_ROOM,
    MORE_COLORS,
    UNSEEN_COLORS,
    Scene,
    Thing,
    in_hall,
    sees,
    space,
)

FROM_WALL = (0.36, 0.75)  # center of a thing to the nearest wall [m]
FROM_WALL_UNSEEN = 1.05  # to all walls: in the center of the room
APART = 1.3  # centers of two things [m]: a base that stops at one has not reached the other
DOORWAY = (1.1, 0.75)  # depth and half width of the area kept free on both sides of the door [m]
START_FROM_WALL, START_FROM_THING = 0.42, 0.50  # center of the base to walls and to the rim of things [m]
LEAST_PATH = 0.9  # from the start to the rim of the target [m]
TRIES = 400


def draw_things(
    rng: np.random.Generator, target: int | None, shift: str | None, varied: bool = False
) -> tuple[Thing, ...]:
    """Draw kinds and colors, no two with the same name, no kind more than twice; positions come later.

    A target with an unseen color is named only by its kind, so there must be only one of that kind. varied: in more
    colors and shades.
    """
    palette = list(UNSEEN_COLORS if shift == "colour" else COLORS | MORE_COLORS if varied else COLORS)
    while True:
        kinds = [str(pick(rng, list(FURNITURE))) for _ in range(IN_ROOM + IN_HALL)]
        colors = [None if kind in UNCOLORED else str(pick(rng, palette)) for kind in kinds]
        names = set(zip(kinds, colors, strict=True))
        once = [kind for kind in kinds if kinds.count(kind) == 1]
        if len(names) < len(kinds) or any(kinds.count(kind) > 2 for kind in kinds):
            continue
        if shift == "colour" and target is not None and (kinds[target] not in once or colors[target] is None):
            continue
        instance = int(shift == "instance")
        yaws = rng.uniform(-np.pi, np.pi, len(kinds))
        things = tuple(
            Thing(kind, color, 0.0, 0.0, float(yaw), instance)
            for kind, color, yaw in zip(kinds, colors, yaws, strict=True)
        )
        return tuple(_shaded(thing, rng) for thing in things) if varied else things


def _shaded(thing: Thing, rng: np.random.Generator) -> Thing:
    unseen = list(UNSEEN_COLORS.values())
    return replace(thing, shade=any_shade(rng, thing.rgb, unseen)) if thing.rgb else thing


def furnished(rng: np.random.Generator, scene: Scene, shift: str | None) -> Scene | None:
    """Draw the position of every thing; None if there was no room for one."""
    moving = None
    if shift == "dynamic":
        moving = int(rng.integers(IN_ROOM)) if scene.target is None else scene.target
    placed: list[Thing] = []
    for number, thing in enumerate(scene.things):
        middle = shift == "position" and number == scene.target
        low, high = space(scene, number >= IN_ROOM)
        for _ in range(TRIES // 4):
            place = rng.uniform(low, high)
            angle = rng.uniform(-np.pi, np.pi)
            drift = (float(np.cos(angle)), float(np.sin(angle))) if number == moving else None
            candidate = replace(thing, x=float(place[0]), y=float(place[1]), drift=drift)
            if _fits(scene, candidate, placed, low, high, middle):
                placed.append(candidate)
                break
        else:
            return None
    return replace(scene, things=tuple(placed))


def _fits(scene: Scene, thing: Thing, placed: list[Thing], low: np.ndarray, high: np.ndarray, middle: bool) -> bool:
    """Whether a thing may stand at its position, including its drift."""
    begin = np.array([thing.x, thing.y])
    near = float(min(np.minimum(begin - low, high - begin)))
    if near < FROM_WALL_UNSEEN if middle else not FROM_WALL[0] <= near <= FROM_WALL[1]:
        return False
    reach = [begin] if thing.drift is None else [begin + s * DRIFT * np.array(thing.drift) for s in (-1, 0, 1)]
    for place in reach:
        if min(np.minimum(place - low, high - place)) < FROM_WALL[0] - 0.05:
            return False
        if abs(place[0]) < DOORWAY[0] and abs(place[1] - scene.door) < DOORWAY[1]:
            return False
        if any(np.hypot(place[0] - other.x, place[1] - other.y) < APART for other in placed):
            return False
    return True


def draw_start(rng: np.random.Generator, scene: Scene, hall: bool, far: float = LEAST_PATH) -> tuple | None:
    """Draw a pose (x, y, heading) from which the first goal is visible after rotating; None if none was found."""
    low, high = space(scene, hall)
    goal = np.array([0.0, scene.door]) if scene.target is None or hall != in_hall(scene.things[scene.target]) else None
    for _ in range(TRIES):
        place = rng.uniform(low + START_FROM_WALL, high - START_FROM_WALL)
        rims = [np.hypot(*(place - (t.x, t.y))) - t.form.radius for t in scene.things]
        if min(rims) < START_FROM_THING:
            continue
        if goal is not None:
            if np.hypot(*(place - goal)) >= 0.8 and sees(scene, place, None):
                break
        elif scene.target is not None and rims[scene.target] >= far and sees(scene, place, scene.target):
            break
    else:
        return None
    return (float(place[0]), float(place[1]), float(rng.uniform(-np.pi, np.pi)))


def pick(rng: np.random.Generator, options):
    return options[int(rng.integers(len(options)))]
