"""Dense grounding: an auxiliary head on image tokens, used in training only and never shipped in the model.

Every image token says whether the centre of the named cube lies in its cell and where, in absolute image coordinates,
and the same for the gripper tip. Without it the attention read-out of a backbone that has seen nothing does not learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

POINTS = ("named cube", "gripper tip")
NEAR = 1.0  # cells: tokens whose centre is this close to the point regress its coordinates
COORDINATE_WEIGHT = 20.0  # coordinates are shares of the image: 0.01 is one pixel of 96


@dataclass
class GroundingTargets:
    """points (B, images, 2, 2): u, v in 0…1 of POINTS; visible (B, images, 2)."""

    points: torch.Tensor
    visible: torch.Tensor


class GroundingHead(nn.Module):
    """Hidden states of image tokens [B, images, N, D] → per point: cell logits [.., N] and coordinates [.., N, 2]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.out = nn.Linear(hidden_size, 3 * len(POINTS))

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = self.out(self.norm(tokens)).float().unflatten(-1, (len(POINTS), 3))
        values = values.permute(0, 1, 3, 2, 4)  # B, images, points, N, 3
        return values[..., 0], values[..., 1:]

    def loss(self, tokens: torch.Tensor, targets: GroundingTargets) -> torch.Tensor:
        """Cross-entropy over cells plus L1 of the coordinates near the point, over visible points."""
        logits, coordinates = self(tokens)
        side = round(tokens.shape[2] ** 0.5)
        centres = _cell_centres(side, tokens.device)
        offset = targets.points[..., None, :] - centres  # B, images, points, N, 2
        cell = offset.norm(dim=-1).argmin(-1)
        visible = targets.visible
        if not bool(visible.any()):
            return logits.sum() * 0.0
        which = F.cross_entropy(logits[visible], cell[visible])
        near = (offset.abs().amax(-1) < NEAR / side) & visible[..., None]
        where = F.smooth_l1_loss(coordinates[near], targets.points[..., None, :].expand_as(offset)[near], beta=0.02)
        return which + COORDINATE_WEIGHT * where

    @torch.no_grad()
    def locate(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, images, points, 2): the coordinates that the most likely cell gives."""
        logits, coordinates = self(tokens)
        best = logits.argmax(-1)[..., None, None].expand(*logits.shape[:-1], 1, 2)
        return coordinates.gather(-2, best).squeeze(-2)


def _cell_centres(side: int, device: torch.device) -> torch.Tensor:
    """(side², 2) u, v of the token cells in row-major order."""
    axis = (torch.arange(side, device=device) + 0.5) / side
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([u.reshape(-1), v.reshape(-1)], dim=-1)
