# SPDX-License-Identifier: Apache-2.0
"""The base class of the tasks on the WidowX's table: how their scenes are laid out and where demonstrations begin.

A task defines the things of its scenes, when it is done, and what its expert does; the templates of its instructions
have the fields {object}, {color} and {goal}.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import numpy as np

from qwen_vla_sim.looks import varies
from qwen_vla_sim.task import Shift, Task, TaskState
from qwen_vla_sim.widowx.grasping import Step
from qwen_vla_sim.widowx.layout import lay_out
from qwen_vla_sim.widowx.scene import (
    Choice,
    Scene,
    draw_drift,
    draw_surroundings,
    draw_things,
    numbers,
    varied_surroundings,
    varied_things,
)
from qwen_vla_sim.widowx.situation import Situation
from qwen_vla_sim.widowx.starts import APPROACHES, Start, draw_start
from qwen_vla_sim.widowx.things import KINDS
from qwen_vla_sim.widowx.world import WidowXWorld


class TabletopTask(Task[WidowXWorld, Scene, Situation, Step, Start]):
    """A task about one thing on the table.

    Attributes:
        kinds: of all things that its scenes may have, from KINDS.
        starts: shares of the kinds of start of demonstrations, those of `starts.draw_start`.
    """

    kinds: tuple[str, ...] = tuple(KINDS)
    starts = APPROACHES

    @abstractmethod
    def choose(self, rng: np.random.Generator) -> Choice:
        """Draw the kinds of things of a scene, in any order, and which of them are target and goal."""

    def scene(self, seed: int, shift: Shift | None = None) -> Scene:
        """The scene of a seed; the same on every machine (NumPy's PCG64).

        Every aspect has its own random numbers, so that a shift changes only the aspect in its name; things move only
        if the change takes more room.
        """
        choice = self.choose(numbers(seed, 0))
        things = draw_things(choice.kinds, shift == "instance", shift == "colour", numbers(seed, 1))
        templates = self.held_out_instructions if shift == "instruction" else self.instructions
        template = str(numbers(seed, 2).choice(templates))
        surroundings = draw_surroundings(shift == "background", numbers(seed, 3))
        if varies(seed, shift):
            looks = numbers(seed, 6)
            things, surroundings = varied_things(things, looks), varied_surroundings(surroundings, looks)
        drift = draw_drift(numbers(seed, 4)) if shift == "dynamic" else (0.0, 0.0)
        poses = lay_out(
            numbers(seed, 5),
            [thing.design for thing in things],
            [thing.movable for thing in things],
            choice.target,
            choice.goal,
            outside=shift == "position",
            drift=drift,
        )
        placed = tuple(replace(thing, x=x, y=y, yaw=yaw) for thing, (x, y, yaw) in zip(things, poses, strict=True))
        return Scene(seed, self, placed, choice.target, choice.goal, template, surroundings, drift)

    def other_instruction(self, scene: Scene, seed: int) -> str:
        return scene.instruction_for(scene.others[seed % len(scene.others)])

    def start(self, world: WidowXWorld, rng: np.random.Generator) -> Start:
        return draw_start(world, self.starts, rng)

    def shown(self, state: TaskState) -> bool:
        """Whether a demonstration has shown the whole task."""
        return state.success


def tabletop(task: Task) -> TabletopTask:
    """The same task; TypeError for one that is not about the WidowX's table."""
    if not isinstance(task, TabletopTask):
        raise TypeError(f"task {task.name!r} is not a TabletopTask, which the WidowX's suites need")
    return task
