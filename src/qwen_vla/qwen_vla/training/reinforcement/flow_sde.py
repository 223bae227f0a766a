# SPDX-License-Identifier: Apache-2.0
r"""Flow-SDE: one Euler step of the flow becomes a Gaussian transition, so that a chunk has a log-probability.

Convention: Y_τ = (1−τ)·Y₀ + τ·Y₁ with Y₁ ~ N(0, I), τ = 1 noise, τ = 0 clean; v(y, τ) = E[Y₁ − Y₀ | Y_τ = y].

**The SDE.** Solving Y_τ and v for the end points gives the model's estimates of them::

    Ŷ₀ = E[Y₀ | y] = y − τ·v          Ŷ₁ = E[Y₁ | y] = y + (1−τ)·v          (1)

and since Y_τ | Y₀ ~ N((1−τ)Y₀, τ²I), the score of the marginal p_τ is ∇log p_τ(y) = −Ŷ₁/τ. Time runs from 1 to 0: with
dt = −dτ > 0 the ODE is dy = −v dt, and adding Langevin dynamics, which preserves every p_τ, gives for any σ(τ)::

    dy = [−v + (σ²/2)·∇log p_τ(y)] dt + σ dW = −[v + σ²/(2τ)·Ŷ₁] dt + σ dW          (2)

the flow-SDE of Flow-GRPO and π_RL, which choose σ² = a²·τ/(1−τ).

**The step.** Euler–Maruyama on (2) diverges at τ = 1 and adds variance in steps as long as ours (4 to 10 in
total). With (1), Euler's step from τ to τ' < τ is y' = (1−τ')·Ŷ₀ + τ'·Ŷ₁; we replace a part of Ŷ₁ by fresh noise
ε ~ N(0, I) of the same total variance::

    y' = (1−τ')·Ŷ₀ + √(τ'² − s²)·Ŷ₁ + s·ε          0 ≤ s ≤ τ'          (3)
    s  = η·τ'·√(1 − (τ'(1−τ) / (τ(1−τ')))²)        0 ≤ η ≤ 1          (4)

If Y₀ is certain (a deterministic policy), Ŷ₁ ~ N(0, I) and (3) keeps the marginals exactly for every
step size; it always keeps their mean. In short steps Δ = τ − τ', (4) gives s² = 2η²·τ/(1−τ)·Δ + O(Δ²) and √(τ'² − s²) =
τ' − s²/(2τ') + …, that is (2) with σ² = 2η²·τ/(1−τ): Flow-GRPO's noise with a = √2·η, finite at τ = 1. At η = 1 (4) is
the standard deviation of Y_τ' given Y_τ and Y₀ in the Markov chain of these marginals. The last step (τ' = 0) has s = 0
and no density: it is never the stochastic one.

**Temperature** T multiplies all noise, Y₁ and ε alike: the marginals are then those of the ODE started from N(0, T²I).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from qwen_vla.model.flow_matching import tau_grid


@dataclass(frozen=True)
class Noise:
    """What a chunk draws: `initial` and `fresh` [N, H, K] from N(0, 1), and the stochastic `step` [N]."""

    initial: torch.Tensor
    fresh: torch.Tensor
    step: torch.Tensor


@dataclass(frozen=True)
class Transition:
    """The stochastic step of N chunks: from `noisy` at τ_step to `following` at τ_(step+1), [N, H, K]; `step` [N]."""

    noisy: torch.Tensor
    following: torch.Tensor
    step: torch.Tensor


def transition(
    noisy: torch.Tensor,
    velocity: torch.Tensor,
    tau: torch.Tensor,
    next_tau: torch.Tensor,
    noise_level: torch.Tensor | float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [N, H, K] and standard deviation [N, 1, 1] of Y_τ' given Y_τ: eq. 3 and 4. η = 0 is Euler's step.

    noisy, velocity [N, H, K]; tau, next_tau, noise_level [N] or scalars with 0 ≤ next_tau < tau ≤ 1.
    """
    tau, next_tau, noise_level = (_column(x, noisy) for x in (tau, next_tau, noise_level))
    clean = noisy - tau * velocity
    noise = noisy + (1 - tau) * velocity
    kept = next_tau * (1 - tau) / (tau * (1 - next_tau))
    std = noise_level * next_tau * (1 - kept**2).clamp(min=0).sqrt()
    return (1 - next_tau) * clean + (next_tau**2 - std**2).clamp(min=0).sqrt() * noise, std


def log_probability(following: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """log N(following; mean, std²) summed over the entries where `mask` [N, H, K] is set: [N], float32."""
    density = torch.distributions.Normal(mean.float(), std.float().expand_as(mean), validate_args=False)
    # where() and not a product: masked entries must not count, not even as NaN.
    return torch.where(mask, density.log_prob(following.float()), 0.0).sum(dim=(1, 2))


def sample(
    velocity: Callable[[torch.Tensor, int], torch.Tensor],
    noise: Noise,
    steps: int,
    noise_level: float,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, Transition]:
    """Integrate noise to clean chunks [N, H, K]; every chunk has its `noise.step` as a transition, the rest as Euler.

    velocity(y, i) gives v at the i-th time of `tau_grid(steps)`. With noise_level 0 this is Euler's method.
    """
    times = tau_grid(steps, noise.initial.device)
    y = temperature * noise.initial
    noisy, following = y, y
    for index in range(steps):
        drawn = noise.step == index
        mean, std = transition(y, velocity(y, index), times[index], times[index + 1], noise_level * drawn)
        after = mean + temperature * std * noise.fresh
        noisy = torch.where(drawn[:, None, None], y, noisy)
        following = torch.where(drawn[:, None, None], after, following)
        y = after
    return y, Transition(noisy, following, noise.step)


def draw_noise(shape: tuple[int, int], steps: int, generators: list[torch.Generator]) -> Noise:
    """The noise of N chunks of `shape` (H, K), each from its own CPU generator. ValueError below two steps."""
    if steps < 2:
        raise ValueError(f"a chunk with {steps} Euler step cannot have a stochastic one; use at least 2")
    initial, fresh, step = [], [], []
    for generator in generators:
        initial.append(torch.randn(shape, generator=generator))
        fresh.append(torch.randn(shape, generator=generator))
        step.append(torch.randint(steps - 1, (), generator=generator))
    return Noise(torch.stack(initial), torch.stack(fresh), torch.stack(step))


def _column(value: torch.Tensor | float, like: torch.Tensor) -> torch.Tensor:
    """A scalar or [N], shaped to multiply [N, H, K]."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1, 1, 1)
