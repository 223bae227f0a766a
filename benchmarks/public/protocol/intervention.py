# SPDX-License-Identifier: Apache-2.0
"""Interventions (DAgger): a policy drives for a while, then the expert goes on from where that has led.

What a policy of imitation lacks are the states in which it gets stuck; no demonstration from a start state has them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.public.protocol.benchmark import Benchmark
from benchmarks.public.protocol.episode import shown_to
from benchmarks.public.protocol.trials import Trial
from benchmarks.public.protocol.world_process import WorldProcess
from embodiment_descriptions import load_robot
from qwen_vla.data.robot.intervention import LONGEST
from qwen_vla.policies import open_policy


class Interventions:
    """Records them with the policy at a reference, as that of a server.

    rows: of each chunk that are executed; 0: as many as the policy says.
    """

    def __init__(self, benchmark: Benchmark, policy: str, rows: int = 0) -> None:
        self._size, self._rows = benchmark.image_size, rows
        self._policy = open_policy(policy, load_robot(str(benchmark.robot)))

    def record(self, world: WorldProcess, trial: Trial) -> dict[str, Any]:
        """What `World.take_over` returns; no success if the policy did not leave the expert anything to do.

        The start state determines for how long it drives, each time equally likely, and all noise. While the hand may
        hold something, it drives on.
        """
        observation, chunks = world.start(trial.task, trial.start), 0
        until, step = np.random.default_rng([trial.start, 3]).uniform(0.0, LONGEST), {"free": False, "elapsed": 0.0}
        while step["elapsed"] < until or not step["free"]:
            prediction = self._policy.infer(shown_to(self._policy, observation), seed=trial.start * 1000 + chunks)
            executed = prediction.data[: self._rows or prediction.execution_horizon]
            step = world.execute(np.asarray(executed, np.float64), False)
            observation, chunks = step["observation"], chunks + 1
            if step["over"]:
                return {"success": False}
        return world.take_over(self._size)
