# SPDX-License-Identifier: Apache-2.0
"""Flow matching for action chunks (arXiv 2605.30280 §2.5, eq. 1–2): times, paths, loss and the Euler integrator.

Convention of the paper: τ = 0 is the clean chunk Y₀, τ = 1 is noise Y₁ ~ N(0, I);
Y_τ = (1−τ)·Y₀ + τ·Y₁ and the velocity is v = Y₁ − Y₀. Inference integrates from τ = 1 down to τ = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch


class LossTerms(NamedTuple):
    """A mean as sum and count, so that processes can combine it: Σ total / Σ counted is that of the global batch."""

    total: torch.Tensor
    counted: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """total / counted; 0 if nothing counts."""
        return self.total / self.counted.clamp(min=1)


def sample_tau(
    count: int,
    distribution: str = "beta",
    direction: str = "clean",
    alpha: float = 1.5,
    beta: float = 1.0,
    scale: float = 0.999,
    mean: float = 0.0,
    std: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Flow times [count] in float32.

    ``beta``: with B ~ Beta(alpha, beta), direction ``clean`` gives τ = scale·(1 − B), whose density increases toward
    the clean end as in the paper; ``noise`` is its mirror image τ = 1 − scale·(1 − B), as π0 and GR00T train.
    ``logit_normal``: τ = sigmoid(mean + std·n), n ~ N(0, 1) (the paper's Sigmoid-Normal of the T2A stage);
    ``noise`` mirrors it, too, which only matters if ``mean`` is not 0.
    """
    if distribution == "beta":
        # torch.distributions takes no generator; a Beta variable is a ratio of two Gammas that do.
        first = torch._standard_gamma(torch.full((count,), alpha), generator=generator)
        second = torch._standard_gamma(torch.full((count,), beta), generator=generator)
        tau = scale * (1.0 - first / (first + second))
    elif distribution == "logit_normal":
        tau = torch.sigmoid(mean + std * torch.randn(count, generator=generator))
    else:
        raise ValueError(f"unknown tau distribution {distribution!r}; use 'beta' or 'logit_normal'")
    if direction == "noise":
        tau = 1.0 - tau
    elif direction != "clean":
        raise ValueError(f"unknown tau direction {direction!r}; use 'clean' or 'noise'")
    return tau.to(device=device)


def interpolate(clean: torch.Tensor, noise: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
    """Y_τ on the straight path, eq. 1. ``clean`` and ``noise`` [N, H, K], ``tau`` [N]."""
    tau = tau.view(-1, 1, 1).to(clean.dtype)
    return (1.0 - tau) * clean + tau * noise


def flow_matching_loss(predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> LossTerms:
    """Two-level mean of the squared velocity error, eq. 2.

    First over the valid steps of each active channel, then over the active channels, then over the batch, so that tasks
    with few channels or steps have the same weight as others. All arguments [N, H, K]; the mask is 0 or 1.
    Samples without any active channel do not count: ``counted`` is the number of those that have one.
    """
    mask = mask.to(predicted.dtype)
    # where() rather than a product: a non-finite value under the mask must not leak as NaN.
    squared = torch.where(mask > 0, predicted - target, 0.0).square()
    steps = mask.sum(dim=1)
    per_channel = squared.sum(dim=1) / steps.clamp(min=1.0)
    active = (steps > 0).to(predicted.dtype)
    channels = active.sum(dim=1)
    per_sample = (per_channel * active).sum(dim=1) / channels.clamp(min=1.0)
    counted = (channels > 0).to(predicted.dtype)
    return LossTerms((per_sample * counted).sum(), counted.sum())


def tau_grid(steps: int, device: torch.device | str | None = None) -> torch.Tensor:
    """The ``steps + 1`` times 1 = τ₀ > … > τ_steps = 0 of Euler's method."""
    if steps < 1:
        raise ValueError(f"Euler integration needs at least 1 step, got {steps}")
    return torch.linspace(1.0, 0.0, steps + 1, device=device)


def euler_integrate(
    velocity: Callable[[torch.Tensor, int], torch.Tensor], noise: torch.Tensor, steps: int
) -> torch.Tensor:
    """Integrate ``noise`` from τ = 1 to 0 along ``velocity(y, step)``, where ``step`` indexes ``tau_grid(steps)``."""
    times = tau_grid(steps)
    y = noise
    for step in range(steps):
        y = y + float(times[step + 1] - times[step]) * velocity(y, step)
    return y
