"""`qwen-vla collect`: run a suite's scripted expert in parallel and write what it does as a LeRobotDataset v3.0."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich.filesize import decimal
from tqdm import tqdm

from qwen_vla.data.formats.lerobot import DatasetError, Feature, shard_path
from qwen_vla.data.formats.lerobot_writer import Recording, finalize, write_shard
from qwen_vla.output_files import free_bytes, write_json
from qwen_vla.output_paths import Marker, check_folder
from qwen_vla.parallel import parallel_map
from qwen_vla.seeds import FIRST_TRAINING_SEED, require_split
from qwen_vla.suites import Suite, load_suite

if TYPE_CHECKING:
    from qwen_vla.data.robot.intervention import PolicyLead

EPISODES_PER_SHARD = 50
BYTES_PER_EPISODE = 1_000_000  # generous; only to refuse a collection that cannot fit on the disk
COLLECTION = Marker("collection.json", frozenset({"kind", "seed"}), "collect")


@dataclass(frozen=True)
class CollectOptions:
    """What to record: scenes from `seed` on, each of the next seed; failed demonstrations are dropped and counted.

    All are training seeds: no scene that anything is evaluated on is ever trained on.
    """

    suite: str
    out: Path
    episodes: int
    seed: int = FIRST_TRAINING_SEED
    kind: Literal["demonstrations", "snapshots"] = "demonstrations"
    workers: int = os.cpu_count() or 1
    episodes_per_shard: int = EPISODES_PER_SHARD
    takeover_from: Path | None = None  # checkpoint that plays first
    task: str | None = None  # only scenes of this task: the next seeds that are of it

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("workers", 1), ("episodes_per_shard", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        require_split("training", range(self.seed, self.seed + self.episodes), "collect")
        if self.kind not in ("demonstrations", "snapshots"):
            raise ValueError(f"kind must be demonstrations or snapshots, got {self.kind!r}")
        if self.takeover_from and self.kind != "demonstrations":
            raise ValueError("takeover_from goes with demonstrations: no policy plays before a snapshot")

    @property
    def shards(self) -> int:
        return -(-self.episodes // self.episodes_per_shard)

    def scenes(self, shard: int) -> range:
        """Numbers of the scenes that shard number `shard` holds."""
        first = shard * self.episodes_per_shard
        return range(first, min(first + self.episodes_per_shard, self.episodes))


def collect(options: CollectOptions) -> dict:
    """Record and finalize; resumes where an interrupted run with the same options stopped. Returns a summary.

    With takeovers it says how many of the policy's chunks each reason of the gate spoke against, in this run.
    """
    suite = load_suite(options.suite)
    last = suite.seed_of(options.episodes - 1, options.seed, options.task)
    if options.takeover_from:
        from qwen_vla.model.checkpoint_files import check_knows

        check_knows(options.takeover_from, suite.embodiment.name)
    _claim(options)
    info_path = options.out / "meta/info.json"
    missing, refusals = _missing(options), Counter()
    if missing or not info_path.exists():
        info_path.unlink(missing_ok=True)  # it marks a finished data set
        refusals = _record(options, missing)
        extra = {
            **suite.extra_info(),
            "suite": options.suite,
            "kind": options.kind,
            "seeds": [options.seed, last + 1],
        }
        finalize(options.out, options.shards, _features(suite), suite.embodiment.rate_hz, suite.embodiment.name, extra)
    info = json.loads(info_path.read_text())
    summary = {
        "out": str(options.out),
        "asked": options.episodes,
        "episodes": info["total_episodes"],
        "frames": info["total_frames"],
    }
    if options.takeover_from:  # what is missing the policy had done by itself, or the expert could not save
        return summary | {"refusals": dict(refusals.most_common())}
    return summary | {"expert_success_rate": info["total_episodes"] / options.episodes}


def _missing(options: CollectOptions) -> list[int]:
    """Shards that are still to be recorded."""
    return [shard for shard in range(options.shards) if not shard_path(options.out, shard).exists()]


def _record(options: CollectOptions, shards: list[int]) -> Counter[str]:
    """Record some shards; returns how many chunks of a policy that plays first each reason spoke against."""
    left = sum(len(options.scenes(shard)) for shard in shards)
    title, refusals = f"collect {options.suite} {options.kind}", Counter()
    with tqdm(total=options.episodes, initial=options.episodes - left, desc=title, unit="episode") as bar:
        for done in parallel_map(partial(_Recorder, options), _Recorder.record, shards, options.workers):
            refusals += done.refusals
            bar.update(len(options.scenes(done.shard)))
    return refusals


def _claim(options: CollectOptions) -> None:
    """Refuse to mix two collections in one folder: the options of the first run are kept beside the data."""
    wanted = {"suite": options.suite, "kind": options.kind, "seed": options.seed, "episodes": options.episodes}
    if options.episodes_per_shard != EPISODES_PER_SHARD:
        wanted["episodes_per_shard"] = options.episodes_per_shard
    if options.takeover_from:
        wanted["takeover_from"] = str(options.takeover_from)
    if options.task:
        wanted["task"] = options.task
    begun = refuse_other_collections(options.out, wanted)
    left = sum(len(options.scenes(shard)) for shard in _missing(options)) if begun else options.episodes
    free, needed = free_bytes(options.out), left * BYTES_PER_EPISODE
    if free < needed:
        raise DatasetError(
            f"{options.out}: {decimal(free)} free, up to {decimal(needed)} needed for {left} episodes; "
            "make room, or collect fewer"
        )
    write_json(options.out / COLLECTION.file, wanted)


def refuse_other_collections(out: Path, wanted: dict) -> bool:
    """Whether a folder holds this collection; DatasetError when another one, OutputRefused when something else."""
    present = check_folder(out, COLLECTION)
    if present not in (None, wanted):
        raise DatasetError(
            f"{out} holds another collection ({_in_words(present)}; asked for {_in_words(wanted)}); "
            "choose another folder"
        )
    return present is not None


def _features(suite: Suite) -> dict[str, Feature]:
    return {name: Feature(*spec) for name, spec in suite.features().items()}


def _in_words(collection: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in collection.items())


class _Recorded(NamedTuple):
    """A shard that was written, and how many chunks each reason spoke against meanwhile."""

    shard: int
    refusals: Counter[str]


class _Recorder:
    """The simulator of one process."""

    def __init__(self, options: CollectOptions) -> None:
        os.environ["LP_NUM_THREADS"] = "1"  # the software rasteriser would start a thread per core in every process
        self.options = options
        self.suite = load_suite(options.suite)
        self.env: Any = self.suite.make_env(task=options.task)
        self._lead = self._load_lead()

    def record(self, shard: int) -> _Recorded:
        """Write one shard."""
        options, suite = self.options, self.suite
        before = self._refusals()
        episodes = []
        for scene in options.scenes(shard):
            task, frames, success = self._play(suite.seed_of(scene, options.seed, options.task))
            if success:
                episodes.append(Recording(task, frames))
        write_shard(options.out, shard, episodes, _features(suite), suite.embodiment.rate_hz)
        return _Recorded(shard, self._refusals() - before)

    def _refusals(self) -> Counter[str]:
        return Counter(self._lead.refusals) if self._lead else Counter()

    def _play(self, seed: int) -> tuple[str, dict, bool]:
        if self.options.kind == "snapshots":
            return self.suite.snapshot(self.env, seed)
        return self.suite.demonstrate(self.env, seed, lead=partial(self._lead.play, seed) if self._lead else None)

    def _load_lead(self) -> PolicyLead | None:
        """The policy that plays first, if there is to be one; without it PyTorch is not needed."""
        if self.options.takeover_from is None:
            return None
        import torch
        from transformers.utils import logging

        from qwen_vla.data.robot.intervention import PolicyLead

        torch.set_num_threads(1)  # threads of parallel simulators would wait for each other
        logging.disable_progress_bar()  # that of loading would write into the bar of the episodes
        return PolicyLead(self.suite, self.options.takeover_from)
