# SPDX-License-Identifier: Apache-2.0
"""Dense grounding: an auxiliary head on image tokens, used in training only and never part of the model.

Every image token predicts whether a point is in its cell and where: absolute image coordinates and depth; the token of
a gripper's tip also predicts the gripper's opening. All tokens of an image together predict whether the point is in
it. Without this, the attention read-out of a backbone without visual pretraining does not learn; the paper's backbone
has that knowledge from its pretraining.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from qwen_vla.model.sample import POINTS, TIPS, Sample

OUTPUTS = ("cell", "u", "v", "depth", "opening")
NEAR = 1.0  # cells: tokens with a center this close to the point regress its coordinates
# Weights of the loss. Coordinates are shares of the image and meters: 0.01 is one pixel of 96, or one cm.
WEIGHTS = {"cell": 1.0, "where": 20.0, "opening": 1.0}


@dataclass
class GroundingTargets:
    """Labels of the images of a batch that have any.

    image (N,): index of the image in the batch, counted over all rows. points (N, P, 3): u, v in 0…1 and depth [m] of
    POINTS; visible, hidden (N, P): known to be in the image, known not to be; openings (N, TIPS): 0…1, −1: none.
    """

    image: torch.Tensor
    points: torch.Tensor
    visible: torch.Tensor
    hidden: torch.Tensor
    openings: torch.Tensor

    @classmethod
    def of(cls, samples: Sequence[Sample], camera_tags: Sequence[str], merged: int) -> GroundingTargets | None:
        """The labels of a batch whose images are in the order of `camera_tags`; None if no sample has any.

        merged: frames of a history in a step.
        """
        found, first = [], 0
        for sample in samples:
            order, labels = _image_order(sample, camera_tags, merged), sample.labels
            if labels is not None:
                openings = np.broadcast_to(labels.openings, (len(order), TIPS))
                numbers = first + np.arange(len(order))
                found.append((numbers, labels.points[order], labels.visible[order], labels.hidden[order], openings))
            first += sample.image_count(merged)
        if not found:
            return None
        return cls(*(torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True)))

    @property
    def openings_known(self) -> torch.Tensor:
        """(N, TIPS) tips that are visible and have a gripper."""
        return self.visible[:, -TIPS:] & (self.openings >= 0)

    def cells(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, P) index of the cell of each point, and (N, P, tokens) whether a token is near a visible point."""
        offset = self.points[..., None, :2] - _cell_centers(tokens, self.points.device)
        near = (offset.abs().amax(-1) < NEAR / round(tokens**0.5)) & self.visible[..., None]
        return offset.norm(dim=-1).argmin(-1), near

    def counts(self, tokens: int) -> dict[str, int]:
        """Number of terms of each part of the loss."""
        near = self.cells(tokens)[1]
        told = near[:, -TIPS:] & self.openings_known[..., None]
        asked = self.visible | self.hidden
        return {"cell": int(asked.sum()), "where": 3 * int(near.sum()), "opening": int(told.sum())}


class GroundingHead(nn.Module):
    """Hidden states of image tokens [N, tokens, D] → OUTPUTS of POINTS [N, P, tokens, 5]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.out = nn.Linear(hidden_size, len(OUTPUTS) * len(POINTS))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        values = self.out(self.norm(tokens)).float().unflatten(-1, (len(POINTS), len(OUTPUTS)))
        return values.permute(0, 2, 1, 3)

    def sums(self, tokens: torch.Tensor, targets: GroundingTargets) -> dict[str, torch.Tensor]:
        """Cross-entropy over the cells and "nowhere", whose logit is 0; and smooth L1 of the predictions of tokens near
        a visible point; both as sums.

        `tokens` are those of the labeled images. Divided by `GroundingTargets.counts` the parts become means.
        """
        values, count = self(tokens), tokens.shape[1]
        cell, near = targets.cells(count)
        asked = targets.visible | targets.hidden
        cell = torch.where(targets.visible, cell, count)
        truth = targets.points[..., None, :].expand(*near.shape, 3)
        told = near[:, -TIPS:] & targets.openings_known[..., None]
        openings = targets.openings[..., None].expand(told.shape)
        said = values[:, -TIPS:, :, 4]
        return {
            "cell": F.cross_entropy(F.pad(values[..., 0], (0, 1))[asked], cell[asked], reduction="sum"),
            "where": F.smooth_l1_loss(values[..., 1:4][near], truth[near], beta=0.02, reduction="sum"),
            "opening": F.smooth_l1_loss(said[told], openings[told], beta=0.1, reduction="sum"),
        }

    @torch.no_grad()
    def locate(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, points, 5): u, v, depth and opening predicted by the most likely cell; probability of being in view."""
        values = self(tokens)
        best = values[..., 0].argmax(-1)[..., None, None].expand(*values.shape[:2], 1, len(OUTPUTS))
        found = values.gather(-2, best).squeeze(-2)[..., 1:]
        return torch.cat([found, values[..., 0].logsumexp(-1, keepdim=True).sigmoid()], dim=-1)


def _image_order(sample: Sample, camera_tags: Sequence[str], merged: int) -> list[int]:
    """Positions in the batch of the sample's images, in the sample's order."""
    first, positions = 0, {}
    for tag, count in sample.image_counts(merged).items():
        positions[tag] = range(first, first + count)
        first += count
    return [position for tag in camera_tags for position in positions.get(tag, ())]


def _cell_centers(count: int, device: torch.device) -> torch.Tensor:
    """(count, 2) u, v of the token cells in row-major order."""
    side = round(count**0.5)
    axis = (torch.arange(side, device=device) + 0.5) / side
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([u.reshape(-1), v.reshape(-1)], dim=-1)
