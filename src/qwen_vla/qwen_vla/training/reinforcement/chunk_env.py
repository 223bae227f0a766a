# SPDX-License-Identifier: Apache-2.0
"""A task suite as a gymnasium environment whose action is a whole chunk: a step is one decision of the policy.

Imports neither PyTorch nor the model: it runs in worker processes.
"""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv

from qwen_vla.evaluation.episode import MAX_REFUSALS, follow, names_of, planned
from qwen_vla.parallel import Engine
from qwen_vla.parallel.processes import start_worker
from qwen_vla.suites import Suite, load_suite
from qwen_vla_control.chunk import Chunk


class ChunkEnv(gymnasium.Env):
    """Observations are the suite's; an action is a chunk (H, C) in physical units; `executed` rows are executed.

    Reward 1 and termination if the task succeeds within the chunk. A refused chunk moves nothing, takes its full
    duration and earns 0; MAX_REFUSALS in a row end the episode, as in evaluation. A chunk of NaN is a no-op: no time
    passes (for finished environments of a vector). Info: `instruction` at a reset; after a step `refused`, and
    `reasons`, the gate's reason codes, separated by spaces.
    """

    def __init__(self, suite: Suite, chunk_shape: tuple[int, int], executed: int) -> None:
        self.suite, self.executed = suite, executed
        self.env = suite.make_env()
        self.observation_space = self.env.observation_space
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, chunk_shape, np.float32)
        self._refusals = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start the suite's scene of `seed`."""
        self._refusals = 0
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, {"instruction": info["instruction"]}

    def step(self, action: np.ndarray):
        if np.isnan(action).all():
            return self._observation, 0.0, False, False, {"refused": False, "reasons": ""}
        chunk = Chunk.of_rows(self.suite.embodiment, action, self.executed)
        path, refusal = planned(self.suite, chunk, self._observation)
        self._refusals = self._refusals + 1 if refusal else 0
        success, truncated = self._follow(path)
        gave_up = self._refusals == MAX_REFUSALS
        info = {"refused": refusal is not None, "reasons": " ".join(names_of(refusal))}
        return self._observation, float(success), success, truncated or gave_up, info

    def close(self) -> None:
        self.env.close()

    def _follow(self, path: np.ndarray) -> tuple[bool, bool]:
        """Execute actions (N, n) until success or the step limit."""
        observation, info, truncated = follow(self.env, path)
        # An episode that ends within a chunk keeps its last images: no decision uses them.
        images = observation["images"] or self._observation["images"]
        self._observation = {**observation, "images": images}
        return bool(info["success"]), bool(truncated)


def parallel_envs(
    suite: str,
    count: int,
    workers: int,
    chunk_shape: tuple[int, int],
    executed: int,
    engine: Engine = "processes",
) -> VectorEnv:
    """`count` environments of the suite, each in its own process, of which `workers` compute at a time here."""
    make = partial(_make, suite, chunk_shape, executed)
    if engine == "ray":
        from qwen_vla.training.reinforcement.cluster_envs import ClusterVectorEnv

        return ClusterVectorEnv(make, count)
    return AsyncVectorEnv(
        [make] * count,
        context="spawn",
        autoreset_mode=AutoresetMode.DISABLED,
        max_concurrency=min(workers, count),
    )


def _make(suite: str, chunk_shape: tuple[int, int], executed: int) -> ChunkEnv:
    os.environ["LP_NUM_THREADS"] = "1"  # the software rasterizer would start a thread per core in every process
    if multiprocessing.parent_process():
        start_worker()
    return ChunkEnv(load_suite(suite), chunk_shape, executed)
