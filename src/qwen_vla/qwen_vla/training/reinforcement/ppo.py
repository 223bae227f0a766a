"""Proximal policy optimization (Schulman et al. 2017) over chunks: one decision is one action."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch

from qwen_vla.model.modeling import Encoding
from qwen_vla.training.reinforcement.actor import Actor
from qwen_vla.training.reinforcement.advantages import advantages, normalized
from qwen_vla.training.reinforcement.flow_sde import Transition
from qwen_vla.training.reinforcement.recipe import PPO
from qwen_vla.training.reinforcement.rollout import Episode
from qwen_vla.training.reinforcement.value_head import ValueHead


@dataclass
class Minibatch:
    """Decisions that are always batched together, so that their first ratio is exactly 1.

    encoding: kept if the backbone is frozen. old_log, old_value: under the weights of the roll-out.
    """

    seen: list
    transition: Transition
    encoding: Encoding | None
    old_log: torch.Tensor
    old_value: torch.Tensor
    advantage: torch.Tensor | None = None
    target: torch.Tensor | None = None


def policy_loss(ratio: torch.Tensor, advantage: torch.Tensor, clip: float) -> torch.Tensor:
    """−E[min(r·A, clip(r, 1−ε, 1+ε)·A)]; ratio and advantage [N]."""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def value_loss(value: torch.Tensor, old: torch.Tensor, target: torch.Tensor, clip: float) -> torch.Tensor:
    """Mean of the larger squared error of V and of V clipped to within ε of its old value; all [N]."""
    held = old + (value - old).clamp(-clip, clip)
    return torch.maximum((value - target).square(), (held - target).square()).mean()


def approximate_kl(log_ratio: torch.Tensor) -> torch.Tensor:
    """E[(r − 1) − log r] ≥ 0: the low-variance estimate of KL(old ‖ new) from old's own samples."""
    return (log_ratio.exp() - 1 - log_ratio).mean()


def update(
    actor: Actor,
    value_head: ValueHead,
    optimizer: torch.optim.Optimizer,
    episodes: list[Episode],
    options: PPO,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Update by the episodes of one roll-out; returns the metrics of the update.

    The epochs end early if the approximate KL of a minibatch exceeds `options.target_kl`.
    """
    batches, measures = _prepare(actor, value_head, episodes, options, rng)
    rows, stopped = [], False
    for _ in range(options.epochs):
        for index in rng.permutation(len(batches)):
            row = _step(actor, value_head, optimizer, batches[index], options)
            stopped = row is None
            if stopped:
                break
            rows.append(row)
        if stopped:
            break
    measures |= {name: float(np.mean([row[name] for row in rows])) for name in (rows[0] if rows else ())}
    return measures | {"passes": len(rows) / len(batches)}


def _prepare(actor, value_head, episodes, options: PPO, rng) -> tuple[list[Minibatch], dict[str, float]]:
    """Minibatches with everything constant during an update, and the critic's metrics before it."""
    decisions = [decision for episode in episodes for decision in episode.decisions]
    parts = np.array_split(rng.permutation(len(decisions)), math.ceil(len(decisions) / options.minibatch))
    batches, old_values = [], np.zeros(len(decisions))
    for part in parts:
        batch = _look_back(actor, value_head, [decisions[i] for i in part])
        old_values[part] = batch.old_value.cpu().numpy()
        batches.append(batch)
    ends = np.cumsum([len(episode.decisions) for episode in episodes])[:-1]
    credit = np.concatenate(
        [
            advantages(episode.rewards, values, options.gamma, options.gae_lambda)
            for episode, values in zip(episodes, np.split(old_values, ends), strict=True)
        ]
    )
    targets = credit + old_values
    shown = normalized(credit) if options.normalize_advantages else credit
    for part, batch in zip(parts, batches, strict=True):
        batch.advantage = torch.tensor(shown[part], dtype=torch.float32, device=actor.device)
        batch.target = torch.tensor(targets[part], dtype=torch.float32, device=actor.device)
    explained = 1 - credit.var() / targets.var() if targets.var() > 1e-8 else 0.0
    return batches, {"value": float(old_values.mean()), "explained_variance": float(explained)}


@torch.no_grad()
def _look_back(actor: Actor, value_head: ValueHead, decisions: list) -> Minibatch:
    """Log-probabilities and values under the roll-out's weights, by the same code that is differentiated."""
    seen = [decision.seen for decision in decisions]
    names = [field.name for field in fields(Transition)]
    steps = (torch.cat([getattr(decision.transition, name) for decision in decisions]) for name in names)
    transition = Transition(*(tensor.to(actor.device) for tensor in steps))
    with actor.precision():
        encoding = actor.encode(seen)
        old_log = actor.log_probability(encoding, transition)
    keep = not any(p.requires_grad for p in actor.model.vlm.parameters())
    return Minibatch(seen, transition, encoding if keep else None, old_log, value_head(encoding))


def _step(actor, value_head, optimizer, batch: Minibatch, options: PPO) -> dict[str, float] | None:
    """One gradient step; None, and no step, if the policy has moved too far from that of the roll-out."""
    with actor.precision():
        encoding = batch.encoding or actor.encode(batch.seen)
        log_ratio = actor.log_probability(encoding, batch.transition) - batch.old_log
    value = value_head(encoding)
    kl = approximate_kl(log_ratio.detach()).item()
    if options.target_kl is not None and kl > options.target_kl:
        return None
    ratio = log_ratio.exp()
    losses = {
        "policy_loss": policy_loss(ratio, batch.advantage, options.clip),
        "value_loss": value_loss(value, batch.old_value, batch.target, options.clip),
    }
    optimizer.zero_grad(set_to_none=True)
    (losses["policy_loss"] + options.value_coefficient * losses["value_loss"]).backward()
    norms = [torch.nn.utils.clip_grad_norm_(group["params"], options.max_grad_norm) for group in optimizer.param_groups]
    clipped = (ratio.detach() - 1).abs().gt(options.clip).float().mean()
    row = {name: loss.item() for name, loss in losses.items()}
    row |= {"kl": kl, "clip_fraction": clipped.item(), "gradient_norm": float(norms[0])}
    if not all(map(math.isfinite, row.values())):
        raise FloatingPointError(f"PPO diverged: {row}; the last saved state is intact, lower the learning rates")
    optimizer.step()
    return row
