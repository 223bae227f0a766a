# SPDX-License-Identifier: Apache-2.0
"""Credit for every decision of an episode: generalized advantage estimation (Schulman et al. 2016)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def advantages(rewards: ArrayLike, values: ArrayLike, gamma: float, decay: float) -> np.ndarray:
    """A_t = Σ_l (γλ)^l δ_(t+l), δ_t = r_t + γ·V_(t+1) − V_t, of one whole episode; the state after its end has value 0.

    rewards, values (T,). The step limit is terminal like success: an unfinished task has failed.
    """
    rewards, values = np.asarray(rewards, float), np.asarray(values, float)
    if rewards.shape != values.shape or rewards.ndim != 1:
        raise ValueError(f"rewards {rewards.shape} and values {values.shape} must be vectors of the same length")
    result, following, after = np.zeros_like(values), 0.0, 0.0
    for t in reversed(range(len(rewards))):
        following = rewards[t] + gamma * after - values[t] + gamma * decay * following
        result[t], after = following, values[t]
    return result


def normalized(advantage: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 over all decisions of an update; all zero if they are all equal."""
    spread = advantage.std()
    return (advantage - advantage.mean()) / spread if spread > 1e-8 else np.zeros_like(advantage)
