"""The optimizer of a run: AdamW, its states in 8 bits if asked, or Muon for the matrices in the blocks, AdamW else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from qwen_vla.training.learner import Learner
from qwen_vla.training.low_memory.adapters import MARKER_ROWS
from qwen_vla.training.low_memory.low_bits import adamw_8bit
from qwen_vla.training.recipe import Recipe

BETAS = (0.9, 0.95)
# Of Muon: its author's values (Jordan 2024), the defaults in torch.
MUON = {
    "momentum": 0.95,
    "nesterov": True,
    "ns_coefficients": (3.4445, -4.775, 2.0315),
    "ns_steps": 5,
    "eps": 1e-7,
    "adjust_lr_fn": "match_rms_adamw",  # steps of the same size as AdamW's at the same rate (Moonlight, 2025)
}


def optimizer_of(recipe: Recipe, learner: Learner) -> torch.optim.Optimizer:
    """Separate groups for backbone, or its adapters, camera markers and expert; no decay on vectors and markers."""
    options = recipe.optimizer
    rates = {"backbone": recipe.lora.lr if recipe.lora else options.backbone_lr}
    rates |= {"expert": options.expert_lr, "markers": options.marker_lr}
    matrices = {id(p) for p in hidden_matrices(learner.model)} if options.name == "muon" else set()
    groups: dict[tuple[str, bool, bool], list[nn.Parameter]] = {}
    for name, p in learner.named_parameters():
        if p.requires_grad:
            groups.setdefault((_part(name), p.ndim == 1, id(p) in matrices), []).append(p)
    listed = []
    for (part, vectors, muon), chosen in sorted(groups.items(), key=lambda item: item[0]):
        decay = 0.0 if vectors or part == "markers" else options.weight_decay
        listed.append({"params": chosen, "lr": rates[part], "weight_decay": decay, "muon": muon})
    if options.name == "adamw_8bit":
        return adamw_8bit(listed, BETAS)
    return MuonAndAdamW(listed) if matrices else torch.optim.AdamW(listed, betas=BETAS, fused=True)


def _part(name: str) -> str:
    """The part of the model with a learning rate of its own that a learner's parameter belongs to."""
    if name.endswith(f".{MARKER_ROWS}"):
        return "markers"
    return "backbone" if name.startswith("model.vlm.") else "expert"


def hidden_matrices(model: nn.Module) -> Iterator[nn.Parameter]:
    """The matrices between hidden states: in the blocks of both towers and of the expert.

    Excluded are those with another input or output: embeddings, patches, heads, and the expert's modulations, whose
    outputs are scales.
    """
    for block in model.modules():
        if type(block).__name__ in model._no_split_modules:
            modulation = {id(p) for p in block.modulation.parameters()} if hasattr(block, "modulation") else set()
            yield from (p for p in block.parameters() if p.ndim == 2 and id(p) not in modulation)


class MuonAndAdamW(torch.optim.Optimizer):
    """torch's Muon for the groups with `muon`, torch's AdamW for the others, combined as one optimizer."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {**MUON, "betas": BETAS, "muon": False})
        self._parts = (
            torch.optim.Muon(self._groups(True), **MUON),
            torch.optim.AdamW(self._groups(False), betas=BETAS, fused=True),
        )
        for group in self.param_groups:  # keys that AdamW adds to its groups
            for key, value in self._parts[1].param_groups[0].items():
                group.setdefault(key, value)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Step both, on this one's groups and state: loading may have replaced either."""
        for part, muon in zip(self._parts, (True, False), strict=True):
            part.param_groups, part.state = self._groups(muon), self.state
            part.step()

    def _groups(self, muon: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["muon"] == muon]


def learning_rate(recipe: Recipe, step: int) -> float:
    """Share of the peak: linear warm-up, then cosine decay to `final_share`."""
    options = recipe.optimizer
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    progress = (step - options.warmup_steps) / max(1, recipe.steps - options.warmup_steps)
    return options.final_share + (1 - options.final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
