# SPDX-License-Identifier: Apache-2.0
"""Some rows of a step as tensors, and several such batches as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from qwen_vla.model.processing import IGNORED_LABEL
from qwen_vla.training.grounding import GroundingTargets

GRID = "image_grid_thw"
BY_IMAGE = ("pixel_values", GRID)


@dataclass
class Batch:
    """Some rows of a step: model inputs (labels, actions and action_mask among them), flow times and noise, labels.

    tau [B·draws], noise [B·draws, H, K]: None without actions. prefix [B]: leading steps given clean; None: none.
    grounding: None without labeled images.
    """

    inputs: dict[str, torch.Tensor]
    tau: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    prefix: torch.Tensor | None = None
    grounding: GroundingTargets | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device, except for the grids of its images, which are read on the CPU."""
        if device.type == "cpu":
            return self

        def move(value):
            if isinstance(value, torch.Tensor):
                return value if value.device.type == device.type else value.pin_memory().to(device, non_blocking=True)
            if isinstance(value, dict):
                return {name: tensor if name == GRID else move(tensor) for name, tensor in value.items()}
            if isinstance(value, GroundingTargets):
                return GroundingTargets(*(move(getattr(value, field.name)) for field in fields(value)))
            return value

        return Batch(*(move(getattr(self, field.name)) for field in fields(self)))

    def counts(self, tokens_per_image: int) -> dict[str, int]:
        """Number of terms in the sum of each loss, by its name."""
        counts = {}
        if self.tau is not None:
            rows = self.inputs["action_mask"].flatten(1).any(dim=1)
            counts["action"] = int(rows.sum()) * (len(self.tau) // len(rows))
        if "labels" in self.inputs:
            counts["language"] = int((self.inputs["labels"][:, 1:] != IGNORED_LABEL).sum())
        if self.grounding is not None:
            counts |= self.grounding.counts(tokens_per_image)
        return counts


def joined(batches: Sequence[Batch], pad_token: int) -> Batch:
    """The rows of several batches without flow times, in order; all on one device."""
    if len(batches) == 1:
        return batches[0]
    names = {name: None for batch in batches for name in batch.inputs}
    width = max(batch.inputs["input_ids"].shape[1] for batch in batches)
    fills = {"input_ids": pad_token, "labels": IGNORED_LABEL}
    inputs = {}
    for name in names:
        if name in BY_IMAGE:
            inputs[name] = torch.cat([batch.inputs[name] for batch in batches if name in batch.inputs])
        else:
            parts = [_rows(batch, name, batches, fills.get(name, 0)) for batch in batches]
            by_token = name in ("input_ids", "attention_mask", "mm_token_type_ids", "labels")
            inputs[name] = torch.cat(
                [_widened(part, width, fills.get(name, 0)) if by_token else part for part in parts]
            )
    return Batch(inputs, grounding=_joined_targets(batches))


def _rows(batch: Batch, name: str, batches: Sequence[Batch], fill: int) -> torch.Tensor:
    """An input of a batch; where it has none, `fill` in the shape that the others have."""
    if name in batch.inputs:
        return batch.inputs[name]
    ids, like = batch.inputs["input_ids"], next(other.inputs[name] for other in batches if name in other.inputs)
    shape = ids.shape if name == "labels" else (len(ids), *like.shape[1:])
    return like.new_full(shape, fill)


def _widened(part: torch.Tensor, width: int, fill: int) -> torch.Tensor:
    return F.pad(part, (width - part.shape[1], 0), value=fill)


def _joined_targets(batches: Sequence[Batch]) -> GroundingTargets | None:
    """Targets whose images are numbered over all batches."""
    found, first = [], 0
    for batch in batches:
        if batch.grounding is not None:
            rest = (getattr(batch.grounding, field.name) for field in fields(GroundingTargets)[1:])
            found.append((batch.grounding.image + first, *rest))
        first += len(batch.inputs[GRID]) if GRID in batch.inputs else 0
    return GroundingTargets(*map(torch.cat, zip(*found, strict=True))) if found else None
