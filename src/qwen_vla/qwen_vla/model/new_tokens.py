# SPDX-License-Identifier: Apache-2.0
"""Embeddings of tokens that a checkpoint's vocabulary lacks: the markers of cameras.

Each new row is the mean of the trained ones plus noise of their spread: rows that start equal would get equal inputs,
and the same image would mean the same through every camera.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

ROW_MULTIPLE = 64  # a grown vocabulary is padded to this, which suits matrix products
ROWS_AT_ONCE = 4096  # sums over the vocabulary are computed in parts: a float32 copy would take gigabytes


@torch.no_grad()
def initialize_new_rows(model: PreTrainedModel, trained: int, tokens: int) -> None:
    """Initialize tokens ``trained`` … ``tokens`` − 1, in the embedding and in the language head.

    Qwen pads its vocabulary; those spare rows are used first, and the matrix grows only if they run out.
    """
    rows = len(model.get_input_embeddings().weight)
    fresh = range(trained, tokens)
    if tokens > rows:
        padded = -(-tokens // ROW_MULTIPLE) * ROW_MULTIPLE
        model.vlm.resize_token_embeddings(padded, mean_resizing=False)
        model.config.vlm_config.text_config.vocab_size = padded
        fresh = range(trained, padded)
    weights = {id(w): w for w in (model.get_input_embeddings().weight, model.vlm.lm_head.weight)}
    for weight in weights.values():
        mean, spread = _moments(weight[:trained])
        noise = torch.randn(len(fresh), len(mean), generator=torch.Generator().manual_seed(trained))
        weight[fresh.start : fresh.stop] = (mean + spread * noise.to(mean)).to(weight.dtype)


def _moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation [D] of rows [N, D], in float32."""
    parts = rows.split(ROWS_AT_ONCE)
    mean = sum(part.sum(dim=0, dtype=torch.float32) for part in parts) / len(rows)
    variance = sum((part.float() - mean).square().sum(dim=0) for part in parts) / len(rows)
    return mean, variance.sqrt()
