"""`qwen-vla collect`: run a suite's scripted expert in parallel and write what it does as a LeRobotDataset v3.0."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from qwen_vla.data.lerobot import DatasetError, Episode, Feature, finalize, shard_path, write_json, write_shard
from qwen_vla.suites import Suite, load_suite

EPISODES_PER_SHARD = 50
FIRST_TRAINING_SEED = 1_000_000  # evaluation uses seeds below it, so no evaluated scene was ever trained on
BYTES_PER_EPISODE = 1_000_000  # generous; only to refuse a collection that cannot fit on the disk


@dataclass(frozen=True)
class CollectOptions:
    """What to record. Scene number i has seed `seed + i`; failed demonstrations are dropped and counted."""

    suite: str
    out: Path
    episodes: int
    seed: int = FIRST_TRAINING_SEED
    kind: Literal["demonstrations", "snapshots"] = "demonstrations"
    workers: int = os.cpu_count() or 1


def collect(options: CollectOptions) -> dict:
    """Record and finalize; resumes where an interrupted run with the same options stopped. Returns a summary."""
    suite = load_suite(options.suite)
    _claim(options)
    shards = -(-options.episodes // EPISODES_PER_SHARD)
    missing = [shard for shard in range(shards) if not shard_path(options.out, shard).exists()]
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers, _start_worker, (options,)) as pool:
        bar = tqdm(total=shards, initial=shards - len(missing), desc=f"collect {options.suite} {options.kind}", unit="shard")
        for _ in pool.imap_unordered(_record_shard, missing):
            bar.update()
        bar.close()
    features = _features(suite)
    seeds = [options.seed, options.seed + options.episodes]
    extra = {**suite.extra_info(), "suite": options.suite, "kind": options.kind, "seeds": seeds}
    finalize(options.out, shards, features, suite.embodiment.rate_hz, suite.embodiment.name, extra)
    info = json.loads((options.out / "meta/info.json").read_text())
    return {
        "out": str(options.out),
        "asked": options.episodes,
        "episodes": info["total_episodes"],
        "frames": info["total_frames"],
        "expert_success_rate": info["total_episodes"] / options.episodes,
    }


def _claim(options: CollectOptions) -> None:
    """Refuse to mix two collections in one folder: the options of the first run are kept beside the data."""
    wanted = {"suite": options.suite, "kind": options.kind, "seed": options.seed, "episodes": options.episodes}
    marker = options.out / "collection.json"
    if marker.exists():
        present = json.loads(marker.read_text())
        if present != wanted:
            raise DatasetError(f"{options.out} holds another collection ({present}, asked for {wanted}); choose another folder")
    elif options.out.exists() and any(options.out.iterdir()):
        raise DatasetError(f"{options.out} is not empty and was not made by collect; choose another folder")
    options.out.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(options.out).free, options.episodes * BYTES_PER_EPISODE
    if free < needed:
        raise DatasetError(f"{options.out}: {free / 1e9:.1f} GB free, up to {needed / 1e9:.1f} GB needed")
    write_json(marker, wanted)


def _features(suite: Suite) -> dict[str, Feature]:
    return {name: Feature(*spec) for name, spec in suite.features().items()}


_worker: dict = {}


def _start_worker(options: CollectOptions) -> None:
    os.environ["LP_NUM_THREADS"] = "1"  # the software rasteriser would start a thread per core in every worker
    suite = load_suite(options.suite)
    _worker.update(options=options, suite=suite, env=suite.make_env())


def _record_shard(shard: int) -> int:
    options, suite, env = _worker["options"], _worker["suite"], _worker["env"]
    record = suite.demonstrate if options.kind == "demonstrations" else suite.snapshot
    first = shard * EPISODES_PER_SHARD
    episodes = []
    for i in range(first, min(first + EPISODES_PER_SHARD, options.episodes)):
        task, frames, success = record(env, options.seed + i)
        if success:
            episodes.append(Episode(task, frames))
    write_shard(options.out, shard, episodes, _features(suite), suite.embodiment.rate_hz)
    return shard
