"""Where demonstrations begin: where the expert can be asked to recover from, and for snapshots anywhere."""

from __future__ import annotations

import numpy as np

from embodiment_descriptions.angles import wrapped
from qwen_vla_sim.mobile_base.scene import DOOR_WIDTH, Scene, in_hall, sees, space

START_KINDS = ("the scene's", "anywhere", "near the goal", "in the hall")
START_SHARES = (0.2, 0.35, 0.25, 0.2)
NEAR = (0.28, 0.9)  # [m] from the rim of the target, or before the door
OFF_WALL = 0.27  # [m] from the middle of the base to walls and rims, where it may be put


def disturbed_start(scene: Scene, rng: np.random.Generator, in_either: bool) -> np.ndarray:
    """A pose (3,) from which the expert can be asked to recover: clear of walls and things, any heading.

    in_either: from the room and from the hall. Who is to go to a thing of the room needs to be in the room: nothing
    would tell that it is there.
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
    """Any pose (3,) in the room or the hall that is clear of walls and things."""
    while True:
        place = rng.uniform(*space(scene, bool(rng.random() < 0.5)))
        if _is_free(scene, place):
            return np.array([*place, rng.uniform(-np.pi, np.pi)])


def _near_the_goal(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A place around the target, or on either side of the door, and a heading more or less towards it."""
    if scene.target is None:
        centre, reach = np.array([0.0, scene.door]), rng.uniform(0.0, NEAR[1])
    else:
        thing = scene.things[scene.target]
        centre, reach = np.array([thing.x, thing.y]), thing.form.radius + rng.uniform(*NEAR)
    angle = rng.uniform(-np.pi, np.pi)
    place = centre + reach * np.array([np.cos(angle), np.sin(angle)])
    spread = 0.6 if rng.random() < 0.7 else np.pi
    return place, wrapped(
        (angle if scene.target is None and place[0] > 0 else angle + np.pi) + rng.uniform(-spread, spread)
    )


def _needed(scene: Scene, place: np.ndarray) -> int | None:
    """The thing, None: the door, that is to be reached first from a place."""
    return scene.target if scene.target is None or in_hall(scene.things[scene.target]) == (place[0] > 0) else None


def _is_free(scene: Scene, place: np.ndarray) -> bool:
    """Whether the base may be put at a place (2,): in a room, or between the posts of the door."""
    rims = [np.hypot(*(place - (thing.x, thing.y))) - thing.form.radius for thing in scene.things]
    if min(rims) < OFF_WALL:
        return False
    if abs(place[1] - scene.door) < DOOR_WIDTH / 2 - OFF_WALL and abs(place[0]) < 2 * OFF_WALL:
        return True
    low, high = space(scene, bool(place[0] > 0))
    return bool((place > low + OFF_WALL).all() and (place < high - OFF_WALL).all())
