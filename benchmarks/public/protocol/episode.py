# SPDX-License-Identifier: Apache-2.0
"""Runs one episode of a public benchmark: observe, infer, execute part of the chunk, until success or the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from benchmarks.public.protocol.trials import Trial
from qwen_vla.evaluation.episode import Film, Look
from qwen_vla.evaluation.summary import EpisodeRow
from qwen_vla.policies.chunk_policy import ChunkPolicy, Observation


class Executes(Protocol):
    """What an episode needs of a world."""

    def start(self, task: str, start: int) -> dict: ...
    def execute(self, rows: np.ndarray, film: bool) -> dict: ...


def run_episode(
    world: Executes, policy: ChunkPolicy, trial: Trial, rows: int = 0, film: Film | None = None
) -> EpisodeRow:
    """Run a trial; the same arguments give the same episode, and filming does not change it.

    rows: of each chunk that are executed; 0: as many as the policy says.
    """
    observation, latencies = world.start(trial.task, trial.start), []
    step = {"success": False, "over": False, "seconds": 0.0}
    film = film or Film()
    film.looks.append(Look(observation["images"], 0.0))
    while not step["over"]:
        prediction = policy.infer(shown_to(policy, observation), seed=trial.start * 1000 + len(latencies))
        latencies.append(prediction.inference_ms["total"])
        executed = prediction.data[: rows or prediction.execution_horizon]
        step = world.execute(np.asarray(executed, np.float64), film.every is not None)
        observation = step["observation"]
        looks = step["looks"] or [{"seconds": step["seconds"], "images": observation["images"]}]
        film.looks += [Look(look["images"], look["seconds"]) for look in looks]
    return EpisodeRow(
        seed=trial.start,
        instruction=observation["instruction"],
        target=trial.task,
        success=bool(step["success"]),
        chunks=len(latencies),
        refused=0,
        seconds=round(step["seconds"], 3),
        distance=float(step["distance"]),
        ended="success" if step["success"] else "step limit",
        latency_ms_p50=float(np.median(latencies)),
        task=trial.task,
        failure="" if step["success"] else step["failure"],
    )


def shown_to(policy: ChunkPolicy, observation: Mapping[str, Any]) -> Observation:
    """The policy's part of a world's observation."""
    images = {tag: observation["images"][tag] for tag in policy.camera_tags}
    return Observation(images, observation["instruction"], state=observation["state"] if policy.state_names else None)
