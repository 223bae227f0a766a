# SPDX-License-Identifier: Apache-2.0
"""Embeddings of tokens that a checkpoint's vocabulary lacks: the markers of cameras.

Each new row is the mean of the trained ones plus noise of their spread: rows that start equal would get equal inputs,
and the same image would mean the same through every camera.
"""

from __future__ import annotations

import torch
from transformers.models.qwen3_5 import Qwen3_5ForConditionalGeneration

ROW_MULTIPLE = 64  # a grown vocabulary is padded to this, which suits matrix products
ROWS_AT_ONCE = 4096  # sums over the vocabulary are computed in parts: a float32 copy would take gigabytes


@torch.no_grad()
def initialize_new_rows(backbone: Qwen3_5ForConditionalGeneration, trained: int, tokens: int) -> None:
    """Initialize tokens ``trained`` … ``tokens`` − 1, in the embedding and in the language head.

    Qwen pads its vocabulary; those spare rows are used first, and the matrix grows only if they run out.
    """
    fresh = range(trained, tokens)
    if tokens > len(_embedding(backbone)):
        padded = -(-tokens // ROW_MULTIPLE) * ROW_MULTIPLE
        backbone.resize_token_embeddings(padded, mean_resizing=False)  # changes the configuration's vocab_size, too
        fresh = range(trained, padded)
    weights = {id(w): w for w in (_embedding(backbone), backbone.lm_head.weight)}
    for weight in weights.values():
        mean, spread = _moments(weight[:trained])
        noise = torch.randn(len(fresh), len(mean), generator=torch.Generator().manual_seed(trained))
        weight[fresh.start : fresh.stop] = (mean + spread * noise.to(mean)).to(weight.dtype)


def _embedding(backbone: Qwen3_5ForConditionalGeneration) -> torch.Tensor:
    return backbone.get_input_embeddings().get_parameter("weight")


def _moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation [D] of rows [N, D], in float32."""
    parts = rows.split(ROWS_AT_ONCE)
    zeros = rows.new_zeros(rows.shape[1], dtype=torch.float32)
    mean = sum((part.sum(dim=0, dtype=torch.float32) for part in parts), zeros) / len(rows)
    variance = sum(((part.float() - mean).square().sum(dim=0) for part in parts), zeros) / len(rows)
    return mean, variance.sqrt()
