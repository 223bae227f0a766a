"""Credit for every decision of an episode: generalised advantage estimation (Schulman et al. 2016)."""

from __future__ import annotations

import numpy as np


def advantages(rewards: np.ndarray, values: np.ndarray, gamma: float, decay: float) -> np.ndarray:
    """A_t = Σ_l (γλ)^l δ_(t+l), δ_t = r_t + γ·V_(t+1) − V_t, of one whole episode; the state after its end is worth 0.

    rewards, values (T,). The step limit ends an episode like a success does: what is not done by then has failed.
    """
    rewards, values = np.asarray(rewards, float), np.asarray(values, float)
    if rewards.shape != values.shape or rewards.ndim != 1:
        raise ValueError(f"rewards {rewards.shape} and values {values.shape} must be vectors of one length")
    result, following, after = np.zeros_like(values), 0.0, 0.0
    for t in reversed(range(len(rewards))):
        following = rewards[t] + gamma * after - values[t] + gamma * decay * following
        result[t], after = following, values[t]
    return result


def normalized(advantage: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 over all decisions of an update; all zero when they are all equal."""
    spread = advantage.std()
    return (advantage - advantage.mean()) / spread if spread > 1e-8 else np.zeros_like(advantage)
