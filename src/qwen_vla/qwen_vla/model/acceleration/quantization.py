# SPDX-License-Identifier: Apache-2.0
"""Weights in 8-bit floating point: half the memory traffic, twice the rate of matrix products, some more rounding.

The large linear layers of the action expert's and the language tower's blocks become `Float8Linear`. Sensitive layers
(gates of the linear attention, AdaLN modulations, norms, embeddings, the vision tower) are unchanged, and so is the
expert's attention, whose products are too small to gain more than rounding its inputs costs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from qwen_vla.model.modeling import QwenVLAModel

CHOICES = ("none", "fp8")
FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
KEPT = ("modulation", "in_proj_a", "in_proj_b", "qkv", "out")  # names of linear layers in blocks that are unchanged
SMALLEST_ROW = 1e-12  # avoids division by zero for a row of zeros


def quantized(model: QwenVLAModel, choice: str) -> QwenVLAModel:
    """The model itself, with weights of type `choice`; ``none`` changes nothing. It cannot be trained or saved.

    ValueError for an unknown choice.
    """
    if choice not in CHOICES:
        raise ValueError(f"quantize {choice!r} is not one of {', '.join(CHOICES)}")
    if choice == "fp8":
        for block in (*model.vlm.model.language_model.layers, *model.action_expert.blocks):
            for parent in list(block.modules()):
                for name, child in list(parent.named_children()):
                    if type(child) is nn.Linear and name not in KEPT:
                        setattr(parent, name, Float8Linear(child))
    return model


class Float8Linear(nn.Module):
    """A linear layer with an 8-bit weight [out, in] and a scale per row; inputs are rounded likewise, per token."""

    weight: torch.Tensor
    scale: torch.Tensor
    one: torch.Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = rounded(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("one", torch.ones((), device=weight.device))
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] to [..., out] in the type of x."""
        rows, scales = rounded(x.reshape(-1, self.in_features))
        if x.is_cuda and x.dtype == torch.bfloat16:
            # Scaled afterwards: for products with a scale per row, the library has only one slow kernel.
            out = torch._scaled_mm(
                rows, self.weight.t(), self.one, self.one, out_dtype=torch.bfloat16, use_fast_accum=True
            )
        else:  # the same arithmetic without such matrix units
            out = F.linear(rows.float(), self.weight.float())
        out = out.float() * scales * self.scale.t()
        out = out if self.bias is None else out + self.bias
        return out.to(x.dtype).view(*x.shape[:-1], self.out_features)


def rounded(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows [N, K] in 8 bits, and the float32 divisor [N, 1] of each."""
    rows = rows.float()
    scale = rows.abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST_ROW) / LARGEST
    return (rows / scale).clamp(-LARGEST, LARGEST).to(FLOAT8), scale
