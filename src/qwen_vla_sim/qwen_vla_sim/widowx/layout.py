# SPDX-License-Identifier: Apache-2.0
"""Positions of the things of a scene: apart from one another, with room for open fingers, within easy reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qwen_vla_sim.widowx.things import Design

REGION = ((0.20, 0.39), (-0.19, 0.19))  # of origins, x and y in base_link [m]; reachable with the tool straight down
GOAL_REGION = ((0.24, 0.35), (-0.15, 0.15))
OUTER_REGION = ((0.18, 0.41), (-0.225, 0.225))  # reachable, too, but nothing is trained outside REGION
MAX_YAW = 0.25  # things are within this angle of the gripper's closing axis, in either orientation [rad]
ROOM = (0.010, 0.027)  # between two things in x and y [m]: an open finger is 27 mm outside a thing 40 mm wide

TRIES = 20  # for one thing before all are redrawn

Pose = tuple[float, float, float]
Region = tuple[tuple[float, float], tuple[float, float]]


def lay_out(
    rng: np.random.Generator,
    designs: Sequence[Design],
    movable: Sequence[bool],
    target: int,
    goal: int | None,
    *,
    outside: bool = False,
    drift: tuple[float, float] = (0.0, 0.0),
) -> list[Pose]:
    """Draw x, y [m] and yaw [rad] of every thing, the largest first; all are redrawn if there is no room for one.

    Args:
        rng: source of randomness.
        designs, movable: of all things.
        target, goal: indices into them.
        outside: the target is placed outside the trained region.
        drift: of the target [m]; the area it sweeps is kept free.
    """
    order = sorted(range(len(designs)), key=lambda i: -_area(designs[i]))
    while True:
        poses: dict[int, Pose] = {}
        boxes: list[np.ndarray] = []
        for i in order:
            region = REGION if movable[i] and i != goal else GOAL_REGION
            own_drift = drift if i == target else (0.0, 0.0)
            found = _room_for(designs[i], region, outside and i == target, own_drift, boxes, rng)
            if found is None:
                break
            poses[i], box = found
            boxes.append(box)
        else:
            return [poses[i] for i in range(len(designs))]


def _room_for(
    design: Design,
    region: Region,
    outside: bool,
    drift: tuple[float, float],
    boxes: list[np.ndarray],
    rng: np.random.Generator,
) -> tuple[Pose, np.ndarray] | None:
    """A pose and the box that the thing sweeps from there; None when TRIES draws found no room."""
    for _ in range(TRIES):
        pose = _outside(rng) if outside else _within(rng, region)
        end = pose[0] + drift[0], pose[1] + drift[1]
        box = _swept(covered(design, pose), drift)
        if (not any(drift) or _inside(end, region)) and all(_apart(box, other) for other in boxes):
            return pose, box
    return None


def _area(design: Design) -> float:
    back, front, half = design.extent
    return (front - back) * half


def _within(rng: np.random.Generator, region: Region) -> Pose:
    """Draw a pose in the region, in either orientation."""
    (x0, x1), (y0, y1) = region
    flip = np.pi * rng.integers(2)
    return float(rng.uniform(x0, x1)), float(rng.uniform(y0, y1)), float(flip + rng.uniform(-MAX_YAW, MAX_YAW))


def _outside(rng: np.random.Generator) -> Pose:
    while True:
        pose = _within(rng, OUTER_REGION)
        if not _inside(pose[:2], REGION):
            return pose


def _inside(place: tuple[float, float], region: Region) -> bool:
    return all(low <= value <= high for value, (low, high) in zip(place, region, strict=True))


def covered(design: Design, pose: Pose) -> np.ndarray:
    """((x from, x to), (y from, y to)) of the axis-aligned bounding box of a thing [m]."""
    back, front, half = design.extent
    corners = np.array([(x, y) for x in (back, front) for y in (-half, half)])
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    moved = corners @ np.array([[cos, sin], [-sin, cos]]) + pose[:2]
    return np.stack([moved.min(axis=0), moved.max(axis=0)], axis=1)


def _swept(box: np.ndarray, drift: tuple[float, float]) -> np.ndarray:
    shift = np.array(drift)[:, None]
    return np.concatenate([np.minimum(box, box + shift)[:, :1], np.maximum(box, box + shift)[:, 1:]], axis=1)


def _apart(one: np.ndarray, other: np.ndarray) -> bool:
    gaps = np.maximum(one[:, 0] - other[:, 1], other[:, 0] - one[:, 1])
    return bool((gaps > ROOM).any())
