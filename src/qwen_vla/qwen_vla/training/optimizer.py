# SPDX-License-Identifier: Apache-2.0
"""The optimizer of a run: AdamW, its states in 8 bits if asked, or Muon for the matrices in the blocks, AdamW else."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from qwen_vla.model.action_expert import DiTBlock
from qwen_vla.model.linear_attention import LinearAttention
from qwen_vla.model.modeling import QwenVLAModel
from qwen_vla.training.learner import Learner
from qwen_vla.training.low_memory.adapters import MARKER_ROWS
from qwen_vla.training.low_memory.low_bits import adamw_8bit
from qwen_vla.training.precision import Float32, cpu_has_bf16
from qwen_vla.training.recipe import Recipe

BETAS = (0.9, 0.95)
EQUAL_PARTS = {"qkv": 3, "gate_up": 2}  # linear layers of several matrices with equally many rows, by name
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
    rows = {} if options.muon_fused else fused_rows(learner.model)
    return MuonAndAdamW(listed, rows) if matrices else torch.optim.AdamW(listed, betas=BETAS, fused=True)


def _part(name: str) -> str:
    """The part of the model with a learning rate of its own that a learner's parameter belongs to."""
    if name.endswith(f".{MARKER_ROWS}"):
        return "markers"
    return "backbone" if name.startswith("model.vlm.") else "expert"


def hidden_matrices(model: QwenVLAModel) -> Iterator[nn.Parameter]:
    """The matrices between hidden states: in the blocks of both towers and of the expert.

    Excluded are those with another input or output: embeddings, patches, heads, and the expert's modulations, whose
    outputs are scales.
    """
    for block in model.modules():
        if type(block).__name__ in model.block_names:
            modulation = {id(p) for p in block.modulation.parameters()} if isinstance(block, DiTBlock) else set()
            yield from (p for p in block.parameters() if p.ndim == 2 and id(p) not in modulation)


def fused_rows(model: nn.Module) -> dict[int, tuple[int, ...]]:
    """The rows of each matrix in the weights that hold several, by the `id` of the weight.

    Queries, keys and values, or gate and up, are one weight only so that they are one product. The gated queries of
    the text layers are not listed: their rows alternate by head.
    """
    found = {}
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if last in EQUAL_PARTS:
            weight, parts = module.get_parameter("weight"), EQUAL_PARTS[last]
            found[id(weight)] = (len(weight) // parts,) * parts
        elif isinstance(module, LinearAttention):
            found[id(module.in_proj_qkv.weight)] = (module.key_dim, module.key_dim, module.value_dim)
    return found


class MuonAndAdamW(torch.optim.Optimizer):
    """torch's Muon for the groups with `muon`, torch's AdamW for the others, combined as one optimizer.

    rows: of the separate matrices of a weight, by its `id`; a weight that is not listed is one matrix.
    """

    def __init__(self, groups: list[dict[str, Any]], rows: Mapping[int, tuple[int, ...]] | None = None) -> None:
        super().__init__(groups, {**MUON, "betas": BETAS, "muon": False})
        self._rows = dict(rows or {})
        self._muon = torch.optim.Muon(self._groups(True), **MUON)
        self._adamw = torch.optim.AdamW(self._groups(False), betas=BETAS, fused=True)
        for group in self.param_groups:  # keys that AdamW adds to its groups
            for key, value in self._adamw.param_groups[0].items():
                group.setdefault(key, value)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # none is used
        """Step both, on this one's groups and state: loading may have replaced either."""
        self._muon.state.clear()
        self._muon.param_groups = [{**group, "params": self._matrices(group)} for group in self._groups(True)]
        with self._precision():
            self._muon.step()
        self._adamw.param_groups, self._adamw.state = self._groups(False), self.state
        self._adamw.step()

    def _matrices(self, group: dict[str, Any]) -> list[torch.Tensor]:
        """The matrices of a group's weights, each with its rows of gradient and momentum; all share their memory."""
        found = []
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state = self.state[weight]
            momentum = state.setdefault("momentum_buffer", torch.zeros_like(weight.grad))
            sizes = self._rows.get(id(weight), (len(weight),))
            parts = (tensor.detach().split(sizes) for tensor in (weight, weight.grad, momentum))
            for matrix, gradient, moment in zip(*parts, strict=True):
                matrix.grad = gradient
                self._muon.state[matrix]["momentum_buffer"] = moment
                found.append(matrix)
        return found

    def _precision(self) -> contextlib.AbstractContextManager:
        """Of Muon's products, bf16 in torch. A CPU that imitates it takes 2.5 s of a step of 7 s for them (tiny)."""
        devices = {weight.device.type for group in self._groups(True) for weight in group["params"]}
        return Float32() if devices == {"cpu"} and not cpu_has_bf16() else contextlib.nullcontext()

    def _groups(self, muon: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["muon"] == muon]


def learning_rate(recipe: Recipe, step: int) -> float:
    """Share of the peak: linear warm-up, then cosine decay to `final_share`."""
    options = recipe.optimizer
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    progress = (step - options.warmup_steps) / max(1, recipe.steps - options.warmup_steps)
    return options.final_share + (1 - options.final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
