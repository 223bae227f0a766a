# SPDX-License-Identifier: Apache-2.0
"""QwenVLAModel: transformers' Qwen3.5 backbone followed by a flow-matching action expert.

``encode`` is the only place where the backbone runs; ``action_loss`` and ``sample_actions`` run only the expert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.models.qwen3_5 import Qwen3_5ForConditionalGeneration
from transformers.utils import ModelOutput
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from qwen_vla.model.action_expert import ActionExpert, ExpertContext, is_full
from qwen_vla.model.aligned_weights import AlignedWeights
from qwen_vla.model.configuration import QwenVLAConfig
from qwen_vla.model.flow_matching import (
    LossTerms,
    euler_integrate,
    flow_matching_loss,
    interpolate,
    sample_tau,
    tau_grid,
)
from qwen_vla.model.images.vision_layers import LinearPatchEmbed, PackedImageAttention
from qwen_vla.model.linear_attention import LinearAttention
from qwen_vla.model.pretrained import load_backbone
from qwen_vla.model.real_time_chunking import Continuation, guided

if TYPE_CHECKING:
    from qwen_vla.model.processing import QwenVLAProcessor

IGNORED_LABEL = -100


@dataclass
class Encoding:
    """The backbone's output for a batch, and further inputs of the expert.

    hidden: last hidden states [B, S, D]. attention_mask, image_token_mask [B, S]. position_ids [3, B, S]. context: the
    hidden states [B, S, D] that condition the expert, None: the last. state [B, K], state_mask [B]: proprioception.
    padded: False if attention_mask is known to be all ones.
    """

    hidden: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    image_token_mask: torch.Tensor
    context: torch.Tensor | None = None
    state: torch.Tensor | None = None
    state_mask: torch.Tensor | None = None
    padded: bool = True

    def rows(self, index: torch.Tensor) -> Encoding:
        """The samples selected by ``index`` (row indices or a mask [B])."""
        chosen = {n: t[index] for n, t in vars(self).items() if isinstance(t, torch.Tensor) and n != "position_ids"}
        return replace(self, **chosen, position_ids=self.position_ids[:, index])


@dataclass
class QwenVLAOutput(ModelOutput):
    """loss = λ_act·action_loss + λ_vl·language_loss over the requested parts.

    action_terms, language_terms: the same losses as sum and count, for a mean over several processes.
    """

    loss: torch.Tensor | None = None
    action_loss: torch.Tensor | None = None
    language_loss: torch.Tensor | None = None
    action_terms: LossTerms | None = None
    language_terms: LossTerms | None = None


def multimodal_positions(
    attention_mask: torch.Tensor, image_token_mask: torch.Tensor, image_grid_thw: torch.Tensor | None, merge: int
) -> torch.Tensor:
    """Positions [3, B, S] as defined by the backbone's ``get_rope_index``, without its Python loop.

    On a GPU nothing is checked; on a CPU a number of image tokens that does not match the images is a ValueError.

    A text token advances all axes by one. An image's tokens share the time of its first token, use their row and
    column as height and width offsets, and the image advances all axes by its longer side.
    """
    valid = attention_mask.bool()
    image = image_token_mask & valid
    advance, offsets = (valid & ~image).long(), torch.zeros(3, *valid.shape, dtype=torch.long, device=valid.device)
    if image_grid_thw is not None:
        rows, columns = (image_grid_thw[:, axis].long() // merge for axis in (1, 2))
        counts = rows * columns
        if valid.device.type == "cpu" and int(counts.sum()) != int(image.sum()):
            raise ValueError(f"the prompt has {int(image.sum())} image tokens but the images need {int(counts.sum())}")
        ends = counts.cumsum(0)
        number = (image.flatten().cumsum(0) - 1).view_as(advance)  # of each image token, in the order of the images
        owner = torch.searchsorted(ends, number, right=True).clamp(max=len(ends) - 1)
        inside = number - (ends - counts)[owner]
        offsets[1:] = torch.where(image, torch.stack((inside // columns[owner], inside % columns[owner])), 0)
        # The whole advance of an image is assigned to its last token, so that all its tokens share one base.
        at_end = torch.where(inside == counts[owner] - 1, torch.maximum(rows, columns)[owner], 0)
        advance = torch.where(image, at_end, advance)
    base = advance.cumsum(1) - advance
    return torch.where(valid, base + offsets, 0)


def _rows_with_actions(action_mask: torch.Tensor, draws: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the rows with actions, and of their ``draws`` draws each.

    Without any, the first row, whose loss is then masked: processes that share a sharded expert must all run it.
    """
    rows = action_mask.flatten(1).any(dim=1).nonzero()[:, 0]
    rows = rows if len(rows) else rows.new_zeros(1)
    return rows, (rows[:, None] * draws + torch.arange(draws, device=rows.device)).flatten()


class QwenVLAModel(AlignedWeights, PreTrainedModel):
    """Qwen-VLA: vision, language and continuous action in one model (arXiv 2605.30280).

    Batches are left-padded dictionaries from ``QwenVLAProcessor``.
    """

    config: QwenVLAConfig
    config_class = QwenVLAConfig
    base_model_prefix = "vlm"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ["Qwen3_5DecoderLayer", "Qwen3_5VisionBlock", "DiTBlock"]

    def __init__(self, config: QwenVLAConfig):
        super().__init__(config)
        self.vlm = Qwen3_5ForConditionalGeneration(config.backbone)
        visual = self.vlm.model.visual
        visual.patch_embed = LinearPatchEmbed(visual.config)
        for block in visual.blocks:
            PackedImageAttention.adopt(block.attn)
        for layer in self.vlm.model.language_model.layers:
            if layer.block_type == "linear_attention":
                LinearAttention.adopt(layer.linear_attn)
        self.action_expert = ActionExpert(**config.expert.module_arguments())
        self._vision_constants: dict[tuple, dict[str, torch.Tensor]] = {}
        self.post_init()

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # For classes outside transformers, a module without its own parameters would be skipped, and with it the
        # expert. That guard is for code that ignores which weights were loaded; everything here respects it.
        super()._initialize_weights(module, False)

    def _init_weights(self, module: nn.Module) -> None:
        # Children are visited before their parents, so that the expert initializes its own layers last.
        if isinstance(module, ActionExpert):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    @property
    def block_names(self) -> set[str]:
        """Classes of the blocks, which are sharded and compiled as a whole."""
        return set(self._no_split_modules or ())

    def get_input_embeddings(self) -> nn.Embedding:
        return self.vlm.model.language_model.embed_tokens

    @classmethod
    def from_backbone(cls, source: str | Path, **options) -> tuple[QwenVLAModel, QwenVLAProcessor]:
        """A Qwen3.5 checkpoint (folder or hub id) with a new action expert: see ``pretrained.load_backbone``."""
        return load_backbone(cls, source, **options)

    # --- backbone -------------------------------------------------------------------------------------------------

    def encode(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        actions: torch.Tensor | None = None,
        action_mask: torch.Tensor | None = None,
        state: torch.Tensor | None = None,
        state_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        right_padded: bool = False,
    ) -> Encoding:
        """Run the backbone once. Training targets in the batch are ignored.

        input_ids, attention_mask, mm_token_type_ids [B, S]; pixel_values [patches, features]; image_grid_thw
        [images, 3], of images and steps of videos in the order of their tokens; state [B, K] and state_mask [B] are
        passed on. Without attention_mask no row is padded.
        ``right_padded`` promises that padding follows each row's tokens, where a causal backbone never attends to it,
        so that no mask is needed. To avoid waiting for a GPU, make that promise or omit a mask of ones, keep
        image_grid_thw on the CPU, and pass ``position_ids`` that ``positions`` computed on the CPU.
        """
        del mm_token_type_ids, labels, actions, action_mask
        padded = attention_mask is not None and not is_full(attention_mask)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if position_ids is None:
            position_ids = self.positions(input_ids, attention_mask, image_grid_thw)
        image_tokens = self._image_tokens(input_ids)
        embedded = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            features = self._encode_images(pixel_values, image_grid_thw).to(embedded.dtype)
            embedded = embedded.masked_scatter(image_tokens[..., None], features)
        tap = self.config.context_layer
        tap = None if tap == self.config.text.num_hidden_layers else tap
        output = self.vlm.model.language_model(
            inputs_embeds=embedded,
            attention_mask=attention_mask if padded and not right_padded else None,
            position_ids=position_ids,
            use_cache=False,
            output_hidden_states=tap is not None,
        )
        context = None if tap is None else self.vlm.model.language_model.norm(output.hidden_states[tap])
        return Encoding(
            output.last_hidden_state, attention_mask, position_ids, image_tokens, context, state, state_mask, padded
        )

    def positions(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Positions [3, B, S] of a batch, computed on its device."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if image_grid_thw is not None:
            image_grid_thw = image_grid_thw.to(input_ids.device)
        image_tokens = self._image_tokens(input_ids)
        merge = self.config.vision.spatial_merge_size
        return multimodal_positions(attention_mask, image_tokens, image_grid_thw, merge)

    def _image_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Mask of the tokens of images and of steps of videos, which differ in nothing but their id."""
        config = self.config.backbone
        return (input_ids == config.image_token_id) | (input_ids == config.video_token_id)

    def expert_context(self, encoding: Encoding, step_mask: torch.Tensor) -> ExpertContext:
        """``ActionExpert.prepare_context`` with the fields of the encoding; step_mask [B, H]."""
        return self.action_expert.prepare_context(
            encoding.hidden if encoding.context is None else encoding.context,
            encoding.attention_mask,
            encoding.position_ids,
            step_mask,
            encoding.state,
            encoding.state_mask,
            encoding.padded,
        )

    def _encode_images(self, pixel_values: torch.Tensor, grid: torch.Tensor | None) -> torch.Tensor:
        """Features [image tokens, D] of all images; pixel_values [patches, features], grid [images, 3]."""
        if grid is None:
            raise ValueError("pixel_values without image_grid_thw: pass the shapes of the images, too")
        visual, device = self.vlm.model.visual, pixel_values.device
        first, count = tuple(grid[0].tolist()), len(grid)
        if not bool((grid == grid[0]).all()) or first[0] != 1 or visual.config._attn_implementation != "sdpa":
            return visual(pixel_values, grid_thw=grid.to(device)).pooler_output
        constants = self._uniform_vision_constants(grid, first, count, device)
        return visual(pixel_values, grid_thw=grid, image_count=count, **constants).pooler_output

    def _uniform_vision_constants(
        self, grid: torch.Tensor, shape: tuple, count: int, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """Position tensors of ``count`` images of one shape, computed once per shape and repeated."""
        key = (*shape, device)
        if key not in self._vision_constants:
            with torch.inference_mode(False):  # tensors created in inference mode could not be used in training later
                self._vision_constants[key] = self._vision_constants_of(grid[:1].to(device, copy=True))
        constants = self._vision_constants[key]
        return {
            "interp_indices": constants["indices"].repeat(count, 1),
            "interp_weights": constants["weights"].repeat(count, 1),
            "position_ids": constants["positions"].repeat(count, 1),
            "cu_seqlens": constants["lengths"],
        }

    def _vision_constants_of(self, grid: torch.Tensor) -> dict[str, torch.Tensor]:
        """Position tensors of one image of the shape ``grid`` [1, 3]."""
        visual = self.vlm.model.visual
        indices, weights = get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=visual.spatial_merge_size,
        )
        positions = get_vision_position_ids(grid, visual.spatial_merge_size)
        lengths = torch.zeros(2, dtype=torch.int32)  # required by the backbone, but unused
        return {"indices": indices, "weights": weights, "positions": positions, "lengths": lengths}

    def language_loss(self, encoding: Encoding, labels: torch.Tensor) -> torch.Tensor:
        """Mean next-token cross-entropy over the labeled tokens; 0 without any."""
        return self.language_terms(encoding, labels).mean

    def language_terms(self, encoding: Encoding, labels: torch.Tensor) -> LossTerms:
        """The language loss as a sum and the number of labeled tokens; the head runs only on these."""
        targets = labels[:, 1:]
        rows, columns = (targets != IGNORED_LABEL).nonzero(as_tuple=True)
        if not len(rows):  # one ignored token: processes that share a sharded head must all run it
            rows = columns = rows.new_zeros(1)
        logits, wanted = self.vlm.lm_head(encoding.hidden[rows, columns]), targets[rows, columns]
        total = F.cross_entropy(logits.float(), wanted, ignore_index=IGNORED_LABEL, reduction="sum")
        return LossTerms(total, (wanted != IGNORED_LABEL).sum())

    @torch.no_grad()
    def answered(self, encoding: Encoding, labels: torch.Tensor) -> torch.Tensor:
        """For every row with labeled tokens, in order, whether each is the most likely one given those before it."""
        targets = labels[:, 1:]
        asked = targets != IGNORED_LABEL
        right = torch.ones_like(asked)
        right[asked] = self.vlm.lm_head(encoding.hidden[:, :-1][asked]).argmax(dim=-1) == targets[asked]
        return right.all(dim=1)[asked.any(dim=1)]

    # --- actions --------------------------------------------------------------------------------------------------

    def action_loss(
        self,
        encoding: Encoding,
        actions: torch.Tensor,
        action_mask: torch.Tensor,
        tau: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        noise_draws: int = 1,
        generator: torch.Generator | None = None,
        prefix_steps: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean flow-matching loss of normalized actions; arguments of ``action_terms``."""
        return self.action_terms(encoding, actions, action_mask, tau, noise, noise_draws, generator, prefix_steps).mean

    def action_terms(
        self,
        encoding: Encoding,
        actions: torch.Tensor,
        action_mask: torch.Tensor,
        tau: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        noise_draws: int = 1,
        generator: torch.Generator | None = None,
        prefix_steps: torch.Tensor | None = None,
    ) -> LossTerms:
        """Flow-matching loss of normalized actions [B, H, K] under their mask [B, H, K], as a sum and a count.

        H may differ from the configured horizon. The expert runs on the rows with actions, and only these are counted.
        With ``noise_draws`` = R every observation is used with R independent (noise, τ) pairs. ``tau`` [B·R] and
        ``noise`` [B·R, H, K] replace the random ones; draws of one sample are adjacent. The first
        ``prefix_steps`` [B] steps are clean in the input, with their own flow time of 0, and have no loss: this trains
        chunks that continue another (``real_time_chunking``).
        """
        mask = action_mask.bool().repeat_interleave(noise_draws, 0)
        # Drawn for every row, so that a row's noise does not depend on the others' actions.
        if tau is None:
            tau = self._sample_tau(len(mask), generator, mask.device)
        if noise is None:
            noise = self._noise(mask, torch.float32, generator)
        rows, draws = _rows_with_actions(action_mask, noise_draws)
        mask, tau, noise = mask[draws], tau[draws], noise[draws]
        chosen = encoding.rows(rows)
        context = self.expert_context(chosen, action_mask[rows].bool().any(dim=-1)).repeat(noise_draws)
        # In float32 whatever the model computes in: rounded to bf16, labels would be off by a milliradian.
        clean = torch.where(mask, actions[rows].repeat_interleave(noise_draws, 0), 0.0).float()
        noise = torch.where(mask, noise, 0.0).float()
        noisy, modulations = interpolate(clean, noise, tau), self.action_expert.modulations(tau)
        if prefix_steps is not None:
            steps = prefix_steps[rows].repeat_interleave(noise_draws)
            given = torch.arange(mask.shape[1], device=mask.device) < steps[:, None]
            noisy = torch.where(given[..., None], clean, noisy)
            modulations = self.action_expert.with_clean_prefix(modulations, context, given)
            mask = mask & ~given[..., None]
        predicted = self.action_expert.velocity(context, noisy, modulations)
        return flow_matching_loss(predicted.float(), noise - clean, mask)

    @torch.no_grad()
    def sample_actions(
        self,
        encoding: Encoding,
        action_mask: torch.Tensor,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        noise: torch.Tensor | None = None,
        continuation: Continuation | None = None,
    ) -> torch.Tensor:
        """Integrate noise to normalized actions [B, H, K] with ``steps`` Euler steps; masked entries are 0.

        Only the expert runs here. Noise comes from ``generator`` (a CPU generator gives the same chunk on any device),
        at the configured temperature; ``noise`` replaces it.
        With ``continuation`` the chunk continues another one; a guided one costs a backward pass per Euler step and
        cannot run in inference mode.
        """
        step_mask = action_mask.bool().any(dim=-1)  # read on its own device, before it is moved
        context = self.expert_context(encoding, step_mask)
        return self.sample_from(context, action_mask, steps, generator, noise, continuation)

    @torch.no_grad()
    def sample_from(
        self,
        context: ExpertContext,
        action_mask: torch.Tensor,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        noise: torch.Tensor | None = None,
        continuation: Continuation | None = None,
    ) -> torch.Tensor:
        """``sample_actions`` from the context that ``expert_context`` returns."""
        steps = self.config.euler_steps if steps is None else steps
        mask = action_mask.to(context.tokens.device).bool()
        start = (
            self.start_noise(mask, context.tokens.dtype, generator) if noise is None else torch.where(mask, noise, 0.0)
        )
        if continuation is None:
            return euler_integrate(self._field(context, mask, steps), start, steps)
        previous = torch.where(mask, continuation.previous.to(start), 0.0)
        continuation = replace(continuation, previous=previous)
        if continuation.variant == "guided":
            field = guided(self._field(context, mask, steps), tau_grid(steps).tolist(), continuation, mask)
        else:
            prefix = continuation.prefix()
            start = torch.where(prefix[..., None], previous, start)
            field = self._field(context, mask, steps, prefix)
        return euler_integrate(field, start, steps)

    def _field(
        self, context: ExpertContext, mask: torch.Tensor, steps: int, prefix: torch.Tensor | None = None
    ) -> Callable[[torch.Tensor, int], torch.Tensor]:
        """Velocity as a function of noisy actions and Euler step; 0 where masked and for steps in ``prefix`` [1, H]."""
        expert = self.action_expert
        tables = expert.modulations(tau_grid(steps, mask.device)[:-1])
        moving = mask if prefix is None else mask & ~prefix[..., None]

        def velocity(noisy: torch.Tensor, step: int) -> torch.Tensor:
            now = [table[step : step + 1] for table in tables]
            if prefix is not None:
                now = expert.with_clean_prefix(now, context, prefix)
            return torch.where(moving, expert.velocity(context, noisy, now), 0.0)

        return velocity

    def predict_action_chunk(
        self,
        action_mask: torch.Tensor,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        **batch: torch.Tensor,
    ) -> torch.Tensor:
        """``encode`` followed by ``sample_actions``: normalized actions [B, H, K]."""
        with torch.no_grad():
            return self.sample_actions(self.encode(**batch, right_padded=False), action_mask, steps, generator)

    def _sample_tau(self, count: int, generator: torch.Generator | None, device: torch.device) -> torch.Tensor:
        c = self.config
        return sample_tau(
            count,
            distribution=c.tau_distribution,
            direction=c.tau_direction,
            alpha=c.beta_alpha,
            beta=c.beta_beta,
            scale=c.tau_scale,
            mean=c.logit_normal_mean,
            std=c.logit_normal_std,
            generator=generator,
            device=device,
        )

    @staticmethod
    def _noise(mask: torch.Tensor, dtype: torch.dtype, generator: torch.Generator | None) -> torch.Tensor:
        """N(0, 1) where the mask is set, 0 elsewhere."""
        device = mask.device if generator is None else generator.device
        noise = torch.randn(mask.shape, generator=generator, device=device).to(mask.device, dtype)
        return torch.where(mask, noise, 0.0)

    def start_noise(
        self, mask: torch.Tensor, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """What a sampled chunk starts from [B, H, K]: noise at the configured temperature, 0 where masked."""
        return self.config.noise_temperature * self._noise(mask, dtype, generator)

    # --- both -----------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        actions: torch.Tensor | None = None,
        action_mask: torch.Tensor | None = None,
        tau: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        noise_draws: int = 1,
        prefix_steps: torch.Tensor | None = None,
        state: torch.Tensor | None = None,
        state_mask: torch.Tensor | None = None,
    ) -> QwenVLAOutput:
        """Training losses. The expert runs only with ``actions``, the language head only with ``labels``."""
        if actions is None and labels is None:
            raise ValueError("no targets: pass actions with action_mask, labels, or both (use encode to predict)")
        if (actions is None) != (action_mask is None):
            raise ValueError("actions and action_mask must be passed together")
        encoding = self.encode(
            input_ids, attention_mask, pixel_values, image_grid_thw, state=state, state_mask=state_mask
        )
        losses, action, language = [], None, None
        if actions is not None and action_mask is not None:
            action = self.action_terms(
                encoding, actions, action_mask, tau, noise, noise_draws, prefix_steps=prefix_steps
            )
            losses.append(self.config.action_loss_weight * action.mean)
        if labels is not None:
            language = self.language_terms(encoding, labels)
            losses.append(self.config.language_loss_weight * language.mean)
        total = sum(losses[1:], losses[0])
        return QwenVLAOutput(total, action and action.mean, language and language.mean, action, language)
