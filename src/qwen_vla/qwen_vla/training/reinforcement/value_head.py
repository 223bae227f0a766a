# SPDX-License-Identifier: Apache-2.0
"""The critic: a linear read-out of the backbone's features; it never trains the backbone. And both as one module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from qwen_vla.model.modeling import Encoding, QwenVLAModel

T = TypeVar("T")


class ValueHead(nn.Module):
    """Mean of the backbone's hidden states over valid tokens → one value per observation [N], in float32.

    The gradient stops at the hidden states (paper, RL stage). It is initialized to 0.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.out = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, encoding: Encoding) -> torch.Tensor:
        hidden = encoding.hidden.detach().float()
        valid = encoding.attention_mask.bool()[..., None]
        mean = torch.where(valid, hidden, 0.0).sum(1) / valid.sum(1)
        return self.out(mean)[:, 0]


class ActorCritic(nn.Module):
    """The policy's model and the critic, for DDP and FSDP; a call computes something with their weights."""

    def __init__(self, model: QwenVLAModel, value_head: ValueHead) -> None:
        super().__init__()
        self.model, self.value_head = model, value_head

    def forward(self, compute: Callable[[], T]) -> T:
        return compute()
