# SPDX-License-Identifier: Apache-2.0
"""The four tasks of Simpler-WidowX and their start states: the 24 official ones, and others for training.

Positions are in the simulator's world: x, y, z [m], z up; quaternions are w x y z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

OFFICIAL_STATES = 24
APART = 0.005  # [m] a training state's object is at least this far from that of every official state
TABLE = 0.870  # [m] height of the table's top


class Start(NamedTuple):
    """Poses of the object to be moved and of its destination: xyz (2, 3) [m] and quaternions wxyz (2, 4)."""

    xyz: np.ndarray
    quaternions: np.ndarray


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: the row in the results.
        env_id: what mani_skill calls it.
        instruction: as mani_skill's `get_language_instruction` returns it.
        objects: phrases for the object to be moved and for its destination.
        steps: the protocol's limit at 5 Hz.
        heights: z of the two objects when they are put down [m].
        gap: least distance between the two [m].
        yaw: the object is turned by up to this angle either way [rad].
    """

    name: str
    env_id: str
    instruction: str
    objects: tuple[str, str]
    steps: int
    heights: tuple[float, float]
    gap: float
    yaw: float

    @property
    def in_sink(self) -> bool:
        """Whether the scene is the sink; otherwise the table."""
        return self.steps > 60


TASKS = {
    task.name: task
    for task in (
        Task(
            "spoon_on_towel", "PutSpoonOnTableClothInScene-v1", "put the spoon on the towel", ("spoon", "towel"),
            60, (0.88, 0.875), 0.13, np.pi / 2,
        ),
        Task(
            "carrot_on_plate", "PutCarrotOnPlateInScene-v1", "put carrot on plate", ("carrot", "plate"),
            60, (0.887529, 0.869532), 0.13, np.pi / 2,
        ),
        Task(
            "stack_cube", "StackGreenCubeOnYellowCubeBakedTexInScene-v1", "stack the green block on the yellow block",
            ("green block", "yellow block"), 60, (0.887529, 0.887529), 0.06, 0.4,
        ),
        Task(
            "eggplant_in_basket", "PutEggplantInBasketScene-v1", "put eggplant into yellow basket",
            ("eggplant", "yellow basket"), 120, (0.933, 1.0), 0.0, np.pi,
        ),
    )
}  # fmt: skip
NAMES = tuple(name for task in TASKS.values() for name in task.objects)

REACH = ((-0.275, -0.050), (-0.115, 0.115))  # [m] x and y of objects on the table: the official ones, and 1 cm more
SINK = ((-0.125, -0.085), (0.182, 0.230))  # [m] x and y of the eggplant: it stays graspable in the left basin
BASKET = (-0.125, 0.025, 1.0)  # [m] where the official states put the (invisible) bottom of the basket


def training_start(task: Task, official: list[Start], seed: int, attempt: int = 0) -> Start:
    """A random start state that is none of the official ones; the same for the same seed.

    Args:
        task: the task.
        official: all start states that the protocol uses.
        seed: of the random state.
        attempt: another one, where the objects do not stay in the first.
    """
    random = np.random.default_rng([seed, attempt] if attempt else seed)
    while True:
        start = _eggplant(random) if task.in_sink else _on_table(task, random, official)
        if all(np.linalg.norm(start.xyz[0, :2] - other.xyz[0, :2]) >= APART for other in official):
            return start


def _on_table(task: Task, random: np.random.Generator, official: list[Start]) -> Start:
    while True:
        xy = random.uniform(*np.transpose(REACH), size=(2, 2))
        if np.linalg.norm(xy[0] - xy[1]) >= task.gap:
            break
    xyz = np.concatenate([xy, np.reshape(task.heights, (2, 1))], axis=1)
    upright = official[random.integers(len(official))].quaternions[0]
    turned = _turned(upright, random.uniform(-task.yaw, task.yaw))
    other = _turned(np.array([1.0, 0, 0, 0]), random.uniform(-task.yaw, task.yaw))
    return Start(xyz, np.stack([turned, other if task.yaw < 1 else np.array([1.0, 0, 0, 0])]))


def _eggplant(random: np.random.Generator) -> Start:
    xy = random.uniform(*np.transpose(SINK))
    quaternion = random.normal(size=4)
    return Start(
        np.stack([[*xy, 0.933], BASKET]),
        np.stack([quaternion / np.linalg.norm(quaternion), [1.0, 0, 0, 0]]),
    )


def _turned(quaternion: np.ndarray, yaw: float) -> np.ndarray:
    """A quaternion w x y z, turned about the vertical."""
    c, s = np.cos(yaw / 2), np.sin(yaw / 2)
    w, x, y, z = quaternion
    return np.array([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w])
