"""Finding task suites: simulators register them as entry points, so that this library imports no simulator itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

if TYPE_CHECKING:
    import numpy as np

    from embodiment_descriptions import Embodiment
    from qwen_vla_control.chunk import Chunk

GROUP = "qwen_vla.suites"
Shift = Literal["colour", "instance", "position", "background", "instruction", "dynamic"]
SHIFTS: tuple[Shift, ...] = get_args(Shift)


class Env(Protocol):
    """What a suite's gymnasium environment has beyond that class.

    Observations are {"images": {tag: (H, W, 3) uint8}, ...} with what `Suite.plan` needs beside them; of a robot with
    arms "joints" (n,), measured, in the order of `Embodiment.joint_names`. Infos hold
    instruction, task, target, success, distance [m], failure (a category; empty when it succeeded) and metrics
    (figures of the suite by name).

    Attributes:
        steps: control steps since the reset.
        period: duration of one [s].
        render_size: (height, width) of the images; None leaves the cameras off, and images empty, until it is set.
    """

    steps: int
    period: float
    render_size: tuple[int, int] | None

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[dict, dict]: ...
    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]: ...
    def close(self) -> None: ...


# Plays from an observation and its info on, before an expert takes over; returns the last observation and info.
Lead = Callable[[Env, dict, dict], tuple[dict, dict]]


class Suite(Protocol):
    """Tasks of one robot. A scene is (task, seed), the same on every machine.

    A seed alone means a scene of `task_of(seed)`, whatever tasks were added since.

    Attributes:
        tasks: names of the tasks.
        max_steps: control steps after which an episode ends.
        shifts: kinds of scenes, other than those trained on, that it offers.
    """

    name: str
    tasks: Sequence[str]
    embodiment: Embodiment
    max_steps: int
    shifts: Sequence[Shift]

    def make_env(self, cameras: bool = True, shift: Shift | None = None, task: str | None = None) -> Env:
        """An environment; without cameras it costs physics alone. With a task, every seed is a scene of that one."""
        ...

    def task_of(self, seed: int) -> str:
        """Name of the task that a seed alone means."""
        ...

    def seed_of(self, number: int, first: int, task: str | None = None) -> int:
        """Seed of scene number `number` (0, 1 …) from seed `first` on; with a task, of the scenes of that one.

        They are those that their seeds alone mean, as far as seeds alone mean that task. ValueError for an unknown one.
        """
        ...

    def features(self) -> dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]]:
        """Columns of a recording: name -> (dtype, shape, element names)."""
        ...

    def extra_info(self) -> dict:
        """What `info.json` of a recording says beyond the LeRobot format."""
        ...

    def demonstrate(
        self, env: Env, seed: int, varied_start: bool = True, lead: Lead | None = None
    ) -> tuple[str, dict, bool]:
        """The scripted expert in the scene of a seed: sentence, frames by column, success.

        It starts anywhere if `varied_start`; with a `lead`, where that leaves the robot. When there is nothing left
        to be shown, that is no success.
        """
        ...

    def snapshot(self, env: Env, seed: int) -> tuple[str, dict, bool]:
        """One labelled frame of the scene with the robot anywhere, for vision-language pretraining."""
        ...

    def plan(self, chunk: Chunk, observation: Mapping[str, Any]) -> np.ndarray:
        """What the gate before the robot makes of a chunk: actions (N, n) until the next one is due.

        Refused, with every reason, when the robot must not do it: a chunk is executed as a whole or not at all.
        """
        ...

    def hold(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The action (n,) that leaves the robot where it is."""
        ...

    def other_instruction(self, env: Env, seed: int) -> str:
        """A sentence for another target of the same scene: what a listener must not succeed with."""
        ...


def find_suite(name: str) -> EntryPoint:
    """Where the suite registered under `name` is; KeyError lists the known ones, and says what a path is not."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        installed = ", ".join(sorted(found)) or "none (is qwen_vla_sim installed?)"
        raise KeyError(f"{not_simulated(name, 'suite')}; installed: {installed}")
    return found[name]


def not_simulated(name: str, what: str) -> str:
    """Why a name is none of a robot with a simulator: it is no such thing (`what`), or the path of a user's robot."""
    from embodiment_descriptions import is_path

    if not is_path(name):
        return f"unknown {what} {name!r}"
    return (
        f"{name} is a robot of your own, and this needs one with a simulator; yours is started with: ros2 launch "
        f"qwen_vla_ros robot.launch.py embodiment_config:={name}"
    )


def load_suite(name: str) -> Suite:
    """The suite registered under `name`; imports its simulator."""
    return find_suite(name).load()()
