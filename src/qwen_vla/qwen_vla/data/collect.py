# SPDX-License-Identifier: Apache-2.0
"""Records a collection: runs a suite's scripted expert in parallel and writes a LeRobotDataset v3.0."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.filesize import decimal
from tqdm import tqdm

from qwen_vla.data.collection import Collection
from qwen_vla.data.formats.lerobot import DatasetError, shard_path
from qwen_vla.data.formats.lerobot_meta import Feature
from qwen_vla.data.formats.lerobot_writer import Recording, finalize, write_shard
from qwen_vla.data.robot.range_checks import ranges_of
from qwen_vla.json_files import read_json
from qwen_vla.output_files import free_bytes, resumable, write_json
from qwen_vla.output_paths import Marker, check_folder
from qwen_vla.parallel import Engine, parallel_map, require_here
from qwen_vla.suites import Suite, load_suite

if TYPE_CHECKING:
    from qwen_vla.data.robot.intervention import PolicyLead

BYTES_PER_EPISODE = 1_000_000  # generous; only to refuse a collection that cannot fit on the disk
COLLECTION = Marker("collection.json", frozenset({"kind", "seed"}), "collect")


def collect(collection: Collection, workers: int = 1, engine: Engine = "processes") -> dict:
    """Record and finalize; the same call resumes, and one with more episodes adds them. Returns a summary.

    With a leading policy, it includes the number of its chunks that the gate refused in this run, by reason.
    """
    collection.check()
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    suite = load_suite(collection.suite)
    last = suite.seed_of(collection.episodes - 1, collection.seed, collection.task)
    if collection.takeover_from:
        from qwen_vla.model.checkpoint.files import check_knows

        check_knows(collection.takeover_from, suite.embodiment.name)
    _claim(collection)
    refusals = Counter()
    if not is_complete(collection):
        _info_path(collection).unlink(missing_ok=True)  # it marks a finished dataset
        refusals = _record(collection, workers, engine)
        _finalize(collection, suite, last)
    return _summary(collection, refusals)


def is_complete(collection: Collection) -> bool:
    """Whether the folder contains all of this collection, with nothing left to record."""
    finished = _info_path(collection).exists() and not _missing(collection)
    return finished and COLLECTION.read(collection.out) == collection.content


def _info_path(collection: Collection) -> Path:
    return collection.out / "meta/info.json"


def _missing(collection: Collection) -> list[int]:
    """Shards still to be recorded."""
    return [shard for shard in range(collection.shards) if not shard_path(collection.out, shard).exists()]


def _scenes_left(collection: Collection) -> int:
    return sum(len(collection.scenes(shard)) for shard in _missing(collection))


def _record(collection: Collection, workers: int, engine: Engine) -> Counter[str]:
    """Record the missing shards; returns the number of refused chunks of a leading policy by reason."""
    shards, left = _missing(collection), _scenes_left(collection)
    title, refusals = f"collect {collection.suite} {collection.kind}", Counter()
    bar = tqdm(total=collection.episodes, initial=collection.episodes - left, desc=title, unit="episode")
    with resumable(collection.out), bar:
        for done in parallel_map(partial(_Recorder, collection), _Recorder.record, shards, workers, engine):
            require_here(shard_path(collection.out, done.shard))
            refusals += done.refusals
            bar.update(len(collection.scenes(done.shard)))
    return refusals


def _finalize(collection: Collection, suite: Suite, last: int) -> None:
    """Turn the shards into a dataset; `last` is the seed of its last scene."""
    robot, seeds = suite.embodiment, [collection.seed, last + 1]
    extra = suite.extra_info() | {"suite": collection.suite, "kind": collection.kind, "seeds": seeds}
    finalize(collection.out, collection.shards, _features(suite), robot.rate_hz, robot.name, extra)


def _summary(collection: Collection, refusals: Counter[str]) -> dict:
    info = read_json(_info_path(collection), remedy="remove it, and run the same command again")
    summary = {
        "out": str(collection.out),
        "asked": collection.episodes,
        "episodes": info["total_episodes"],
        "frames": info["total_frames"],
    }
    if collection.takeover_from:  # the policy succeeded alone, or the expert could not recover
        return summary | {"refusals": dict(refusals.most_common())}
    return summary | {"expert_success_rate": info["total_episodes"] / collection.episodes}


def _claim(collection: Collection) -> None:
    """Refuse to mix two collections in one folder: a file beside the data describes the first."""
    begun = refuse_other_collections(collection.out, collection.content, collection.continues)
    left = _scenes_left(collection) if begun else collection.episodes
    free, needed = free_bytes(collection.out), left * BYTES_PER_EPISODE
    if free < needed:
        raise DatasetError(
            f"{collection.out}: {decimal(free)} free, up to {decimal(needed)} needed for {left} episodes; "
            "free some space, or collect fewer"
        )
    write_json(collection.out / COLLECTION.file, collection.content)


def refuse_other_collections(out: Path, wanted: dict, continues: Callable[[dict], bool]) -> bool:
    """Whether a folder contains a collection that the wanted one continues.

    Raises:
        DatasetError: it contains another one.
        OutputRefused: it contains something else.
    """
    present = check_folder(out, COLLECTION)
    if present is not None and not continues(present):
        raise DatasetError(
            f"{out} contains another collection ({_as_text(present)}; asked for {_as_text(wanted)}); "
            "choose another folder"
        )
    return present is not None


def _features(suite: Suite) -> dict[str, Feature]:
    return {name: Feature(*spec) for name, spec in suite.features().items()}


def _as_text(collection: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in collection.items())


class _Recorded(NamedTuple):
    """A written shard, and the number of chunks refused in it by reason."""

    shard: int
    refusals: Counter[str]


class _Recorder:
    """The simulator of one process."""

    def __init__(self, collection: Collection) -> None:
        os.environ["LP_NUM_THREADS"] = "1"  # the software rasterizer would start a thread per core in every process
        self.collection = collection
        self.suite = load_suite(collection.suite)
        self.env: Any = self.suite.make_env(task=collection.task)
        self._lead = self._load_lead()

    def record(self, shard: int) -> _Recorded:
        """Write one shard."""
        collection, suite = self.collection, self.suite
        before = self._refusals()
        episodes = []
        for scene in collection.scenes(shard):
            task, frames, success = self._play(suite.seed_of(scene, collection.seed, collection.task))
            if success:
                self._check(scene, frames)
                episodes.append(Recording(task, frames))
        write_shard(collection.out, shard, episodes, _features(suite), suite.embodiment.rate_hz)
        return _Recorded(shard, self._refusals() - before)

    def _check(self, scene: int, frames: dict) -> None:
        """DatasetError if a demonstration has positions that training refuses."""
        robot = self.suite.embodiment
        for name, feature in _features(self.suite).items():
            for row, why in ranges_of(robot, feature.names).rows_outside(np.asarray(frames[name]), name).items():
                raise DatasetError(f"scene {scene}, row {row}: {why}")

    def _refusals(self) -> Counter[str]:
        return Counter(self._lead.refusals) if self._lead else Counter()

    def _play(self, seed: int) -> tuple[str, dict, bool]:
        if self.collection.kind == "snapshots":
            return self.suite.snapshot(self.env, seed)
        return self.suite.demonstrate(self.env, seed, lead=partial(self._lead.play, seed) if self._lead else None)

    def _load_lead(self) -> PolicyLead | None:
        """The leading policy, if there is one; otherwise PyTorch is not needed."""
        if self.collection.takeover_from is None:
            return None
        import torch
        from transformers.utils import logging

        from qwen_vla.data.robot.intervention import PolicyLead

        torch.set_num_threads(1)  # threads of parallel simulators would wait for each other
        logging.disable_progress_bar()  # that of loading would overwrite that of the episodes
        return PolicyLead(self.suite, self.collection.takeover_from)
