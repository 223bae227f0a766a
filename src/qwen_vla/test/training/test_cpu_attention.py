# SPDX-License-Identifier: Apache-2.0
"""Attention by matrix products is PyTorch's attention."""

import pytest
import torch
import torch.nn.functional as F
from comparison import assert_alike

from qwen_vla.training.cpu_attention import MatmulAttention, attend

SHAPES = {"image": (6, 4, 36, 36, 32), "prompt": (2, 4, 50, 50, 32), "cross": (2, 4, 7, 19, 16)}


def inputs(shape, key_heads=None, dtype=torch.float32):
    batch, heads, queries, keys, width = shape
    generator = torch.Generator().manual_seed(0)
    sizes = [(heads, queries), (key_heads or heads, keys), (key_heads or heads, keys)]
    return [torch.randn(batch, h, n, width, generator=generator).to(dtype).requires_grad_() for h, n in sizes]


def padding_mask(shape):
    """Left padding of different lengths, seen by every query; the last key is always there."""
    batch, _, queries, keys, _ = shape
    first = torch.arange(batch) * keys // (2 * batch)
    return (torch.arange(keys) >= first[:, None])[:, None, None].expand(batch, 1, queries, keys)


def additive(mask):
    return torch.where(mask, 0.0, -torch.inf) + torch.linspace(0, 1, mask.shape[-1])


VARIANTS = {
    "plain": lambda shape: {},
    "causal": lambda shape: {"is_causal": True},
    "boolean mask": lambda shape: {"attn_mask": padding_mask(shape)},
    "additive mask": lambda shape: {"attn_mask": additive(padding_mask(shape))},
    "scale": lambda shape: {"scale": 0.37},
    "grouped queries": lambda shape: {"enable_gqa": True, "is_causal": True},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_output_and_gradients_are_those_of_pytorch(shape, variant):
    options = VARIANTS[variant](shape)
    key_heads = 2 if "enable_gqa" in options else None
    results = []
    for attention in (F.scaled_dot_product_attention, attend):
        tensors = inputs(shape, key_heads)
        output = attention(*tensors, **options)
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        results.append([output, *(tensor.grad for tensor in tensors)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_the_mode_replaces_pytorchs_attention_and_only_while_active():
    query, key, value = inputs(SHAPES["prompt"])
    with MatmulAttention():
        replaced = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        assert F.relu(torch.tensor(-1.0)) == 0, "everything else goes its usual way"
    assert_alike(replaced, attend(query, key, value, is_causal=True))
    usual = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert "ScaledDotProduct" in type(usual.grad_fn).__name__
    assert "ScaledDotProduct" not in type(replaced.grad_fn).__name__


def test_bfloat16_stays_bfloat16_and_close():
    exact, rough = inputs(SHAPES["image"]), inputs(SHAPES["image"], dtype=torch.bfloat16)
    output = attend(*rough)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), attend(*exact), atol=0.03, rtol=0.03)


def test_dropout_is_refused():
    with pytest.raises(ValueError, match="dropout is not supported"):
        attend(*inputs(SHAPES["cross"]), dropout_p=0.1)
