# SPDX-License-Identifier: Apache-2.0
"""What the suites of all simulated robots share: their tasks, the scenes of seeds, and the gate for chunks.

Tasks are entry points of the group `qwen_vla.tasks`, named `<suite>.<task>`, so that any package can add one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate import Gate, RobotState, gate_of
from qwen_vla_control.motion.timed_path import Path
from qwen_vla_sim.robot_world import RobotWorld
from qwen_vla_sim.spectator.spectator import Spectator
from qwen_vla_sim.task import Shift, Task
from qwen_vla_sim.world_env import WorldEnv

GROUP = "qwen_vla.tasks"
PORTRAIT, PORTRAIT_SEED = (360, 480), 9000  # [px] height and width; its scene is one of validation


class SimulatedSuite(ABC):
    """Tasks of one robot.

    Attributes:
        name, robot: of the suite, and of its robot in embodiment_descriptions.
        rotation: names of the tasks through which seeds alone cycle. Datasets and figures identify their scenes by a
            seed alone, so a published rotation never changes; an added task is chosen by its name.
        shifts: supported kinds of distribution shift.
        max_steps: control steps after which an episode ends.
        reference_path: with which the robot's path is compared, in words; None: it is not.
    """

    name: str
    robot: str
    rotation: tuple[str, ...]
    shifts: tuple[Shift, ...]
    max_steps: int
    reference_path: str | None = None

    def __init__(self) -> None:
        self.embodiment: Embodiment = load_robot(self.robot)
        self._entries = _entries_of(self.name)
        self._loaded: dict[str, Task] = {}
        if missing := [name for name in self.rotation if name not in self._entries]:
            raise RuntimeError(
                f"tasks of the suite {self.name} are not installed: {', '.join(missing)}; reinstall the package of the "
                "suite (make setup)"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of all tasks: the rotation, then added ones, sorted by name."""
        return (*self.rotation, *sorted(self._entries.keys() - set(self.rotation)))

    def task(self, name: str) -> Task:
        """The task of that name; ValueError lists the known ones."""
        if name not in self._entries:
            raise ValueError(f"suite {self.name} has no task {name!r}; it has: {', '.join(self.tasks)}")
        if name not in self._loaded:
            self._loaded[name] = _load(name, self._entries[name])
        return self._loaded[name]

    def task_of(self, seed: int) -> str:
        """Name of the task that a seed alone selects."""
        return self.rotation[seed % len(self.rotation)]

    def seed_of(self, number: int, first: int, task: str | None = None) -> int:
        """Seed of scene number `number` (0, 1 …) from seed `first` on, with a task counting only its own scenes.

        A task of the rotation has the seeds that alone select it, so that its scenes are those of the whole suite; any
        other task has every seed.
        """
        if task is None or self.task(task).name not in self.rotation:
            return first + number
        count = len(self.rotation)
        return first + (self.rotation.index(task) - first) % count + number * count

    def scene(self, seed: int, shift: Shift | None = None, task: str | None = None) -> Any:
        """The scene of (task, seed); without a task, of the one that the seed alone selects."""
        return self.task(task or self.task_of(seed)).scene(seed, shift)

    def other_instruction(self, env: WorldEnv, seed: int) -> str:
        """An instruction for another target of the scene, with which a policy that follows it must not succeed."""
        scene = env.world.scene
        return scene.task.other_instruction(scene, seed)

    def portrait(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the robot in one of its validation scenes, as a spectator sees it."""
        world = self.make_world()
        spectator = Spectator(world, *PORTRAIT)
        try:
            world.reset(PORTRAIT_SEED)
            return spectator.image().copy()
        finally:
            spectator.close()
            world.close()

    @cached_property
    def gate(self) -> Gate:
        """The gate for the robot's chunks, the same as in executor_node."""
        return gate_of(self.embodiment)

    def plan(self, chunk: Chunk, observation: Mapping[str, Any]) -> np.ndarray:
        """Convert a chunk to actions (steps, n) of the environment until the next one is due, see `Suite.plan`.

        Decides like executor_node without overlapping chunks: the robot is at rest where it was observed, because the
        simulator is paused during inference.
        """
        return self._actions(self.gate.decide(chunk, self._at_rest(observation, chunk.stamp_ns)).path)

    @abstractmethod
    def _at_rest(self, observation: Mapping[str, Any], now_ns: int) -> RobotState:
        """The robot's state for the gate at an observation."""

    @abstractmethod
    def _actions(self, path: Path) -> np.ndarray:
        """Actions (steps, n) of the environment that execute a path."""

    @abstractmethod
    def make_world(
        self, shift: Shift | None = None, task: str | None = None, embodiment: Embodiment | None = None
    ) -> RobotWorld:
        """Make the world for the scenes of the suite or of one task; embodiment: the robot with another YAML."""

    def _scenes(self, shift: Shift | None, task: str | None) -> Callable[[int], Any]:
        """The map from seeds to scenes for this shift and task; ValueError if the suite does not have them."""
        if shift and shift not in self.shifts:
            offered = ", ".join(self.shifts) or "none"
            raise ValueError(f"suite {self.name} has no shift {shift!r}; it offers: {offered}")
        if task:
            self.task(task)
        return partial(self.scene, shift=shift, task=task)


class ArmSuite(SimulatedSuite):
    """Tasks of a robot with arms: observations have "joints", measured, and "command", all (joints,) [rad | m]."""

    def hold(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The last command: fingers keep pressing what they hold."""
        return observation["command"].astype(float)

    def _at_rest(self, observation: Mapping[str, Any], now_ns: int) -> RobotState:
        measured = observation["joints"].astype(float)
        return RobotState(now_ns, measured, measured)

    def _actions(self, path: Path) -> np.ndarray:
        return path.positions[1:]


def _entries_of(suite: str) -> dict[str, EntryPoint]:
    """Entry points of a suite's tasks by task name; ValueError if two packages offer the same one."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        of_suite, _, name = entry.name.partition(".")
        if of_suite != suite:
            continue
        if name in found:
            raise ValueError(
                f"two packages offer the task {entry.name}: {found[name].value} and {entry.value}; uninstall one"
            )
        found[name] = entry
    return found


def _load(name: str, entry: EntryPoint) -> Task:
    task = entry.load()()
    if not isinstance(task, Task) or task.name != name:
        raise ValueError(
            f"the entry point {entry.name} = {entry.value} is not a task named {name!r}; it must be a subclass of Task "
            "whose name is the part after the dot"
        )
    return task
