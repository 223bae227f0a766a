# SPDX-License-Identifier: Apache-2.0
"""Where demonstrations begin: at poses from which the expert can recover, and for snapshots anywhere."""

from __future__ import annotations

import numpy as np

from embodiment_descriptions.angles import wrapped
from qwen_vla_sim.mobile_base.scene import DOOR_WIDTH, Scene, in_hall, sees, space

START_KINDS = ("the scene's", "anywhere", "near the goal", "in the hall")
START_SHARES = (0.2, 0.35, 0.25, 0.2)
NEAR = (0.28, 0.9)  # [m] from the rim of the target, or before the door
OFF_WALL = 0.27  # [m] from the center of the base to walls and rims at a start


def disturbed_start(scene: Scene, rng: np.random.Generator, in_either: bool) -> np.ndarray:
    """Draw a pose (3,) from which the expert can recover: clear of walls and things, any heading.

    Args:
        scene: to start in.
        rng: source of randomness.
        in_either: from the room and from the hall. To go to a thing in the room, the base must be in the room: nothing
            would show that it is there.
    """
    hall = scene.start[0] > 0
    while True:
        kind = str(rng.choice(START_KINDS, p=START_SHARES))
        if kind == "the scene's":
            return np.array(scene.start)
        heading = rng.uniform(-np.pi, np.pi)
        if kind == "near the goal":
            place, heading = _near_the_goal(scene, rng)
        else:
            place = rng.uniform(*space(scene, hall or (kind == "in the hall" and in_either)))
        if _is_free(scene, place) and sees(scene, place, _needed(scene, place)):
            return np.array([*place, heading])


def any_start(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw any pose (3,) in the room or the hall that is clear of walls and things."""
    while True:
        place = rng.uniform(*space(scene, bool(rng.random() < 0.5)))
        if _is_free(scene, place):
            return np.array([*place, rng.uniform(-np.pi, np.pi)])


def _near_the_goal(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Draw a position around the target, or on either side of the door, and a heading roughly toward it."""
    if scene.target is None:
        center, reach = np.array([0.0, scene.door]), rng.uniform(0.0, NEAR[1])
    else:
        thing = scene.things[scene.target]
        center, reach = np.array([thing.x, thing.y]), thing.form.radius + rng.uniform(*NEAR)
    angle = rng.uniform(-np.pi, np.pi)
    place = center + reach * np.array([np.cos(angle), np.sin(angle)])
    spread = 0.6 if rng.random() < 0.7 else np.pi
    toward = angle if scene.target is None and place[0] > 0 else angle + np.pi
    return place, float(wrapped(toward + rng.uniform(-spread, spread)))


def _needed(scene: Scene, place: np.ndarray) -> int | None:
    """The first goal from a position: a thing, None: the door."""
    return scene.target if scene.target is None or in_hall(scene.things[scene.target]) == (place[0] > 0) else None


def _is_free(scene: Scene, place: np.ndarray) -> bool:
    """Whether the base may start at a position (2,): in room or hall, or between the posts of the door."""
    rims = [np.hypot(*(place - (thing.x, thing.y))) - thing.form.radius for thing in scene.things]
    if min(rims) < OFF_WALL:
        return False
    if abs(place[1] - scene.door) < DOOR_WIDTH / 2 - OFF_WALL and abs(place[0]) < 2 * OFF_WALL:
        return True
    low, high = space(scene, bool(place[0] > 0))
    return bool((place > low + OFF_WALL).all() and (place < high - OFF_WALL).all())
