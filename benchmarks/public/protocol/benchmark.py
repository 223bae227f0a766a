# SPDX-License-Identifier: Apache-2.0
"""What distinguishes one public benchmark from another: tasks, start states, groups, robot and simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from benchmarks.public.protocol.environment import Environment
from benchmarks.public.protocol.trials import (
    FIRST_DEMONSTRATION,
    FIRST_EXPERT,
    FIRST_INTERVENTION,
    FIRST_SNAPSHOT,
    STATES_PER_TASK,
    Trial,
)


@dataclass(frozen=True)
class Benchmark:
    """A public benchmark.

    Attributes:
        name: of its folder here, its environment and its results.
        protocol: the official protocol, in a sentence; it is printed with every result.
        robot: embodiment YAML.
        module: runs its `World`.
        environment: in which `module` runs.
        groups: tasks by group; the score is the mean of the groups' rates.
        episodes: trials of a task in the official protocol.
        columns: of a demonstration, besides images: names of the elements of each.
        image_size: height and width of the images of demonstrations [px].
        few_tasks: a selection of all groups, for a shorter measurement.
        published: figures of others under this protocol [%].
        demonstrated: tasks that the scripted expert can do; empty: all.
        annotated: phrases for the objects of all tasks, if demonstrations have the columns of `annotations` that tell
            where object, destination and tip are in the image.
    """

    name: str
    protocol: str
    robot: Path
    module: str
    environment: Environment
    groups: Mapping[str, Sequence[str]]
    episodes: int
    columns: Mapping[str, Sequence[str]]
    image_size: tuple[int, int]
    few_tasks: Sequence[str] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    demonstrated: Sequence[str] = ()
    annotated: Sequence[str] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(task for tasks in self.groups.values() for task in tasks)

    def selected(self, names: Sequence[str]) -> tuple[str, ...]:
        """The named tasks, or groups, in the benchmark's order; all without names. ValueError for an unknown name."""
        known = {**{task: (task,) for task in self.tasks}, **self.groups, "few": self.few_tasks, "all": self.tasks}
        if unknown := [name for name in names if name not in known]:
            close = get_close_matches(unknown[0], known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
            raise ValueError(f"{self.name} has no task or group {unknown[0]!r}; {hint}")
        wanted = {task for name in names or ("all",) for task in known[name]}
        return tuple(task for task in self.tasks if task in wanted)

    def demonstrable(self, names: Sequence[str]) -> tuple[str, ...]:
        """The same of the tasks that the scripted expert can do; ValueError for one that it cannot."""
        able = self.demonstrated or self.tasks
        chosen = self.selected(names or able)
        if beyond := [task for task in chosen if task not in able]:
            raise ValueError(f"{self.name}'s scripted expert cannot do {beyond[0]!r}; it can do {', '.join(able)}")
        return chosen

    def trials(self, tasks: Sequence[str], episodes: int) -> list[Trial]:
        """The first `episodes` trials of each task; ValueError beyond the states that a task has."""
        return self._states(tasks, episodes, 0)

    def expert_trials(self, tasks: Sequence[str], episodes: int) -> list[Trial]:
        """As many on start states that are neither the protocol's nor those of demonstrations."""
        return self._states(tasks, episodes, FIRST_EXPERT)

    def demonstrations(self, tasks: Sequence[str], episodes: int) -> list[Trial]:
        """As many on start states for training."""
        return self._states(tasks, episodes, FIRST_DEMONSTRATION)

    def interventions(self, tasks: Sequence[str], episodes: int) -> list[Trial]:
        """As many on other start states for training, in which a policy drives first."""
        return self._states(tasks, episodes, FIRST_INTERVENTION)

    def snapshots(self, tasks: Sequence[str], episodes: int) -> list[Trial]:
        """As many on other start states for training, of which only an image is taken; ValueError without labels."""
        if not self.annotated:
            raise ValueError(f"{self.name} has no labels for its images, so that snapshots would teach nothing")
        return self._states(tasks, episodes, FIRST_SNAPSHOT)

    def _states(self, tasks: Sequence[str], episodes: int, first: int) -> list[Trial]:
        if not 1 <= episodes <= STATES_PER_TASK:
            raise ValueError(f"episodes of a task must be 1 to {STATES_PER_TASK}, got {episodes}")
        number = {task: place for place, task in enumerate(self.tasks)}
        return [Trial(t, first + STATES_PER_TASK * number[t] + i) for t in tasks for i in range(episodes)]
