# SPDX-License-Identifier: Apache-2.0
"""The scripted expert of libero_object and libero_spatial: where it grasps an object, by the object's corners.

Objects are held across their least width, from above. Bowls are wider than the hand: they are held by the rim.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.public.protocol.disturbance import Disturbances
from benchmarks.public.protocol.pick_and_place import OPEN, Expert, Grasp, Pace, View
from benchmarks.public.protocol.poses import matrix

PACE = Pace(
    step=0.05, slow_step=0.025, turn=0.25, gain=0.5, above=0.08, near=0.015, close_by=0.006, held=0.06,
    closing=14, opening=8, descent=30, carrying=60, withdrawal=8,
)  # fmt: skip
DISTURBANCES = Disturbances(share=0.02, length=(4, 14), longer=(6, 20), push=0.02, twist=0.12)
ALONG_X = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])  # the hand's axes in a frame along whose x it closes
ALONG_Y = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
UPRIGHT = 0.15  # [rad] by which an action turns the hand back, at most
TURN = np.pi / 16  # [rad] where both are a quarter, the hand turns left: to the right, joint 7 ends at its limit
GRIP = 0.035  # [m] the fingers go down to this below the top
CLEAR = 0.012  # [m] but no closer to what the object stands on
RIM, RIM_GRIP = 0.004, 0.025  # [m] inside the rim of a bowl, and below it
OVER = 0.04  # [m] between the lowest point of what is carried and what it passes
HIGHEST, WAYPOINTS = 0.3, 40  # [m] by which an object is raised more than onto its place, at most; places on its way
WIDEST = 0.075  # [m] between the fingers
ALONG = (0.0, 0.025, -0.025)  # [m] from the middle of an object, of one attempt after the other
# [rad] the same around the rim: neighbors follow each other, since a policy cannot tell when the expert changes sides.
AROUND = np.pi * np.array([4, -4, 6, 7, 5, 8, 3, 2, 1, 0, -1, -2, -7, -6, -5, -3]) / 8
# Points of the open hand in the tip's frame [m]: y is the fingers' axis, z points down.
FINGERS = np.array(
    list(
        itertools.product(
            (-0.01, 0.01), (-0.055, -0.049, -0.043, -0.037, 0.037, 0.043, 0.049, 0.055), (-0.04, -0.015, 0.01)
        )
    )
)
PALM = np.array(list(itertools.product((-0.03, 0.0, 0.03), np.linspace(-0.1, 0.1, 7), (-0.18, -0.12, -0.06, -0.045))))
MOVED, TILTED = 0.01, 0.1  # [m], [rad] by which an object has moved so far that its grasp is planned anew
DESCENT = (0.0, 0.03, 0.06)  # [m] over the grasp
ROOM = 0.004  # [m] about the hand: the controller is off by some mm, and walls are thinner than the points are apart


class Boxes(NamedTuple):
    """Boxes by which things collide: poses (n, 4, 4) and half sizes (n, 3) [m]."""

    poses: np.ndarray
    halves: np.ndarray

    def distance(self, points: np.ndarray) -> float:
        """Of the points (m, 3) from the closest box [m]; negative inside, infinite without boxes."""
        inside = np.einsum("nij,nmi->nmj", self.poses[:, :3, :3], points - self.poses[:, None, :3, 3])
        beyond = np.abs(inside) - self.halves[:, None]
        distances = np.linalg.norm(np.maximum(beyond, 0.0), axis=-1) + np.minimum(beyond.max(-1), 0.0)
        return float(distances.min(initial=np.inf))

    def corners(self) -> np.ndarray:
        """(8 n, 3) of all boxes."""
        unit = np.array(list(itertools.product((-1, 1), repeat=3)))
        corners = np.einsum("nij,nmj->nmi", self.poses[:, :3, :3], unit * self.halves[:, None])
        return (corners + self.poses[:, None, :3, 3]).reshape(-1, 3)


class Seen(Protocol):
    """What the expert sees of a scene; see `Scene`."""

    object: str
    goal: str
    support: str

    def hand(self) -> np.ndarray: ...
    def pose(self, name: str) -> np.ndarray: ...
    def boxes(self, name: str) -> Boxes: ...
    def obstacles(self) -> Boxes: ...


class Planner:
    """The expert for one episode: grasps again, elsewhere, what it lost or put in the wrong place."""

    def __init__(self, scene: Seen) -> None:
        self._scene, self._attempt = scene, 0
        self._begin()

    @property
    def phase(self) -> str:
        return self._expert.phase

    def act(self) -> np.ndarray:
        """The next action (7,): translation [m], rotation vector [rad], gripper, 1 open and -1 closed."""
        if self.phase == "above" and self._has_moved():
            self._begin()
        before, action = self.phase, self._expert.act(self._view())
        if self.phase == "rest" or (self.phase == "above" and before not in ("above", "rest")):
            self._attempt += 1
            self._begin()
            action = self._expert.act(self._view())
        hand = self._scene.hand()
        low = self._height - hand[2, 3]
        self._rising = self._rising and low > PACE.near
        if self._rising:  # straight up, out of what it is in
            action = np.array([0.0, 0, min(PACE.gain * low, PACE.step), 0, 0, 0, OPEN])
        return kept_upright(action, hand)

    def _has_moved(self) -> bool:
        """Whether the object stands otherwise than when its grasp was planned: some fall by themselves."""
        change = np.linalg.inv(self._planned) @ self._scene.pose(self._scene.object)
        turn = Rotation.from_matrix(change[:3, :3]).magnitude()
        return bool(np.linalg.norm(change[:3, 3]) > MOVED or turn > TILTED)

    def _begin(self) -> None:
        scene = self._scene
        into = scene.boxes(scene.support).corners()
        found = plan(scene.boxes(scene.object), into, scene.obstacles(), self._attempt)
        self._expert = Expert(found.grasp, PACE)
        self._planned = scene.pose(scene.object)
        self._in_object = np.linalg.inv(self._planned) @ found.frame
        self._height = found.frame[2, 3] + PACE.above
        self._rising = not self._expert.over_grasp(self._view())

    def _view(self) -> View:
        scene, hand = self._scene, self._scene.hand()
        thing = scene.pose(scene.object) @ self._in_object
        return View(hand, hand, thing, scene.pose(scene.goal), 0.0)


class Plan(NamedTuple):
    """A grasp, and the frame (4, 4) to which it refers, fixed to the object."""

    frame: np.ndarray
    grasp: Grasp

    def room(self, obstacles: Boxes) -> float:
        """Distance of the open hand from them while it comes down to the grasp [m]; negative if it touches them."""
        turn = self.frame[:3, :3] @ (ALONG_X if not self.grasp.across else ALONG_Y)
        tip = self.frame[:3, 3] + self.grasp.along * self.frame[:3, 0]
        hand = np.concatenate([FINGERS, PALM]) @ turn.T + tip
        return min(obstacles.distance(hand + [0, 0, height]) for height in DESCENT)


def plan(thing: Boxes, into: np.ndarray, obstacles: Boxes, attempt: int) -> Plan:
    """How to grasp an object and put it down.

    Args:
        thing: the object. A bowl is grasped where the fingers do not touch it while they are open: it may lean.
        into: (m, 3) corners of what it is put on or into.
        obstacles: everything else; a bowl is grasped where the hand has room beside them.
        attempt: number of the attempt; the next one grasps elsewhere.
    """
    corners = thing.corners()
    axis = least_width(corners)
    low, high = spread(corners, axis)
    if high[0] - low[0] > WIDEST:
        lift = raised(corners, into, obstacles) + OVER  # held by the rim, it tilts
        plans = [_by_the_rim(corners, into, around, lift) for around in AROUND]
        room = [min(each.room(obstacles), each.room(thing)) for each in plans]
        plans = [each for each, left in zip(plans, room, strict=True) if left > ROOM] or [plans[int(np.argmax(room))]]
        return plans[attempt % len(plans)]
    bottom, top = corners[:, 2].min(), corners[:, 2].max()
    frame = _frame(axis + np.pi / 2, _middle(corners, axis), max(top - GRIP, bottom + CLEAR))
    over = into[:, 2].max() + OVER - bottom
    return Plan(frame, Grasp(None, over, into[:, 2].min() + OVER - bottom, along=ALONG[attempt % len(ALONG)]))


def raised(corners: np.ndarray, into: np.ndarray, obstacles: Boxes) -> float:
    """By how much an object (n, 3) is raised to pass everything on its straight way, as a drawer's front [m]."""
    middle, bottom = _middle(corners, 0.0), corners[:, 2].min()
    around = np.linspace(0.0, 2 * np.pi, 12, endpoint=False)
    outline = np.linalg.norm(corners[:, :2] - middle, axis=1).max() * np.column_stack([np.cos(around), np.sin(around)])
    way = np.linspace(middle, _middle(into, 0.0), WAYPOINTS)
    foot = np.concatenate([outline, np.zeros((1, 2))])
    points = np.insert((way[:, None] + foot).reshape(-1, 2), 2, bottom, axis=1)
    least = max(into[:, 2].max() - bottom, 0.0) + OVER
    heights = np.arange(least, least + HIGHEST, 0.01)
    return float(next((h for h in heights if obstacles.distance(points + [0, 0, h]) > OVER), least))


def _by_the_rim(corners: np.ndarray, into: np.ndarray, around: float, lift: float) -> Plan:
    low, high = spread(corners, around)
    radius, middle = (high[0] - low[0]) / 2, _middle(corners, around)
    beyond = (corners[:, :2] - middle) @ [np.cos(around), np.sin(around)]
    rim = corners[beyond > 0.8 * radius, 2].max()  # there: a bowl may lean on something
    bottom, onto = corners[:, 2].min(), into[:, 2].max()
    release = onto + 0.01 - bottom
    grasp = Grasp(None, lift, release, along=radius - RIM, across=False, turn=TURN)
    return Plan(_frame(around, middle, rim - RIM_GRIP), grasp)


def least_width(corners: np.ndarray) -> float:
    """Angle about the vertical of the direction in which an object is narrowest [rad]."""
    angles = np.linspace(0.0, np.pi, 90, endpoint=False)
    widths = [np.ptp(corners[:, :2] @ [np.cos(angle), np.sin(angle)]) for angle in angles]
    return float(angles[int(np.argmin(widths))])


def spread(corners: np.ndarray, axis: float) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest coordinates (2,) along a direction and across it."""
    turned = corners[:, :2] @ Rotation.from_euler("z", axis).as_matrix()[:2, :2]
    return turned.min(0), turned.max(0)


def _middle(corners: np.ndarray, axis: float) -> np.ndarray:
    return Rotation.from_euler("z", axis).as_matrix()[:2, :2] @ np.mean(spread(corners, axis), axis=0)


def _frame(yaw: float, middle: np.ndarray, height: float) -> np.ndarray:
    return matrix(np.array([*middle, height]), Rotation.from_euler("z", yaw))


def kept_upright(action: np.ndarray, hand: np.ndarray) -> np.ndarray:
    """An action that turns the hand, too, so that it points down."""
    tilt = np.cross(hand[:3, 2], [0.0, 0.0, -1.0])[:2]
    return np.concatenate([action[:3], np.clip(tilt, -UPRIGHT, UPRIGHT), action[5:]])
