"""A task of a simulated robot: its instructions, scenes, judge, expert and starts, and what a judge says of it.

A scene is (task, seed). Each robot has a base class of its own between `Task` and its tasks, which knows how its scenes
are laid out and what its situations are: `widowx.tabletop_task`, `aloha.bimanual_task`, `mobile_base.driving_task`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, get_args

import numpy as np

# Kinds of scenes that nothing was trained on: each is the usual scene with one thing changed.
Shift = Literal["colour", "instance", "position", "background", "instruction", "dynamic"]
SHIFTS: tuple[Shift, ...] = get_args(Shift)
# Plays in an environment from an observation and its info on, before an expert takes over; returns the last ones.
Lead = Callable[[Any, dict, dict], tuple[dict, dict]]

World, Scene, Situation, Goal, Start = (TypeVar(name) for name in ("World", "Scene", "Situation", "Goal", "Start"))


@dataclass(frozen=True)
class TaskState:
    """State of the task at one moment.

    Attributes:
        instruction: the sentence of the episode.
        task: name of the task within its suite, for instance "pick_cube".
        target: what the sentence names, for instance "red cube".
        success: it is done.
        distance: from the tip, or the base, to where it has to go next [m].
        failure: how far it got, as a category for statistics ("not touched", "dropped"); empty when it is done.
        metrics: further figures of the suite by name, for instance spl.
    """

    instruction: str
    task: str
    target: str
    success: bool
    distance: float
    failure: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


class Task(ABC, Generic[World, Scene, Situation, Goal, Start]):
    """One task of one robot. It has no state, so two of a class are equal; what happens is in the world.

    Attributes:
        name: its name within its suite; that of its entry point, too.
        instructions: templates of what is said, to train on; the robot's base class names the fields.
        held_out_instructions: other words for the same, never trained on (shift "instruction").
    """

    name: str
    instructions: tuple[str, ...]
    held_out_instructions: tuple[str, ...]

    @abstractmethod
    def scene(self, seed: int, shift: Shift | None = None) -> Scene:
        """The scene of a seed, shifted or not; the same on every machine."""

    @abstractmethod
    def other_instruction(self, scene: Scene, seed: int) -> str:
        """An instruction for another target of the same scene: what a listener must not succeed with."""

    @abstractmethod
    def judge(self, situation: Situation) -> TaskState:
        """Whether it is done, how far it is, and what is in the way."""

    @abstractmethod
    def expert(self, situation: Situation) -> Goal:
        """What to do now, from the present situation alone, so that the expert can take over anywhere."""

    @abstractmethod
    def start(self, world: World, rng: np.random.Generator) -> Start:
        """Where a demonstration begins in the scene that `world` has laid out, as the robot's environment takes it.

        The more of what the expert can recover from is among the starts, the better a policy that learns from it can.
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
