# SPDX-License-Identifier: Apache-2.0
"""Finds task suites: simulators register them as entry points, so that this library imports no simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

if TYPE_CHECKING:
    import gymnasium
    import numpy as np

    from embodiment_descriptions import Embodiment
    from qwen_vla_control.chunk import Chunk

GROUP = "qwen_vla.suites"
Shift = Literal["colour", "instance", "position", "background", "instruction", "dynamic"]
SHIFTS: tuple[Shift, ...] = get_args(Shift)


class Spectator(Protocol):
    """Looks at the robot of an environment from beside it, with light and shadows that no camera of the robot sees."""

    def image(self) -> np.ndarray:
        """(height, width, 3) uint8 RGB of the environment as it is."""
        ...

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, 2), column and row, of points (N, 3) in the world [m]; NaN for those behind it."""
        ...

    def close(self) -> None:
        """Free what it renders with."""
        ...


class Env(Protocol):
    """What a suite's gymnasium environment has beyond gymnasium.Env.

    Observations are {"images": {tag: (H, W, 3) uint8}, ...} with what else `Suite.plan` needs; for a robot with
    arms "joints" (n,), measured, in the order of `Embodiment.joint_names`. Infos hold
    instruction, task, target, success, distance [m], failure (a category; empty when it succeeded) and metrics
    (figures of the suite by name).

    Attributes:
        steps: control steps since the reset.
        period: duration of a control step [s].
        render_size: (height, width) of the images; while None, the cameras are off and images empty.
    """

    steps: int
    period: float
    render_size: tuple[int, int] | None

    @property
    def observation_space(self) -> gymnasium.Space: ...
    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[dict, dict]: ...
    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]: ...
    def close(self) -> None: ...

    def show(self, positions: np.ndarray) -> None:
        """Put everything where the simulator's `positions` (n,) say, for pictures of an episode recorded elsewhere."""
        ...

    def spectator(self, height: int, width: int) -> Spectator:
        """A spectator of this environment, whose images have that size [px]; close it before the environment."""
        ...


# Runs from an observation and its info until an expert takes over; returns the last observation and info.
Lead = Callable[[Env, dict, dict], tuple[dict, dict]]


class Suite(Protocol):
    """Tasks of one robot. A scene is (task, seed), the same on every machine.

    A seed alone selects a scene of `task_of(seed)`, whatever tasks have been added.

    Attributes:
        tasks: names of the tasks.
        max_steps: control steps until an episode is truncated.
        shifts: kinds of scenes that it has besides those of training.
        reference_path: in words, the path with which that of an episode is compared in the suite's metrics; None: paths
            are not compared.
    """

    name: str
    tasks: Sequence[str]
    embodiment: Embodiment
    max_steps: int
    shifts: Sequence[Shift]
    reference_path: str | None

    def make_env(self, cameras: bool = True, shift: Shift | None = None, task: str | None = None) -> Env:
        """An environment; without cameras it only simulates physics. With a task, every seed is a scene of it."""
        ...

    def task_of(self, seed: int) -> str:
        """Name of the task that a seed alone selects."""
        ...

    def seed_of(self, number: int, first: int, task: str | None = None) -> int:
        """Seed of scene number `number` (0, 1 …) from seed `first` on; with a task, of the scenes of that task.

        If seeds alone select that task, only those seeds are used. ValueError for an unknown task.
        """
        ...

    def features(self) -> dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]]:
        """Columns of a recording: name -> (dtype, shape, element names)."""
        ...

    def extra_info(self) -> dict:
        """Keys of a recording's `info.json` beyond the LeRobot format."""
        ...

    def demonstrate(
        self, env: Env, seed: int, varied_start: bool = True, lead: Lead | None = None
    ) -> tuple[str, dict, bool]:
        """The scripted expert in the scene of a seed: instruction, frames by column, success.

        It starts anywhere if `varied_start`; with a `lead`, where that leaves the robot. If there is nothing left to
        demonstrate, that is no success.
        """
        ...

    def snapshot(self, env: Env, seed: int) -> tuple[str, dict, bool]:
        """One labeled frame of the scene with the robot anywhere, for vision-language pretraining."""
        ...

    def plan(self, chunk: Chunk, observation: Mapping[str, Any]) -> np.ndarray:
        """The gate's plan for a chunk: actions (N, n) until the next chunk is due.

        Raises Refused, with every reason, if the robot must not execute it: a chunk is executed whole or not at all.
        """
        ...

    def hold(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The action (n,) that holds the robot's position."""
        ...

    def portrait(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the robot in one of its validation scenes, as somebody beside it would see it."""
        ...

    def other_instruction(self, env: Env, seed: int) -> str:
        """An instruction for another target of the scene, with which a policy that follows it must not succeed."""
        ...


def find_suite(name: str) -> EntryPoint:
    """The entry point of the suite `name`; KeyError lists the known ones, and explains why a path is none."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        installed = ", ".join(sorted(found)) or "none (is qwen_vla_sim installed?)"
        raise KeyError(f"{not_simulated(name, 'suite')}; installed: {installed}")
    return found[name]


def not_simulated(name: str, what: str) -> str:
    """Why a name is not that of a simulated robot: it is no known `what`, or the path of a user's robot."""
    from embodiment_descriptions import is_path

    if not is_path(name):
        return f"unknown {what} {name!r}"
    return (
        f"{name} is a robot of your own, and this requires a robot with a simulator; start yours with: ros2 launch "
        f"qwen_vla_ros robot.launch.py embodiment_config:={name}"
    )


def load_suite(name: str) -> Suite:
    """The suite `name`; imports its simulator."""
    return find_suite(name).load()()


def portrait(name: str) -> np.ndarray | None:
    """A picture of the robot of a suite, see `Suite.portrait`; None if its simulator is not installed."""
    return load_suite(name).portrait() if name in entry_points(group=GROUP).names else None
