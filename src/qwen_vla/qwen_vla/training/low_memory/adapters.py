# SPDX-License-Identifier: Apache-2.0
"""What is trained inside a frozen backbone: low-rank adapters, and the embeddings of the camera markers.

Both are merged into the weights that they stand for when a model is saved: inference needs neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.distributed.tensor import DTensor

from qwen_vla.model.modeling import QwenVLAModel
from qwen_vla.training.low_memory.low_bits import dequantized, is_quantized
from qwen_vla.training.recipe import Lora

ADAPTER = "default"  # peft's name of the only adapter
MARKER_ROWS = "marker_rows"
VISION_TARGETS = ("qkv", "proj", "linear_fc1", "linear_fc2")


class MarkerEmbedding(nn.Embedding):
    """A frozen embedding whose rows of a few tokens are trained: they are a parameter of their own."""

    marker_ids: torch.Tensor
    marker_rows: nn.Parameter

    @staticmethod
    def adopt(embedding: nn.Embedding, ids: Sequence[int]) -> None:
        """Convert an existing embedding in place; its weight and its name are kept."""
        embedding.__class__ = MarkerEmbedding
        weight = embedding.weight
        chosen = torch.tensor(ids, device=weight.device)
        embedding.register_buffer("marker_ids", chosen, persistent=False)
        embedding.register_parameter(MARKER_ROWS, nn.Parameter(weight.detach()[chosen].float()))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        embedded = super().forward(input)
        chosen = input[..., None] == self.marker_ids
        rows = chosen.to(self.marker_rows.dtype) @ self.marker_rows
        return torch.where(chosen.any(dim=-1, keepdim=True), rows.to(embedded.dtype), embedded)


@runtime_checkable
class Adapted(Protocol):
    """peft's layer of any kind around one of ours."""

    def get_delta_weight(self, adapter: str) -> torch.Tensor: ...


def add_adapters(model: QwenVLAModel, options: Lora) -> None:
    """Freeze the backbone and add adapters to the text layers and, if asked, to the vision tower.

    Raises:
        ValueError: a target does not exist.
    """
    model.vlm.requires_grad_(False)
    # peft asks for it.
    model.vlm.is_loaded_in_4bit = options.quantize == "nf4"  # pyright: ignore[reportArgumentType]  # not a module
    targets = rf".*language_model.*\.({'|'.join(options.targets)})"
    if options.vision:
        targets = rf"{targets}|.*visual\.(?:blocks\..+|merger)\.({'|'.join(VISION_TARGETS)})"
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # pyright: ignore[reportArgumentType]  # peft's hint is int, its division is not
        lora_dropout=options.dropout,
        target_modules=targets,
    )
    inject_adapter_in_model(config, model.vlm, ADAPTER)


def merged_weights(model: QwenVLAModel) -> dict[str, torch.Tensor]:
    """The model's state as if it had been trained whole: adapters and rows are added to the weights they stand for."""
    state, weights = _unpacked(model), {}
    adapted = {name: module for name, module in model.named_modules() if isinstance(module, Adapted)}
    for name, tensor in state.items():
        owner, _, rest = name.partition(".base_layer.")
        if not rest and not _is_added(name):
            weights[name] = tensor
        elif rest == "weight":
            weights[f"{owner}.weight"] = tensor + adapted[owner].get_delta_weight(ADAPTER).to(tensor.dtype)
        elif rest:
            weights[f"{owner}.{rest}"] = tensor
    return weights | _merged_rows(model, state)


def _unpacked(model: QwenVLAModel) -> dict[str, torch.Tensor]:
    """The model's state with whole weights in place of 4-bit ones and their scales."""
    packed = {f"{name}.weight": module for name, module in model.named_modules() if is_quantized(module)}
    scales = tuple(f"{name}." for name in packed)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(scales)}
    return state | {name: dequantized(module) for name, module in packed.items()}


def _is_added(name: str) -> bool:
    return name.endswith(f".{MARKER_ROWS}") or any(part.startswith("lora_") for part in name.split("."))


def _merged_rows(model: QwenVLAModel, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every weight that shares memory with the embedding, with the trained rows in place."""
    embedding = model.get_input_embeddings()
    if not isinstance(embedding, MarkerEmbedding):
        return {}
    weight, rows = (t.full_tensor() if isinstance(t, DTensor) else t for t in (embedding.weight, embedding.marker_rows))
    merged = weight.detach().index_copy(0, embedding.marker_ids, rows.detach().to(weight.dtype))
    tied = model.vlm.lm_head.weight is embedding.weight
    ends = (".embed_tokens.weight", ".lm_head.weight") if tied else (".embed_tokens.weight",)
    return {name: merged for name in state if name.endswith(ends)}
