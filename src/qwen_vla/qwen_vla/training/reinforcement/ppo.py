# SPDX-License-Identifier: Apache-2.0
"""Proximal policy optimization (Schulman et al. 2017) over chunks: one decision is one action."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator

from qwen_vla.model.modeling import Encoding
from qwen_vla.training.distributed import clip_gradients, gathered, summed
from qwen_vla.training.reinforcement.actor import Actor
from qwen_vla.training.reinforcement.advantages import advantages, normalized
from qwen_vla.training.reinforcement.flow_sde import Transition
from qwen_vla.training.reinforcement.recipe import PPO
from qwen_vla.training.reinforcement.rollout import Episode
from qwen_vla.training.reinforcement.value_head import ValueHead


@dataclass
class Together:
    """Decisions that are always batched together, so that their first ratio is exactly 1.

    encoding: kept if the backbone is frozen. old_log, old_value: under the weights of the roll-out.
    """

    seen: list
    transition: Transition
    encoding: Encoding | None
    old_log: torch.Tensor
    old_value: torch.Tensor


@dataclass
class Minibatch(Together):
    """Decisions with their credit: the advantage of each, and the critic's target.

    share: this process's part of the minibatch of all processes; 0 if it has none, and computes a decision that does
    not count.
    """

    advantage: torch.Tensor
    target: torch.Tensor
    share: float = 1.0


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
    """Update by the episodes of one roll-out, of which every process has its own; returns the metrics of the update.

    Minibatches are drawn from the decisions of all processes, so that their number changes the result only by rounding.

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
    own, total = _numbers(episodes, actor.accelerator)
    place = np.full(total, -1)
    place[own] = np.arange(len(own))
    parts, old_values = [], np.zeros(len(decisions))
    for part in np.array_split(rng.permutation(total), math.ceil(total / options.minibatch)):
        present = place[part][place[part] >= 0]
        rows = present if len(present) else np.zeros(1, int)
        together = _look_back(actor, value_head, [decisions[i] for i in rows])
        old_values[present] = together.old_value[: len(present)].cpu().numpy()
        parts.append((together, rows, len(present) / len(part)))
    credit = _credit(episodes, old_values, options)
    targets = credit + old_values
    every = np.zeros((3, total))
    for numbers, values in gathered((own, np.stack([credit, targets, old_values])), actor.accelerator):
        every[:, numbers] = values
    shown = (normalized(every[0]) if options.normalize_advantages else every[0])[own]
    as_tensor = partial(torch.tensor, dtype=torch.float32, device=actor.device)
    batches = [
        Minibatch(**vars(part), advantage=as_tensor(shown[rows]), target=as_tensor(targets[rows]), share=share)
        for part, rows, share in parts
    ]
    unexplained, spread, _ = every.var(axis=1)
    explained = 1 - unexplained / spread if spread > 1e-8 else 0.0
    return batches, {"value": float(every[2].mean()), "explained_variance": float(explained)}


def _credit(episodes: list[Episode], values: np.ndarray, options: PPO) -> np.ndarray:
    """The advantage of every decision, by the critic's values."""
    ends = np.cumsum([len(episode.decisions) for episode in episodes])[:-1]
    parts = zip(episodes, np.split(values, ends), strict=True)
    return np.concatenate([advantages(e.rewards, own, options.gamma, options.gae_lambda) for e, own in parts])


def _numbers(episodes: list[Episode], accelerator: Accelerator) -> tuple[np.ndarray, int]:
    """The numbers of this process's decisions among those of all, in the order of the scenes; how many all are."""
    own = [(episode.scene, len(episode.decisions)) for episode in episodes]
    scenes, counts = zip(*sorted(pair for part in gathered(own, accelerator) for pair in part), strict=True)
    first = dict(zip(scenes, np.cumsum(counts) - counts, strict=True))
    return np.concatenate([first[scene] + np.arange(count) for scene, count in own]), sum(counts)


@torch.no_grad()
def _look_back(actor: Actor, value_head: ValueHead, decisions: list) -> Together:
    """Log-probabilities and values under the roll-out's weights, by the same code that is differentiated."""
    seen = [decision.seen for decision in decisions]
    names = [field.name for field in fields(Transition)]
    steps = (torch.cat([getattr(decision.transition, name) for decision in decisions]) for name in names)
    transition = Transition(*(tensor.to(actor.device) for tensor in steps))
    encoding, old_log, old_value = _judge(actor, value_head, seen, transition)
    keep = not any(p.requires_grad for p in actor.model.vlm.parameters())
    return Together(seen, transition, encoding if keep else None, old_log, old_value)


def _judge(
    actor: Actor, value_head: ValueHead, seen: list, transition: Transition, encoding: Encoding | None = None
) -> tuple[Encoding, torch.Tensor, torch.Tensor]:
    """The encoding, unless it is given, the log-probability and the value of decisions [N]."""

    def compute():
        with actor.precision():
            encoded = encoding or actor.encode(seen)
            log = actor.log_probability(encoded, transition)
        return encoded, log, value_head(encoded)

    return actor.within(compute)


def _step(actor, value_head, optimizer, batch: Minibatch, options: PPO) -> dict[str, float] | None:
    """One gradient step; None, and no step, if the policy has moved too far from that of the roll-out."""
    _, log, value = _judge(actor, value_head, batch.seen, batch.transition, batch.encoding)
    log_ratio = log - batch.old_log
    ratio = log_ratio.exp()
    losses = {
        "policy_loss": policy_loss(ratio, batch.advantage, options.clip),
        "value_loss": value_loss(value, batch.old_value, batch.target, options.clip),
    }
    optimizer.zero_grad(set_to_none=True)
    total = losses["policy_loss"] + options.value_coefficient * losses["value_loss"]
    # DDP and FSDP average over the processes; their shares must be summed. They also want every graph backwards.
    (total * (batch.share * actor.accelerator.num_processes)).backward()
    measures = losses | {
        "kl": approximate_kl(log_ratio.detach()),
        "clip_fraction": (ratio.detach() - 1).abs().gt(options.clip).float().mean(),
    }
    row = summed({name: batch.share * value.item() for name, value in measures.items()}, actor.accelerator)
    if options.target_kl is not None and row["kl"] > options.target_kl:
        return None
    norms = [clip_gradients(group["params"], options.max_grad_norm) for group in optimizer.param_groups]
    row["gradient_norm"] = norms[0]
    if not all(map(math.isfinite, row.values())):
        raise FloatingPointError(f"PPO diverged: {row}; the last saved state is intact, lower the learning rates")
    optimizer.step()
    return row
