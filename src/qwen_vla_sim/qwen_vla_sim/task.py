# SPDX-License-Identifier: Apache-2.0
"""A task of a simulated robot: its instructions, scenes, judge, expert and start states, and the judge's result.

A scene is (task, seed). Each robot has its own base class between `Task` and its tasks, which defines how its scenes
are laid out and what its situations are: `widowx.tabletop_task`, `aloha.bimanual_task`, `mobile_base.driving_task`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, get_args

import numpy as np

# Kinds of distribution shift: each is the usual scene with one thing changed, never trained on.
Shift = Literal["colour", "instance", "position", "background", "instruction", "dynamic"]
SHIFTS: tuple[Shift, ...] = get_args(Shift)
# Acts in an environment from an observation and its info on, until an expert takes over; returns the last ones.
Lead = Callable[[Any, dict, dict], tuple[dict, dict]]

World = TypeVar("World")
Scene = TypeVar("Scene")
Situation = TypeVar("Situation")
Goal = TypeVar("Goal")
Start = TypeVar("Start")


@dataclass(frozen=True)
class TaskState:
    """State of the task at one time.

    Attributes:
        instruction: of the episode.
        task: name of the task within its suite, such as "pick_cube".
        target: what the instruction names, such as "red cube".
        success: whether the task is done.
        distance: from the tip, or the base, to its next goal [m].
        failure: progress so far as a category for statistics ("not touched", "dropped"); empty on success.
        metrics: further metrics of the suite by name, such as spl.
    """

    instruction: str
    task: str
    target: str
    success: bool
    distance: float
    failure: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


class Task(ABC, Generic[World, Scene, Situation, Goal, Start]):
    """One task of one robot. It is stateless, so two of a class are equal; the state is in the world.

    Attributes:
        name: its name within its suite, and of its entry point.
        instructions: templates to train on; the robot's base class defines the fields.
        held_out_instructions: paraphrases, never trained on (shift "instruction").
    """

    name: str
    instructions: tuple[str, ...]
    held_out_instructions: tuple[str, ...]

    @abstractmethod
    def scene(self, seed: int, shift: Shift | None = None) -> Scene:
        """The scene of a seed, shifted or not; the same on every machine."""

    @abstractmethod
    def other_instruction(self, scene: Scene, seed: int) -> str:
        """An instruction for another target of the same scene, with which a policy that follows it must not succeed."""

    @abstractmethod
    def judge(self, situation: Situation) -> TaskState:
        """Whether the task is done, how far it has come, and why it is not done."""

    @abstractmethod
    def expert(self, situation: Situation) -> Goal:
        """What to do now, from the current situation alone, so that the expert can take over anywhere."""

    @abstractmethod
    def start(self, world: World, rng: np.random.Generator) -> Start:
        """The start state of a demonstration in the scene that `world` has laid out, as the environment takes it.

        The more of the states from which the expert can recover are among the starts, the better a policy trained on
        its demonstrations recovers.
        """

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


def shift_of(name: str | None) -> Shift | None:
    """The shift of that name; None for None and "". ValueError lists the known ones."""
    if name and name not in SHIFTS:
        raise ValueError(f"unknown shift {name!r}; choose one of: {', '.join(SHIFTS)}, or none")
    return name or None
