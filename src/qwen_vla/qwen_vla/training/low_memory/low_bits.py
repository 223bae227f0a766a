# SPDX-License-Identifier: Apache-2.0
"""Memory for fine-tuning on one GPU, by bitsandbytes: 8-bit states of the optimizer, 4-bit weights that are frozen.

Both also work on a CPU, slowly. The library is the extra `finetune`, and imported only if a recipe asks for it.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import nn

from qwen_vla.model.modeling import QwenVLAModel
from qwen_vla.training.recipe import TEXT_LINEARS, RecipeError

SENSITIVE = ("in_proj_a", "in_proj_b")  # gates of the linear attention: few numbers, and decays come from them
STATE_BYTES = 2 + 2 * 4 / 256  # per parameter: two states of 8 bits, a float32 scale for each block of 256
WEIGHT_BYTES = 0.5 + 4 / 64  # per parameter: 4 bits, a float32 scale for each block of 64
SMALLEST = 4096  # numbers of a parameter; states of smaller ones are float32


def adamw_8bit(groups: list[dict[str, Any]], betas: tuple[float, float]) -> torch.optim.Optimizer:
    """AdamW with states of 8 bits (Dettmers et al. 2022)."""
    return _library("optimizer.name: adamw_8bit").optim.AdamW8bit(groups, betas=betas, min_8bit_size=SMALLEST)


def quantize_text_layers(model: QwenVLAModel, compute: torch.dtype) -> None:
    """Replace the linear layers of the text layers by 4-bit ones (NF4); they are rounded when moved to a device."""
    library = _library("lora.quantize: nf4")
    for parent in list(model.vlm.model.language_model.layers.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and name in TEXT_LINEARS and name not in SENSITIVE:
                setattr(parent, name, _quantized(library, child, compute))


def _quantized(library: ModuleType, linear: nn.Linear, compute: torch.dtype) -> nn.Module:
    has_bias = linear.bias is not None
    layer = library.nn.Linear4bit(
        linear.in_features, linear.out_features, has_bias, compute_dtype=compute, quant_type="nf4", device="meta"
    )
    layer.weight = library.nn.Params4bit(linear.weight.detach(), requires_grad=False, quant_type="nf4", module=layer)
    layer.bias = linear.bias
    return layer


def is_quantized(module: nn.Module) -> bool:
    """Whether a module itself, not what an adapter wraps, is a 4-bit linear layer."""
    return _quant_state(module) is not None


def _quant_state(module: nn.Module) -> Any:
    return getattr(module._parameters.get("weight"), "quant_state", None)


def dequantized(module: nn.Module) -> torch.Tensor:
    """The weight [out, in] of a 4-bit linear layer, as its adapter was trained on it."""
    weight = module.get_parameter("weight").data
    return _library("lora.quantize: nf4").functional.dequantize_4bit(weight, _quant_state(module))


def _library(wanted_by: str) -> ModuleType:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise RecipeError(f"{wanted_by} needs bitsandbytes, which is not installed: pip install bitsandbytes")
    import bitsandbytes

    return bitsandbytes
