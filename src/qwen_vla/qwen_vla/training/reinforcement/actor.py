# SPDX-License-Identifier: Apache-2.0
"""The actor: a Qwen-VLA that decides for several robots at once, with the log-probability of each decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from qwen_vla.model.flow_matching import tau_grid
from qwen_vla.model.modeling import Encoding
from qwen_vla.model.sample import Sample
from qwen_vla.policies.policy import Policy
from qwen_vla.training.reinforcement.flow_sde import Noise, Transition, draw_noise, log_probability, sample, transition


@dataclass(frozen=True)
class Sampling:
    """How chunks are drawn. temperature: scale of all noise. noise_level: η of the stochastic step, 0 for none."""

    temperature: float
    noise_level: float


@dataclass(frozen=True)
class Seen:
    """An observation: a row of a batch, and the state that relative actions start from."""

    sample: Sample
    state: np.ndarray


@dataclass(frozen=True)
class Decision:
    """One chunk: its observation, and its stochastic step ([1, H, K] on the CPU)."""

    seen: Seen
    transition: Transition


class Actor:
    """A policy's model, batched; `sampling` is that of the roll-outs, which defines the probabilities.

    counted_rows: see `PPO`. within: calls a function inside the module that DDP or FSDP wraps. They act on its calls:
    all that uses weights is computed within one, by all processes equally often.
    """

    def __init__(
        self,
        policy: Policy,
        sampling: Sampling,
        autocast: bool = False,
        counted_rows: str = "executed",
        accelerator: Accelerator | None = None,
    ) -> None:
        self.accelerator = accelerator or Accelerator(cpu=policy.model.device.type == "cpu")
        self.within: Callable[[Callable[[], Any]], Any] = lambda compute: compute()
        self.model, self.processor, self.embodiment = policy.model, policy.processor, policy.embodiment
        self.policy, self.steps, self.sampling = policy, policy.euler_steps, sampling
        self.autocast = autocast
        self.mask = policy.action_mask.to(policy.model.device)
        self.counted = self.mask.clone()
        if counted_rows == "executed":
            self.counted[:, self.embodiment.execution_horizon :] = False

    @property
    def device(self) -> torch.device:
        return self.model.device

    def precision(self) -> torch.autocast:
        """The context in which the model runs, for decisions and for training."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def see(self, images: Mapping[str, np.ndarray], joints: np.ndarray, instruction: str) -> Seen:
        """The prompt, images at the model's size, and the joints, which the model may read."""
        resize = self.processor.image_transform.resize
        views = {tag: resize(images[tag]) for tag in self.embodiment.camera_tags}
        state = self.policy.read_state(joints)
        return Seen(Sample(self.embodiment.prompt(instruction), views, state=state), joints)

    @torch.no_grad()
    def decide(
        self, seen: Sequence[Seen], generators: list[torch.Generator], sampling: Sampling
    ) -> tuple[np.ndarray, list[Decision]]:
        """One chunk for each observation, as it would be deployed [N, steps, c], and the data for learning from them.

        Every observation has its own generator, so that its chunk does not depend on the batch.
        """
        self._latest = seen[:1], generators[:1], sampling
        _, horizon, width = self.mask.shape
        noise = draw_noise((horizon, width), self.steps, generators)
        noise = type(noise)(*(tensor.to(self.device) for tensor in vars(noise).values()))
        chunks, steps = self.within(lambda: self._sample(seen, noise, sampling))
        length, channels = self.embodiment.horizon, len(self.embodiment.channel_names)
        normalized = chunks[:, :length, :channels].float().cpu().numpy()
        if not np.isfinite(normalized).all():
            raise FloatingPointError("the model returned non-finite actions; lower the actor's learning rate")
        physical = [self.policy.physical(row, one.state) for row, one in zip(normalized, seen, strict=True)]
        rows = zip(*(tensor.cpu().split(1) for tensor in vars(steps).values()), strict=True)
        decisions = [Decision(one, Transition(*row)) for one, row in zip(seen, rows, strict=True)]
        return np.stack(physical), decisions

    def idle(self) -> None:
        """Decide for nobody, while other processes decide: shards of the weights are gathered by all."""
        self.decide(*self._latest)

    def _sample(self, seen: Sequence[Seen], noise: Noise, sampling: Sampling) -> tuple[torch.Tensor, Transition]:
        with self.precision():
            velocity = self._velocity(self.encode(seen), self.mask.expand(len(seen), -1, -1))
            times = tau_grid(self.steps, self.device)
            return sample(
                lambda y, i: velocity(y, times[i : i + 1]),
                noise,
                self.steps,
                sampling.noise_level,
                sampling.temperature,
            )

    def encode(self, seen: Sequence[Seen]) -> Encoding:
        """Run the backbone on a batch of observations."""
        batch = self.processor.collate([one.sample for one in seen])
        inputs = {name: tensor.to(self.device) for name, tensor in batch.items()}
        return self.model.encode(**inputs, right_padded=False)

    def log_probability(self, encoding: Encoding, steps: Transition) -> torch.Tensor:
        """log-probability [N] of the stochastic steps under the current weights, differentiable.

        Counted are the robot's channels and the `counted_rows`. What is not counted was drawn, too, and moved
        what is: the ratio of the executed rows alone is an approximation.
        """
        mask = self.mask.expand(len(steps.noisy), -1, -1)
        grid = tau_grid(self.steps, self.device)
        tau, next_tau = grid[steps.step], grid[steps.step + 1]
        velocity = self._velocity(encoding, mask)(steps.noisy, tau)
        mean, std = transition(steps.noisy, velocity, tau, next_tau, self.sampling.noise_level)
        return log_probability(steps.following, mean, self.sampling.temperature * std, self.counted.expand_as(mask))

    def _velocity(self, encoding: Encoding, mask: torch.Tensor):
        """v(y, τ) in float32 for y [N, H, K] and τ [N] or [1]; masked entries are 0 in the expert's input."""
        expert = self.model.action_expert
        context = self.model.expert_context(encoding, mask.any(dim=-1))

        def velocity(noisy: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
            shown = torch.where(mask, noisy, 0.0).to(context.tokens.dtype)
            return torch.where(mask, expert.velocity(context, shown, expert.modulations(tau)).float(), 0.0)

        return velocity
