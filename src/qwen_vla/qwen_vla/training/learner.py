# SPDX-License-Identifier: Apache-2.0
"""Model and grounding head as one module: training calls only `forward`, so that DDP and FSDP can wrap it."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from qwen_vla.model.modeling import Encoding, QwenVLAModel
from qwen_vla.training.batching.batch import Batch
from qwen_vla.training.grounding import GroundingHead, GroundingTargets


class Learner(nn.Module):
    """Sums of the losses of a batch, or the model's predictions.

    losses: names of the losses to compute, among action, language and grounding. noise_draws: (noise, τ) pairs per row.
    trains_in_backbone: False keeps no activations of the backbone.
    """

    def __init__(
        self,
        model: QwenVLAModel,
        head: GroundingHead,
        losses: tuple[str, ...],
        noise_draws: int,
        trains_in_backbone: bool,
    ) -> None:
        super().__init__()
        self.model, self.head = model, head
        self.losses, self.noise_draws, self.trains_in_backbone = losses, noise_draws, trains_in_backbone
        self.sharded = False

    def forward(self, batch: Batch, euler_steps: int | None = None) -> dict[str, Any]:
        """Sum of every loss with targets in the batch; with `euler_steps`, predictions instead (see `predict`).

        The parts of the grounding loss are named in `grounding.WEIGHTS`. Divide by `Batch.counts`.
        """
        if euler_steps is not None:
            return self.predict(batch, euler_steps)
        encoding = self._encode(batch)
        sums = {}
        if "action" in self.losses and batch.tau is not None:
            actions, mask = batch.inputs["actions"], batch.inputs["action_mask"]
            given = {"noise_draws": self.noise_draws, "prefix_steps": batch.prefix}
            terms = self.model.action_terms(encoding, actions, mask, batch.tau, batch.noise, **given)
            sums["action"] = terms.total
        if "language" in self.losses and "labels" in batch.inputs:
            sums["language"] = self.model.language_terms(encoding, batch.inputs["labels"]).total
        if "grounding" in self.losses and batch.grounding is not None:
            sums |= self.head.sums(self._image_tokens(encoding, batch, batch.grounding), batch.grounding)
        if self.sharded:
            name = next(iter(sums))
            sums[name] = sums[name] + self._touch()
        return sums

    @torch.no_grad()
    def predict(self, batch: Batch, euler_steps: int) -> dict[str, torch.Tensor]:
        """Predictions for the targets present: actions [B, H, K] sampled from fresh noise; answers [questions], whether
        all tokens of an answer are the most likely ones; located points of the labeled images."""
        encoding = self.model.encode(**batch.inputs, right_padded=False)
        found = {}
        if "action" in self.losses and "actions" in batch.inputs:
            found["actions"] = self.model.sample_actions(encoding, batch.inputs["action_mask"], steps=euler_steps)
        if "language" in self.losses and "labels" in batch.inputs:
            found["answers"] = self.model.answered(encoding, batch.inputs["labels"])
        if "grounding" in self.losses and batch.grounding is not None:
            found["points"] = self.head.locate(self._image_tokens(encoding, batch, batch.grounding))
        return found

    def _touch(self) -> torch.Tensor:
        """0, with a gradient of 0 for all parameters outside the blocks: FSDP exchanges existing gradients, and other
        processes may have rows for a loss that this one has not."""
        present = (p for p in self.parameters() if p.requires_grad and not isinstance(p, DTensor))
        return 0.0 * sum((p.flatten()[0] for p in present), torch.zeros(()))

    def _encode(self, batch: Batch) -> Encoding:
        with contextlib.nullcontext() if self.trains_in_backbone else torch.no_grad():
            return self.model.encode(**batch.inputs, right_padded=False)

    def _image_tokens(self, encoding: Encoding, batch: Batch, targets: GroundingTargets) -> torch.Tensor:
        """Hidden states (labeled images, tokens, D); images of conversations have their own number of tokens."""
        tokens, config = encoding.hidden[encoding.image_token_mask], self.model.config
        counts = batch.inputs["image_grid_thw"].prod(1) // config.vision.spatial_merge_size**2
        first = (counts.cumsum(0) - counts).to(tokens.device)[targets.image]
        return tokens[first[:, None] + torch.arange(config.tokens_per_image, device=first.device)]
