"""Closed-loop evaluation in process: the simulator waits while the policy thinks. Episodes run in parallel."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from qwen_vla.evaluation.report import EpisodeRow, summarize
from qwen_vla.parallel import parallel_map
from qwen_vla.suites import Suite, find_suite, load_suite

MAX_REFUSALS = 5  # in a row, then the episode ends


@dataclass(frozen=True)
class EvaluateOptions:
    """Episode i has seed `seed + i`.

    shuffle_instructions: name another cube of the scene, but judge the original one. blind: show black images.
    chaos: disturb the nodes (over ROS only).
    """

    suite: str
    checkpoint: Path
    episodes: int
    seed: int
    shuffle_instructions: bool = False
    blind: bool = False
    euler_steps: int = 4
    workers: int = os.cpu_count() or 1
    chaos: bool = False

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("seed", 0), ("euler_steps", 1), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


def evaluate(options: EvaluateOptions) -> dict:
    """Run all episodes; the summary's rows are in the order of the seeds."""
    from qwen_vla.policy import check_checkpoint

    if options.chaos:
        raise ValueError("--chaos disturbs the nodes of a running graph; add --over-ros")
    find_suite(options.suite)
    check_checkpoint(options.checkpoint)
    refuse_trained_seeds(options.checkpoint, options.seed, options.episodes)
    seeds = range(options.seed, options.seed + options.episodes)
    rows: list[EpisodeRow] = []
    with tqdm(total=options.episodes, desc=f"evaluate {options.suite}", unit="episode") as bar:
        for row in parallel_map(partial(_Player, options), _Player.play, seeds, options.workers):
            rows.append(row)
            bar.set_postfix(successes=sum(row.success for row in rows), refresh=False)
            bar.update()
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
                f"seeds {seed}…{seed + episodes - 1} overlap with the training data of {checkpoint} "
                f"({first}…{end - 1}); choose other seeds, e.g. --seed 7000"
            )


class _Player:
    """Simulator and policy of one process."""

    def __init__(self, options: EvaluateOptions) -> None:
        os.environ["LP_NUM_THREADS"] = "1"  # the software rasteriser would start a thread per core in every process
        import torch

        from qwen_vla.policy import Policy

        torch.set_num_threads(1)  # threads of parallel episodes would wait for each other
        self.options = options
        self.suite = load_suite(options.suite)
        robot = self.suite.embodiment.name
        self.policy = Policy.from_pretrained(options.checkpoint, euler_steps=options.euler_steps, embodiment=robot)
        self.env = self.suite.make_env()

    def play(self, seed: int) -> EpisodeRow:
        """One episode."""
        return run_episode(self.suite, self.env, self.policy, seed, self.options)


def run_episode(suite: Suite, env: Any, policy: Any, seed: int, options: EvaluateOptions) -> EpisodeRow:
    """One episode: observe, infer, execute the chunk's execution horizon, until success or the suite's step limit."""
    from qwen_vla.policy import Observation

    observation, info = env.reset(seed=seed)
    instruction = suite.other_instruction(env, seed) if options.shuffle_instructions else info["instruction"]
    latencies, refused, in_a_row, truncated = [], 0, 0, False
    while not (info["success"] or truncated):
        images = _black(observation["images"]) if options.blind else observation["images"]
        chunk = policy.infer(Observation(images, instruction), seed=seed * 1000 + len(latencies))
        latencies.append(chunk.inference_ms["total"])
        try:
            path, in_a_row = suite.plan(chunk.data, observation), 0
        except ValueError:  # out of reach or of the workspace: a refused chunk moves nothing, here as on the robot
            refused, in_a_row = refused + 1, in_a_row + 1
            path = np.repeat(suite.hold(observation)[None], chunk.execution_horizon, axis=0)
            if in_a_row == MAX_REFUSALS:
                break
        observation, info, truncated = _execute(env, path[: chunk.execution_horizon])
    unfinished = "refused too often" if in_a_row == MAX_REFUSALS else "step limit"
    return EpisodeRow(
        seed=seed,
        instruction=instruction,
        target=info["target"],
        success=bool(info["success"]),
        chunks=len(latencies),
        refused=refused,
        seconds=round(env.steps * env.period, 3),
        distance=float(info["distance"]),
        ended="success" if info["success"] else unfinished,
        latency_ms_p50=float(np.median(latencies)) if latencies else 0.0,
    )


def _execute(env: Any, path: np.ndarray) -> tuple[dict, dict, bool]:
    """Do actions (N, n) until their end, success or the step limit; last observation, info, truncated."""
    for action in path:
        observation, _, success, truncated, info = env.step(action)
        if success or truncated:
            break
    return observation, info, truncated


def _black(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {tag: np.zeros_like(image) for tag, image in images.items()}
