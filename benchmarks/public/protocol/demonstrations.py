# SPDX-License-Identifier: Apache-2.0
"""Records a benchmark's scripted expert, or snapshots, as a LeRobotDataset v3.0, and measures the expert."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks.public.protocol.benchmark import Benchmark
from benchmarks.public.protocol.intervention import Interventions
from benchmarks.public.protocol.served import LOOPBACK, served
from benchmarks.public.protocol.trials import Trial
from benchmarks.public.protocol.world_process import WorldProcess
from embodiment_descriptions import Embodiment, load_robot
from qwen_vla.data.collection import Kind
from qwen_vla.data.formats.lerobot import DatasetError, shard_path
from qwen_vla.data.formats.lerobot_meta import Feature
from qwen_vla.data.formats.lerobot_writer import Recording, finalize, write_shard
from qwen_vla.evaluation.summary import success_of
from qwen_vla.output_files import resumable, write_json
from qwen_vla.output_paths import Marker, check_folder
from qwen_vla.parallel import Engine, parallel_map, require_here
from qwen_vla.parallel.cluster import own_address

CONTENT = Marker("demonstrations.json", frozenset({"benchmark", "per_task"}), "benchmarks/public")
PER_SHARD = {"demonstrations": 10, "snapshots": 100}  # attempts: what an interruption may lose
POINTS = ("object", "destination", "tip")
ANNOTATIONS = {  # besides the points; see docs/reference/data_formats.md
    "annotation.objects": Feature("int64", (len(POINTS) - 1,)),
    **{f"annotation.{name}": Feature("int64", (1,)) for name in ("object", "goal", "task", "fresh")},
}


@dataclass(frozen=True)
class Collection:
    """Demonstrations or snapshots of some tasks, `per_task` attempts each, of which the successful ones are kept.

    takeover_from: the checkpoint that drives first, if only the expert's interventions are recorded; or another policy.
    rows: of each of its chunks that are executed; 0: as many as the policy says.
    """

    benchmark: Benchmark
    tasks: Sequence[str]
    per_task: int
    out: Path
    kind: Kind = "demonstrations"
    takeover_from: str = ""
    rows: int = 0

    @property
    def content(self) -> dict[str, Any]:
        """What tells it from another collection."""
        return {
            "benchmark": self.benchmark.name,
            "tasks": list(self.tasks),
            "per_task": self.per_task,
            "kind": self.kind,
            "image_size": list(self.benchmark.image_size),
            **({"takeover_from": self.takeover_from} if self.takeover_from else {}),
            **({"executed_rows": self.rows} if self.rows else {}),
        }

    def continues(self, present: Mapping[str, Any]) -> bool:
        """Whether the shards of a collection, by its content, are the first of this one; cut ones cannot grow."""
        same = {**present, "per_task": self.per_task} == self.content
        attempts = present["per_task"]
        whole = attempts % PER_SHARD[self.kind] == 0
        return same and (attempts == self.per_task or (attempts < self.per_task and whole))

    @property
    def _states(self) -> Callable[[Sequence[str], int], list[Trial]]:
        """What selects the start states."""
        if self.kind == "snapshots":
            return self.benchmark.snapshots
        return self.benchmark.interventions if self.takeover_from else self.benchmark.demonstrations

    @property
    def shards(self) -> list[list[Trial]]:
        """The attempts of every shard, interleaved so that any first part has all tasks."""
        trials = self._states(self.tasks, self.per_task)
        by_task = [[trial for trial in trials if trial.task == task] for task in self.tasks]
        size = PER_SHARD[self.kind]
        blocks = range(0, self.per_task, size)
        return [attempts[first : first + size] for first in blocks for attempts in by_task]


def collect(collection: Collection, workers: int, engine: Engine = "processes") -> dict[str, Any]:
    """Record what is missing and finalize; the same call resumes, and one with more attempts of each task adds them.

    Raises:
        DatasetError: the folder has another collection.
        OutputRefused: it has something else.
    """
    if collection.takeover_from and collection.kind == "snapshots":
        raise ValueError("snapshots are made without a policy; leave out --takeover-from, or --kind snapshots")
    if collection.rows and not collection.takeover_from:
        raise ValueError("--rows are those of a policy that drives first; name it with --takeover-from")
    present = check_folder(collection.out, CONTENT)
    if present is not None and not collection.continues(present):
        raise DatasetError(f"{collection.out} contains other demonstrations ({present}); choose another folder")
    shards = collection.shards
    missing = [number for number in range(len(shards)) if not shard_path(collection.out, number).exists()]
    bar = tqdm(total=len(shards), initial=len(shards) - len(missing), desc=collection.benchmark.name)
    with _driving(collection, workers if missing else 0, engine) as policy, resumable(collection.out), bar:
        write_json(collection.out / CONTENT.file, collection.content)  # after a wrong policy was refused
        for shard in parallel_map(partial(_Recorder, collection, policy), _Recorder.record, missing, workers, engine):
            require_here(shard_path(collection.out, shard))
            bar.update()
    return _finalize(collection)


def measure_expert(
    benchmark: Benchmark, tasks: Sequence[str], episodes: int, workers: int, engine: Engine = "processes"
) -> dict[str, Any]:
    """Rates of the expert, by task, on start states that are neither the protocol's nor demonstrated."""
    trials = benchmark.expert_trials(tasks, episodes)
    attempts = parallel_map(partial(_Expert, benchmark), _Expert.attempt, trials, workers, engine)
    found = list(tqdm(attempts, total=len(trials), desc=f"{benchmark.name} expert", unit="episode"))
    by_task = {task: success_of([attempt for attempt in found if attempt.task == task]) for task in tasks}
    return {
        "benchmark": benchmark.name,
        "starts": [trials[0].start, trials[-1].start],
        **success_of(found),
        "tasks": by_task,
    }


def _driving(collection: Collection, clients: int, engine: Engine) -> AbstractContextManager[str]:
    """Reference of the policy that drives first, served while the context lasts; empty without one, or clients."""
    if not collection.takeover_from or not clients:
        return nullcontext("")
    host = own_address() if engine == "ray" else LOOPBACK
    return served(collection.takeover_from, collection.benchmark.robot, clients, host=host)


class Attempt(NamedTuple):
    """An attempt of the expert."""

    task: str
    start: int
    success: bool


class _Expert:
    """The simulator of one worker."""

    def __init__(self, benchmark: Benchmark) -> None:
        self._world = WorldProcess(benchmark.environment.python, benchmark.module)

    def attempt(self, trial: Trial) -> Attempt:
        """One attempt, without images."""
        return Attempt(trial.task, trial.start, self._world.demonstrate(trial.task, trial.start, None)["success"])


class _Recorder:
    """The simulator of one worker."""

    def __init__(self, collection: Collection, policy: str) -> None:
        benchmark = collection.benchmark
        self._collection = collection
        self._interventions = Interventions(benchmark, policy, collection.rows) if policy else None
        self._world = WorldProcess(benchmark.environment.python, benchmark.module)

    def record(self, shard: int) -> int:
        """Write one shard; returns its number."""
        benchmark, episodes = self._collection.benchmark, []
        for trial in self._collection.shards[shard]:
            shown = self._shown(trial)
            if shown["success"]:
                episodes.append(Recording(shown["instruction"], shown["frames"]))
        write_shard(self._collection.out, shard, episodes, features(benchmark), _robot(benchmark).rate_hz)
        return shard

    def _shown(self, trial: Trial) -> dict[str, Any]:
        if self._interventions:
            return self._interventions.record(self._world, trial)
        play = self._world.snapshot if self._collection.kind == "snapshots" else self._world.demonstrate
        return play(trial.task, trial.start, self._collection.benchmark.image_size)


def features(benchmark: Benchmark) -> dict[str, Feature]:
    """The columns of a recording: the robot's cameras as video, and the benchmark's own."""
    shape, axes = (*benchmark.image_size, 3), ("height", "width", "channels")
    cameras = {f"observation.images.{c.tag}": Feature("video", shape, axes) for c in _robot(benchmark).cameras}
    own = {name: Feature("float32", (len(names),), tuple(names)) for name, names in benchmark.columns.items()}
    points = {"annotation.points": Feature("float32", (len(cameras) * len(POINTS) * 3,))}
    return cameras | own | (points | ANNOTATIONS if benchmark.annotated else {})


def _finalize(collection: Collection) -> dict[str, Any]:
    """Turn the shards into a dataset; the start states go into the checkpoint's record of its training."""
    benchmark, trials = collection.benchmark, [trial for shard in collection.shards for trial in shard]
    starts = [trial.start for trial in trials]
    extra = {"suite": benchmark.name, "kind": collection.kind, "seeds": [min(starts), max(starts) + 1]}
    robot = _robot(benchmark)
    if benchmark.annotated:
        tags = [camera.tag for camera in robot.cameras]
        about = {"names": list(benchmark.annotated), "cameras": tags, "points": list(POINTS)}
        extra |= about | {"tasks": list(benchmark.tasks), "embodiment": robot.name}
    finalize(collection.out, len(collection.shards), features(benchmark), robot.rate_hz, robot.name, extra)
    info = json.loads((collection.out / "meta/info.json").read_text())
    kept = {"episodes": info["total_episodes"], "frames": info["total_frames"]}
    summary = {"out": str(collection.out), "attempts": len(trials), **kept}
    if collection.takeover_from:  # the policy succeeded alone, or the expert could not recover
        return summary
    return summary | {"expert_success_rate": kept["episodes"] / len(trials)}


def _robot(benchmark: Benchmark) -> Embodiment:
    return load_robot(str(benchmark.robot))
