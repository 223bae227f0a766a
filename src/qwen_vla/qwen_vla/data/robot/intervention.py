# SPDX-License-Identifier: Apache-2.0
"""DAgger interventions: a policy drives for a while, then the expert recovers from the policy's mistakes.

A policy trained by imitation reaches states that no demonstration covers, and gets stuck. The expert's actions from
there are the missing data (DAgger, Ross et al. 2011, with whole demonstrations instead of single labels).
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np

from qwen_vla.evaluation.episode import follow, names_of, planned, shown_to
from qwen_vla.suites import Env, Suite
from qwen_vla_control.chunk import Chunk

LONGEST = 0.7  # share of a suite's step limit that the policy drives


class PolicyLead:
    """Runs a policy in a scene for a random number of chunks, all lengths equally likely.

    Attributes:
        refusals: number of its chunks refused by the gate, by reason, in all scenes so far.
    """

    def __init__(self, suite: Suite, checkpoint: Path) -> None:
        from qwen_vla.policies.policy import Policy  # imports torch, which this module's other readers do without

        self._suite = suite
        self.refusals: Counter[str] = Counter()
        self._policy = Policy.from_pretrained(checkpoint, embodiment=suite.embodiment.name)
        self._most = max(1, math.floor(LONGEST * suite.max_steps / self._policy.embodiment.execution_horizon))

    def play(self, seed: int, env: Env, observation: dict, info: dict) -> tuple[dict, dict]:
        """Run from an observation and its info, at most until success; returns the last ones.

        The seed of the scene determines the length and all noise.
        """
        rng = np.random.default_rng([seed, 3])
        in_a_row = 0
        for _ in range(rng.integers(1, self._most + 1)):
            seen = shown_to(self._policy, self._suite, observation, info["instruction"], refusals=in_a_row)
            prediction = self._policy.infer(seen, seed=int(rng.integers(2**31)))
            chunk = Chunk.predicted(prediction, self._suite.embodiment.base_frame)
            path, refusal = planned(self._suite, chunk, observation)
            in_a_row = in_a_row + 1 if refusal else 0
            self.refusals.update(names_of(refusal))
            observation, info, truncated = follow(env, path)
            if info["success"] or truncated:
                break
        return observation, info
