# SPDX-License-Identifier: Apache-2.0
"""The action expert: a single-stream DiT over backbone hidden states and noisy action tokens (arXiv 2605.30280 §2.2).

Projected backbone states and action tokens form one sequence with joint self-attention, AdaLN-Zero conditioning on the
flow time and the backbone's multi-section RoPE. There is no cross-attention and no shared cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from qwen_vla.model.aligned_weights import AlignedWeights

# The sinusoid expects times of the magnitude of diffusion step numbers.
TIMESTEP_SCALE = 1000.0


def mrope_cos_sin(
    position_ids: torch.Tensor, rotary_dim: int, theta: float, section: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotation angles of the backbone's interleaved multi-section RoPE.

    position_ids [3, B, S] (time, height, width). Frequency i belongs to height if i mod 3 = 1 and i < 3·section[1], to
    width if i mod 3 = 2 and i < 3·section[2], otherwise to time. Returns cos and sin [B, S, rotary_dim] in float32.
    """
    exponent = torch.arange(0, rotary_dim, 2, dtype=torch.float32, device=position_ids.device) / rotary_dim
    axis = torch.zeros(rotary_dim // 2, dtype=torch.long, device=position_ids.device)
    for index in (1, 2):
        axis[index : 3 * section[index] : 3] = index
    # Written like the backbone's, so that both round identically.
    angles = position_ids.float()[axis].permute(1, 2, 0) * (1.0 / theta**exponent)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the first ``cos.shape[-1]`` of the head's dimensions; x [B, heads, S, head_dim]."""
    rotary = cos.shape[-1]
    turned, passed = x[..., :rotary], x[..., rotary:]
    half = rotary // 2
    swapped = torch.cat((-turned[..., half:], turned[..., :half]), dim=-1)
    turned = turned * cos + swapped * sin
    return torch.cat((turned, passed), dim=-1) if passed.shape[-1] else turned


def _modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    """Affine-free layer norm followed by the time-dependent affine map of AdaLN."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), 1.0 + scale)


def _last(x: torch.Tensor, count: int | None, dim: int) -> torch.Tensor:
    """The last ``count`` entries along ``dim``; everything if there is nothing to select."""
    if count is None or x.shape[dim] == 1:
        return x
    return x.narrow(dim, x.shape[dim] - count, count)


def is_full(mask: torch.Tensor) -> bool:
    """Whether a mask is known to be all True. Only masks on the CPU are read: others would wait for the device."""
    return mask.device.type == "cpu" and bool(mask.all())


def joint_mask(keys: torch.Tensor | None, context: int, horizon: int, pattern: str, device) -> torch.Tensor | None:
    """The attention mask of ``context`` + ``horizon`` = S tokens: None (full) or a boolean [B or 1, 1, 1 or S, S].

    keys [B, S]: valid tokens, None: all. The patterns are those of ``QwenVLAConfig.attention_pattern``.
    """
    keys = None if keys is None else keys[:, None, None, :]
    if pattern == "bidirectional":
        return keys
    index = torch.arange(context + horizon, device=device)
    # Token i attends to the keys before end[i].
    after = index + 1 if pattern == "causal" else torch.full_like(index, context + horizon)
    end = torch.where(index < context, context, after)
    seen = (index < end[:, None])[None, None]
    return seen if keys is None else seen & keys


class DiTBlock(GradientCheckpointingLayer):
    """Joint self-attention and SwiGLU under AdaLN-Zero; 4d² + 6d² + 3·d·intermediate parameters, no biases."""

    def __init__(self, hidden_size: int, num_heads: int, intermediate_size: int, qk_norm: bool, norm_eps: float):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads
        self.norm_eps = norm_eps
        self.modulation = nn.Linear(hidden_size, 6 * hidden_size, bias=False)
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.out = nn.Linear(hidden_size, hidden_size, bias=False)
        self.gate_up = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down = nn.Linear(intermediate_size, hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=norm_eps) if qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(self.head_dim, eps=norm_eps) if qk_norm else nn.Identity()

    def forward(
        self,
        x: torch.Tensor,
        modulation: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None,
        last: int | None = None,
    ) -> torch.Tensor:
        """x [B, S, d]; modulation [B or 1, 1 or S, 6d]; cos, sin [B, 1, S, rotary]; mask [B or 1, 1, 1 or S, S].

        The mask is added to the scores: 0 where the query (second to last axis) attends to the key, −∞ elsewhere. With
        ``last`` = n only the last n tokens are updated and returned, for the final block.
        """
        shift_a, scale_a = modulation.chunk(6, dim=-1)[:2]
        x, attended = self._attend(x, _modulate(x, shift_a, scale_a, self.norm_eps), cos, sin, mask, last)
        gate_a, shift_m, scale_m, gate_m = _last(modulation, last, dim=1).chunk(6, dim=-1)[2:]
        x = torch.addcmul(x, gate_a, attended)
        gate, up = self.gate_up(_modulate(x, shift_m, scale_m, self.norm_eps)).chunk(2, dim=-1)
        return torch.addcmul(x, gate_m, self.down(F.silu(gate) * up))

    def _attend(self, x, normed, cos, sin, mask, last):
        batch, length, width = normed.shape
        query, key, value = self._heads(self.qkv(normed))
        key = _rotate(self.k_norm(key), cos, sin)
        if last is not None:
            x, query = x[:, length - last :], query[:, :, length - last :]
            cos, sin = cos[:, :, length - last :], sin[:, :, length - last :]
            mask = None if mask is None else _last(mask, last, dim=2)
        query = _rotate(self.q_norm(query), cos, sin)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return x, self.out(mixed.transpose(1, 2).reshape(batch, -1, width))

    def _heads(self, projected: torch.Tensor):
        batch, length, _ = projected.shape
        return projected.view(batch, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)


class DiTBlocks(nn.ModuleList):
    """The blocks of an expert, in order."""

    def __iter__(self) -> Iterator[DiTBlock]:
        return cast(Iterator[DiTBlock], super().__iter__())


@dataclass
class ExpertContext:
    """Shared by the Euler steps of a chunk, computed once: context tokens [B, S, d], angles and attention mask."""

    tokens: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    mask: torch.Tensor | None
    horizon: int

    def repeat(self, draws: int) -> ExpertContext:
        """The same context for ``draws`` noise draws per sample; draws of one sample are adjacent."""
        if draws == 1:
            return self
        mask = self.mask
        if mask is not None and mask.shape[0] > 1:
            mask = mask.repeat_interleave(draws, 0)
        tokens, cos, sin = (t.repeat_interleave(draws, 0) for t in (self.tokens, self.cos, self.sin))
        return ExpertContext(tokens, cos, sin, mask, self.horizon)


def _state_token(
    layer: nn.Linear, state: torch.Tensor | None, state_mask: torch.Tensor | None, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The state as a token [B, 1, d] and whether each row has one [B, 1]; a zero token if it has none."""
    batch = len(tokens)
    if state is None:
        state = tokens.new_zeros(batch, layer.in_features)
        state_mask = torch.zeros(batch, dtype=torch.bool, device=tokens.device)
    elif state_mask is None:
        state_mask = torch.ones(batch, dtype=torch.bool, device=tokens.device)
    present = state_mask.bool()[:, None]
    token = layer(torch.where(present, state, 0.0).to(tokens.dtype))
    return (token * present)[:, None], present


class ActionExpert(AlignedWeights, ModelMixin, ConfigMixin):
    """Predicts the flow velocity of an action chunk from backbone hidden states, noisy actions and the flow time.

    Sizes at the defaults (§2.2): 70.8 M per block, 3.9 M context projection, 2.8 M timestep embedding, 4.7 M output
    AdaLN, 4.9 M action input and output MLPs. Heads and mask are [open] in the paper: 12 × 128, bidirectional over
    valid tokens. With ``state_token`` the proprioceptive state is one more context token, directly before the actions.
    The last layer is initialized to zero, as in DiT.
    """

    @register_to_config
    def __init__(
        self,
        context_size: int = 2560,
        hidden_size: int = 1536,
        num_layers: int = 16,
        num_heads: int = 12,
        intermediate_size: int = 10240,
        action_channels: int = 64,
        timestep_frequencies: int = 256,
        qk_norm: bool = False,
        norm_eps: float = 1e-6,
        rotary_dim: int = 64,
        rope_theta: float = 10_000_000.0,
        mrope_section: list[int] | None = None,
        attention_pattern: str = "bidirectional",
        state_token: bool = False,
    ):
        super().__init__()
        self.section = list(mrope_section or (11, 11, 10))
        self.context_projection = nn.Linear(context_size, hidden_size, bias=False)
        self.state_in = nn.Linear(action_channels, hidden_size) if state_token else None
        self.frequencies = Timesteps(timestep_frequencies, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.timestep_embedding = TimestepEmbedding(timestep_frequencies, hidden_size)
        self.action_in = nn.Sequential(
            nn.Linear(action_channels, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )
        self.blocks = DiTBlocks(
            DiTBlock(hidden_size, num_heads, intermediate_size, qk_norm, norm_eps) for _ in range(num_layers)
        )
        self.out_modulation = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.action_out = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, action_channels)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier for linear layers, zero for every modulation and for the output (AdaLN-Zero)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    init.zeros_(module.bias)
            elif isinstance(module, nn.RMSNorm):
                init.ones_(module.weight)
        for block in self.blocks:
            init.zeros_(block.modulation.weight)
        init.zeros_(self.out_modulation.weight)
        init.zeros_(self.action_out[-1].get_parameter("weight"))

    def prepare_context(
        self,
        hidden: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        step_mask: torch.Tensor,
        state: torch.Tensor | None = None,
        state_mask: torch.Tensor | None = None,
        padded: bool = True,
    ) -> ExpertContext:
        """Everything independent of the flow time and the noisy actions.

        hidden [B, S, D], attention_mask [B, S], position_ids [3, B, S], step_mask [B, H] (True = this step exists).
        state [B, K] and state_mask [B] (True = the row has one) are for an expert with a state token. Action tokens
        continue after the largest valid position, on all three axes. ``padded`` False promises that attention_mask is
        all ones. A step_mask on the CPU is inspected, one on another device is always applied.
        """
        full = is_full(step_mask) and (not padded or is_full(attention_mask))
        valid, step_mask = attention_mask.bool(), step_mask.to(hidden.device).bool()
        # The backbone may be in half precision where the expert is in full.
        hidden = hidden.to(self.context_projection.weight.dtype)
        tokens = self.context_projection(hidden).masked_fill(~valid[..., None], 0.0)
        largest = position_ids.masked_fill(~valid, -1).amax(dim=(0, 2))
        if self.state_in is not None:
            token, has_state = _state_token(self.state_in, state, state_mask, tokens)
            tokens, valid = torch.cat((tokens, token), dim=1), torch.cat((valid, has_state), dim=1)
            full = full and is_full(has_state)
        added, horizon = tokens.shape[1] - hidden.shape[1], step_mask.shape[1]
        steps = largest[:, None] + 1 + torch.arange(added + horizon, device=position_ids.device)
        positions = torch.cat((position_ids, steps.expand(3, -1, -1)), dim=2)
        cos, sin = mrope_cos_sin(positions, self.config["rotary_dim"], self.config["rope_theta"], self.section)
        # A mask costs attention speed; a single unpadded sample needs none.
        keys = None if full else torch.cat((valid, step_mask), dim=1)
        mask = joint_mask(keys, tokens.shape[1], horizon, self.config["attention_pattern"], tokens.device)
        if mask is not None:  # added to the scores in every block and step
            mask = torch.zeros_like(mask, dtype=tokens.dtype).masked_fill(~mask, -torch.inf)
        return ExpertContext(tokens, cos[:, None].to(tokens.dtype), sin[:, None].to(tokens.dtype), mask, horizon)

    def modulations(self, tau: torch.Tensor) -> list[torch.Tensor]:
        """AdaLN parameters for the flow times ``tau`` [N]: one [N, 1, 6d] per block, then the output's [N, 1, 2d]."""
        frequencies = self.frequencies(tau.float() * TIMESTEP_SCALE).to(self.out_modulation.weight.dtype)
        embedded = F.silu(self.timestep_embedding(frequencies))
        return [layer(embedded)[:, None] for layer in (*(b.modulation for b in self.blocks), self.out_modulation)]

    def with_clean_prefix(
        self, modulations: list[torch.Tensor], context: ExpertContext, prefix: torch.Tensor
    ) -> list[torch.Tensor]:
        """Modulations per token: τ = 0 for the action tokens in ``prefix`` [B, H], the given ones for the others."""
        clean = self.modulations(torch.zeros(1, device=prefix.device))
        tokens = F.pad(prefix, (context.tokens.shape[1], 0))[..., None]
        mixed = [torch.where(tokens, zero, now) for zero, now in zip(clean[:-1], modulations[:-1], strict=True)]
        return [*mixed, torch.where(prefix[..., None], clean[-1], modulations[-1])]

    def velocity(self, context: ExpertContext, noisy: torch.Tensor, modulations: list[torch.Tensor]) -> torch.Tensor:
        """Velocity [B, H, K] of the noisy actions [B, H, K].

        Does not wait for the device or depend on values, so that it can be compiled and captured.
        """
        horizon = context.horizon
        x = torch.cat((context.tokens, self.action_in(noisy.to(context.tokens.dtype))), dim=1)
        for index, block in enumerate(self.blocks):
            last = horizon if index == len(self.blocks) - 1 else None
            x = block(x, modulations[index], context.cos, context.sin, context.mask, last)
        shift, scale = modulations[-1].chunk(2, dim=-1)
        return self.action_out(_modulate(x[:, -horizon:], shift, scale, self.config["norm_eps"]))

    def forward(
        self,
        hidden: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        noisy: torch.Tensor,
        tau: torch.Tensor,
        step_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Velocity [B, H, K] in one call: ``prepare_context``, ``modulations`` and ``velocity`` in turn."""
        if step_mask is None:
            step_mask = torch.ones(noisy.shape[:2], dtype=torch.bool, device=noisy.device)
        context = self.prepare_context(hidden, attention_mask, position_ids, step_mask)
        return self.velocity(context, noisy, self.modulations(tau))
