# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking: a chunk that continues the one that the robot is still executing (arXiv 2506.07339).

While a chunk is computed, the robot executes d more steps of the previous one. The new chunk must agree with these, and
then deviate smoothly from the old plan. Two variants:

* ``guided`` needs no training: every Euler step is guided toward the remainder, weighted along the horizon.
* ``prefix`` inpaints the first d steps, with their own flow time of 0; the model must have been trained for it
  (``QwenVLAModel.action_loss`` with ``prefix_steps``).

Step i of a chunk is due (i + 1)·period after its observation. All counts are in steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from embodiment_descriptions import ActionLayout, delta_from_poses, pose_from_delta

SCHEDULES = ("linear", "exponential", "ones", "zeros")
VARIANTS = ("guided", "prefix")
MAX_GUIDANCE_WEIGHT = 10.0


@dataclass(frozen=True)
class Continuation:
    """The chunk that a new one continues, in model units.

    previous: normalized actions [B, H, K] of the remainder; row i is due with row i of the new chunk; after its end
    the last action is repeated. inference_delay: d, steps that will be executed before the new chunk arrives.
    execution_horizon: s, steps from one chunk to the next; d ≤ s ≤ steps − d. steps: of the task's chunk, None: H.
    left_over: valid rows of ``previous``, None: all. schedule, variant: SCHEDULES, VARIANTS.
    max_guidance_weight: bound of the guidance; at most the number of Euler steps, beyond which one step would
    overshoot its target.
    """

    previous: torch.Tensor
    inference_delay: int
    execution_horizon: int
    steps: int | None = None
    left_over: int | None = None
    schedule: str = "exponential"
    variant: str = "guided"
    max_guidance_weight: float = MAX_GUIDANCE_WEIGHT

    def __post_init__(self) -> None:
        check_bounds(self.inference_delay, self.execution_horizon, self.steps or self.previous.shape[1])
        for name, allowed in (("schedule", SCHEDULES), ("variant", VARIANTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(allowed)}")
        if not self.max_guidance_weight >= 0:
            raise ValueError(f"max_guidance_weight must be at least 0, got {self.max_guidance_weight}")

    def weights(self) -> torch.Tensor:
        """[H] weight of the previous chunk in each step."""
        horizon = self.previous.shape[1]
        steps = self.steps or horizon
        weights = prefix_weights(self.inference_delay, self.execution_horizon, steps, self.schedule, self.left_over)
        return torch.from_numpy(np.pad(weights, (0, horizon - steps))).to(self.previous)

    def prefix(self) -> torch.Tensor:
        """[1, H] mask of the given steps: the first d."""
        return (torch.arange(self.previous.shape[1], device=self.previous.device) < self.inference_delay)[None]


def check_bounds(delay: int, execution_horizon: int, horizon: int) -> None:
    """ValueError unless d ≤ s ≤ H − d: the new chunk must arrive before the next one is due, and extend beyond it."""
    if not 0 <= delay <= execution_horizon <= horizon - delay:
        raise ValueError(
            "real-time chunking needs inference_delay ≤ execution_horizon ≤ horizon − inference_delay, got delay "
            f"{delay}, execution horizon {execution_horizon}, horizon {horizon}; speed up inference (fewer Euler "
            "steps), the control rate lower or the chunk longer, or change execution_horizon"
        )


def prefix_weights(
    delay: int, execution_horizon: int, horizon: int, schedule: str, left_over: int | None = None
) -> np.ndarray:
    """float32 [H]: weight of the previous chunk in step i.

    1 for the ``delay`` steps that are executed anyway; then decaying to 0 at H − s, where the previous chunk, of which
    s steps were executed, ends (or at ``left_over``, if earlier): ``linear``, ``exponential`` (of the linear c:
    c·(eᶜ − 1)/(e − 1)), or constant until there (``ones``). ``zeros`` is plain sampling.
    """
    end = max(delay, min(horizon - execution_horizon, horizon if left_over is None else left_over))
    index = np.arange(horizon)
    linear = np.clip((end - index) / (end - delay + 1), 0.0, 1.0)
    falling = {
        "linear": linear,
        "exponential": linear * np.expm1(linear) / math.expm1(1.0),
        "ones": np.ones(horizon),
        "zeros": np.zeros(horizon),
    }
    if schedule not in falling:
        raise ValueError(f"schedule {schedule!r} is not one of {', '.join(SCHEDULES)}")
    fixed = 0.0 if schedule == "zeros" else 1.0
    return np.where(index < delay, fixed, np.where(index < end, falling[schedule], 0.0)).astype(np.float32)


def guidance_weight(tau: float, limit: float) -> float:
    """((1 − τ)² + τ²) / (τ·(1 − τ)), at most ``limit``: the paper's weight, with its time 1 − τ (τ = 1 is noise)."""
    denominator = tau * (1.0 - tau)
    return limit if denominator <= 0.0 else min(limit, ((1.0 - tau) ** 2 + tau**2) / denominator)


def guided(
    velocity: Callable[[torch.Tensor, int], torch.Tensor],
    times: Sequence[float],
    continuation: Continuation,
    mask: torch.Tensor,
) -> Callable[[torch.Tensor, int], torch.Tensor]:
    """``velocity(y, step)`` with guidance toward the previous chunk where ``mask`` is set; ``times[step]`` is τ.

    The denoised estimate is Ŷ₀ = y − τ·v(y, τ). Its weighted error against the previous chunk is backpropagated to y by
    the vector-Jacobian product of Ŷ₀; τ decreases, so the guidance is subtracted from the velocity.
    """
    weights = continuation.weights()[:, None] * mask
    limit = min(continuation.max_guidance_weight, len(times) - 1)

    def steered(y: torch.Tensor, step: int) -> torch.Tensor:
        tau = float(times[step])
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            plain = velocity(y, step)
            estimate = y - tau * plain
        error = weights * (continuation.previous - estimate.detach())
        (pull,) = torch.autograd.grad(estimate, y, error)
        # The velocity also reads masked entries, so guidance has components there; they must stay 0.
        return plain.detach() - guidance_weight(tau, limit) * torch.where(mask, pull, 0.0)

    return steered


# --- the remainder of a chunk, in physical units --------------------------------------------------------------------


def consumed_steps(stamp_ns: int, now_ns: int, period: float) -> int:
    """Steps of the chunk observed at ``stamp_ns`` before an observation at ``now_ns`` (nearest step)."""
    elapsed = (now_ns - stamp_ns) * 1e-9
    if elapsed < 0:
        raise ValueError(
            f"the observation is {-elapsed:.3f} s older than the chunk it should continue; check the stamps"
        )
    return round(elapsed / period)


def remainder(data: np.ndarray, consumed: int) -> np.ndarray:
    """``data`` [H, C] without its first ``consumed`` rows, padded to H rows with the last action.

    Never with zeros: zero is also an action, often an abrupt one.
    """
    if consumed < 0:
        raise ValueError(f"consumed steps must be at least 0, got {consumed}")
    rows = np.minimum(np.arange(len(data)) + consumed, len(data) - 1)
    return np.asarray(data)[rows]


def reanchored(data: np.ndarray, layout: ActionLayout, motions: Mapping[str, np.ndarray]) -> np.ndarray:
    """End-effector deltas [H, C] of an older chunk, relative to the first frame of a newer one.

    motions: arm's label in the layout ("" for the only one) → T_new⁻¹·T_old (4, 4), the tip pose of the older chunk's
    first frame in the newer one's. Each delta D becomes T_new⁻¹·T_old·D.
    """
    moved = np.array(data, dtype=np.float64)
    for arm in layout.arms:
        if arm not in motions:
            raise ValueError(f"no motion of arm {arm!r} between the two chunks; known: {sorted(motions)}")
        columns = layout.motion(arm)
        poses = pose_from_delta(motions[arm], moved[:, columns])
        moved[:, columns] = delta_from_poses(np.eye(4), poses)
    return moved.astype(np.float32)


def anchor_motion(old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """T_new⁻¹·T_old per arm, from the tip poses (4, 4) at two observations in one fixed frame."""
    return {arm: np.linalg.inv(np.asarray(new[arm], float)) @ np.asarray(old[arm], float) for arm in old if arm in new}


# --- the delay of a chunk -----------------------------------------------------------------------------------------


def delay_steps(estimate: int, consumed: int) -> int:
    """First steps of an arrived chunk to skip: the estimate, but at most the steps executed meanwhile."""
    return max(0, min(estimate, consumed))
