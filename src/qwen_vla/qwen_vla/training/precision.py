# SPDX-License-Identifier: Apache-2.0
"""In which type the steps of a training compute: the recipe's, except where a CPU would only imitate it."""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode

from qwen_vla.training.recipe import Recipe
from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe


def in_bf16(recipe: Recipe | ReinforcementRecipe, device: torch.device) -> bool:
    """Whether steps compute in bf16 on this device.

    A CPU without instructions for bf16 imitates them: a step of the tiny model took 40 s of an AVX2 core, and 10 s in
    fp32. So it computes in fp32, unless some weights are stored in fewer bits.
    """
    if recipe.autocast == "no":
        return False
    smaller = recipe.frozen_precision == "bf16" or (recipe.lora is not None and recipe.lora.quantize != "none")
    return device.type != "cpu" or smaller or cpu_has_bf16()


def cpu_has_bf16() -> bool:
    """Whether PyTorch's CPU library computes in bf16 with instructions for it."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def told(recipe: Recipe | ReinforcementRecipe, device: torch.device) -> str:
    """What is to be said of a recipe's precision on this device, to be appended to it; usually nothing."""
    another = recipe.autocast == "bf16" and not in_bf16(recipe, device)
    return " in fp32 (no instructions for bf16 here)" if another else ""


class Float32(TorchFunctionMode):
    """While active, `bfloat16()` copies a tensor in float32, in which torch's Muon, having no option, then computes."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0].float().clone() if func is torch.Tensor.bfloat16 else func(*args, **(kwargs or {}))
