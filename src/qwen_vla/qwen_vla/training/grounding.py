"""Dense grounding: an auxiliary head on image tokens, used in training only and never part of the model.

Every image token says whether a point lies in its cell and where: absolute image coordinates and depth; the token of
the gripper tip also says how far the gripper is open. Without it the attention read-out of a backbone that has seen
nothing does not learn; the paper's backbone brings this knowledge from its own pretraining.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

POINTS = ("named cube", "gripper tip")
OUTPUTS = ("cell", "u", "v", "depth", "opening")
NEAR = 1.0  # cells: tokens whose centre is this close to the point regress its coordinates
COORDINATE_WEIGHT = 20.0  # coordinates are shares of the image and metres: 0.01 is one pixel of 96, or one centimetre


@dataclass
class GroundingTargets:
    """points (B, images, 2, 3): u, v in 0…1 and depth [m] of POINTS; visible (B, images, 2); opening (B,) 0…1."""

    points: torch.Tensor
    visible: torch.Tensor
    opening: torch.Tensor


class GroundingHead(nn.Module):
    """Hidden states of image tokens [B, images, N, D] → OUTPUTS of POINTS [B, images, points, N, 5]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.out = nn.Linear(hidden_size, len(OUTPUTS) * len(POINTS))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        values = self.out(self.norm(tokens)).float().unflatten(-1, (len(POINTS), len(OUTPUTS)))
        return values.permute(0, 1, 3, 2, 4)

    def loss(self, tokens: torch.Tensor, targets: GroundingTargets) -> torch.Tensor:
        """Cross-entropy over cells, plus smooth L1 of what the tokens near a visible point say about it."""
        values, visible = self(tokens), targets.visible
        if not bool(visible.any()):
            return values.sum() * 0.0
        offset = targets.points[..., None, :2] - _cell_centres(tokens.shape[2], tokens.device)
        cell = offset.norm(dim=-1).argmin(-1)
        which = F.cross_entropy(values[..., 0][visible], cell[visible])
        near = (offset.abs().amax(-1) < NEAR / round(tokens.shape[2] ** 0.5)) & visible[..., None]
        truth = targets.points[..., None, :].expand(*near.shape, 3)
        where = F.smooth_l1_loss(values[..., 1:4][near], truth[near], beta=0.02)
        tip = near[:, :, 1]
        opening = targets.opening[:, None, None].expand(tip.shape)
        how_open = F.smooth_l1_loss(values[:, :, 1, :, 4][tip], opening[tip], beta=0.1) if bool(tip.any()) else 0.0
        return which + COORDINATE_WEIGHT * where + how_open

    @torch.no_grad()
    def locate(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, images, points, 4): u, v, depth and opening that the most likely cell gives."""
        values = self(tokens)
        best = values[..., 0].argmax(-1)[..., None, None].expand(*values.shape[:3], 1, len(OUTPUTS))
        return values.gather(-2, best).squeeze(-2)[..., 1:]


def _cell_centres(count: int, device: torch.device) -> torch.Tensor:
    """(count, 2) u, v of the token cells in row-major order."""
    side = round(count**0.5)
    axis = (torch.arange(side, device=device) + 0.5) / side
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([u.reshape(-1), v.reshape(-1)], dim=-1)
