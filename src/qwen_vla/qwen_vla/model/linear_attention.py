# SPDX-License-Identifier: Apache-2.0
"""The backbone's gated linear attention over whole prompts: transformers' layer with the same parameters, but faster.

`LinearAttention` adopts a layer in place. Its recurrence runs in the Triton kernels of ``flash-linear-attention`` if
they are installed and the tensors are half precision on a GPU, otherwise in transformers' PyTorch reference. For a
compiler, the recurrence is one opaque operator, and the short convolution is written so that it can be fused.
"""

from __future__ import annotations

import importlib.util
import inspect

import torch
import torch.nn.functional as F
from transformers.models.qwen3_5 import modeling_qwen3_5 as qwen
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet, apply_mask_to_padding_states

KERNEL_PACKAGE = "flash-linear-attention"
HALF = (torch.bfloat16, torch.float16)

_reference = inspect.unwrap(qwen.torch_chunk_gated_delta_rule)


def kernels_installed() -> bool:
    """Whether ``flash-linear-attention`` is installed; nothing is imported."""
    return importlib.util.find_spec("fla") is not None


class LinearAttention(Qwen3_5GatedDeltaNet):
    """A gated delta net for prompts; with a cache it is transformers' own."""

    @staticmethod
    def adopt(layer: Qwen3_5GatedDeltaNet) -> None:
        """Convert an existing layer in place; its parameters and their names are kept."""
        layer.__class__ = LinearAttention

    def forward(self, hidden_states, cache_params=None, attention_mask=None, **kwargs):
        """hidden_states [B, S, D]; attention_mask [B, S], None if no padding precedes a token."""
        if cache_params is not None:
            return super().forward(hidden_states, cache_params, attention_mask, **kwargs)
        hidden = apply_mask_to_padding_states(hidden_states, attention_mask)
        mixed = self._convolved(self.in_proj_qkv(hidden))
        query, key, value = mixed.split((self.key_dim, self.key_dim, self.value_dim), dim=-1)
        # In float32, as in the reference: in half precision the decay could become infinite.
        decay = -self.A_log.float().exp() * F.softplus(self.in_proj_a(hidden).float() + self.dt_bias)
        out = delta_rule(
            query.unflatten(-1, (-1, self.head_k_dim)),
            key.unflatten(-1, (-1, self.head_k_dim)),
            value.unflatten(-1, (-1, self.head_v_dim)),
            decay,
            self.in_proj_b(hidden).sigmoid(),
        )
        gate = self.in_proj_z(hidden).view(-1, self.head_v_dim)
        return self.out_proj(self.norm(out.reshape(-1, self.head_v_dim), gate).view(*hidden.shape[:2], -1))

    def _convolved(self, x: torch.Tensor) -> torch.Tensor:
        """Causal convolution of every channel along the prompt, then SiLU; x [B, S, channels]."""
        weight = self.conv1d.weight[:, 0]
        if not torch.compiler.is_compiling():
            convolved = qwen.causal_conv1d_fn(x.transpose(1, 2), weight, self.conv1d.bias, activation=self.activation)
            return convolved.transpose(1, 2)
        taps = weight.shape[1]
        shifted = F.pad(x, (0, 0, taps - 1, 0)).float()
        products = [shifted[:, tap : tap + x.shape[1]] * weight[:, tap].float() for tap in range(taps)]
        return F.silu(sum(products[1:], products[0])).to(x.dtype)


def delta_rule(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, decay: torch.Tensor, beta: torch.Tensor
) -> torch.Tensor:
    """The gated delta rule along the prompt; query, key [B, S, k_heads, d], value and result [B, S, v_heads, e].

    decay (logarithm, at most 0) and beta [B, S, v_heads]. Queries and keys are normalized here.
    """
    if torch.compiler.is_compiling():
        return torch.ops.qwen_vla.delta_rule(query, key, value, decay, beta)
    return _delta_rule(query, key, value, decay, beta)


def _delta_rule(query, key, value, decay, beta):
    rule = _kernel() if query.is_cuda and query.dtype in HALF and kernels_installed() else _reference
    return rule(query, key, value, g=decay, beta=beta, use_qk_l2norm_in_kernel=True)[0]


def _kernel():
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    return chunk_gated_delta_rule


@torch.library.custom_op("qwen_vla::delta_rule", mutates_args=())
def _opaque_delta_rule(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, decay: torch.Tensor, beta: torch.Tensor
) -> torch.Tensor:
    return _delta_rule(query, key, value, decay, beta).contiguous()


@_opaque_delta_rule.register_fake
def _(query, key, value, decay, beta):
    return torch.empty_like(value, memory_format=torch.contiguous_format)
