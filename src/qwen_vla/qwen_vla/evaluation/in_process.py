"""Closed-loop evaluation in process: the simulator waits while the policy thinks. Episodes run in parallel processes."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from embodiment_descriptions import KinematicsError
from tqdm import tqdm

from qwen_vla.evaluation.report import EpisodeRow, summarize
from qwen_vla.suites import Suite, load_suite

MAX_REFUSALS = 5  # in a row, then the episode ends


@dataclass(frozen=True)
class EvaluateOptions:
    """Episode i has seed `seed + i`. shuffle: name another cube of the scene, judge the original one; blind: black images."""

    suite: str
    checkpoint: Path
    episodes: int
    seed: int
    shuffle_instructions: bool = False
    blind: bool = False
    euler_steps: int = 4
    workers: int = os.cpu_count() or 1


def evaluate(options: EvaluateOptions) -> dict:
    """Run all episodes; the summary's rows are in the order of the seeds."""
    refuse_trained_seeds(options.checkpoint, options.seed, options.episodes)
    workers = max(1, min(options.workers, options.episodes))
    seeds = range(options.seed, options.seed + options.episodes)
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (options,)) as pool:
        bar = tqdm(pool.imap(_episode, seeds), total=options.episodes, desc=f"evaluate {options.suite}", unit="episode")
        rows = list(bar)
    conditions = {
        "checkpoint": str(options.checkpoint),
        "shuffle_instructions": options.shuffle_instructions,
        "blind": options.blind,
        "euler_steps": options.euler_steps,
        "over_ros": False,
    }
    return summarize(options.suite, options.seed, rows, **conditions)


def refuse_trained_seeds(checkpoint: Path, seed: int, episodes: int) -> None:
    """ValueError when an episode's scene was in the data that the checkpoint says it was trained on."""
    path = checkpoint / "training.json"
    if not path.exists():
        return
    for source in json.loads(path.read_text())["data"]:
        first, end = source.get("seeds") or (0, 0)
        if seed < end and first < seed + episodes:
            raise ValueError(
                f"seeds {seed}…{seed + episodes - 1} overlap with the training data of {checkpoint} ({first}…{end - 1}); "
                "choose other seeds, e.g. --seed 7000"
            )


_worker: dict = {}


def _start_worker(options: EvaluateOptions) -> None:
    os.environ["LP_NUM_THREADS"] = "1"
    import torch

    from qwen_vla.policy import Policy

    torch.set_num_threads(1)  # episodes run in parallel; on a busy machine two threads wait for each other
    suite = load_suite(options.suite)
    policy = Policy.from_pretrained(options.checkpoint, euler_steps=options.euler_steps)
    _worker.update(options=options, suite=suite, env=suite.make_env(), policy=policy)


def _episode(seed: int) -> EpisodeRow:
    return run_episode(_worker["suite"], _worker["env"], _worker["policy"], seed, _worker["options"])


def run_episode(suite: Suite, env, policy, seed: int, options: EvaluateOptions, on_step=None) -> EpisodeRow:
    """One episode: observe, infer, execute the chunk's execution horizon, until success or the suite's step limit."""
    from qwen_vla.policy import Observation

    observation, info = env.reset(seed=seed)
    instruction = suite.other_instruction(env, seed) if options.shuffle_instructions else info["instruction"]
    latencies, refused, in_a_row, ended = [], 0, 0, "step limit"
    truncated = False
    while not (info["success"] or truncated):
        images = observation["images"]
        if options.blind:
            images = {tag: np.zeros_like(image) for tag, image in images.items()}
        chunk = policy.infer(Observation(images, instruction), seed=seed * 1000 + len(latencies))
        latencies.append(chunk.inference_ms["total"])
        try:
            path = suite.joint_path(chunk.data, observation["joints"].astype(float))
            in_a_row = 0
        except KinematicsError:
            refused, in_a_row = refused + 1, in_a_row + 1
            path = np.repeat(observation["joints"][None].astype(float), chunk.execution_horizon, axis=0)
            if in_a_row >= MAX_REFUSALS:
                ended = "refused too often"
                break
        for joints in path[: chunk.execution_horizon]:
            observation, _, success, truncated, info = env.step(joints)
            if on_step is not None:
                on_step(env, chunk, info)
            if success or truncated:
                break
    if info["success"]:
        ended = "success"
    return EpisodeRow(
        seed=seed,
        instruction=instruction,
        target=info["target"],
        success=bool(info["success"]),
        chunks=len(latencies),
        refused=refused,
        seconds=round(env.steps * env.period, 3),
        distance=float(info["distance"]),
        ended=ended,
        latency_ms_p50=float(np.median(latencies)) if latencies else 0.0,
    )
