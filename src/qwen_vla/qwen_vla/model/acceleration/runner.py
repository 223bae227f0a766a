# SPDX-License-Identifier: Apache-2.0
"""Computes chunks in the fastest verified way: the backbone and the Euler loop, each compiled, captured or plain."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from qwen_vla.model.acceleration.compiled_blocks import CompiledBlocks, keep_compiled_code
from qwen_vla.model.acceleration.euler_loop import EulerLoop
from qwen_vla.model.acceleration.replayed_call import ReplayedCall
from qwen_vla.model.acceleration.verified_call import Decision, Make, VerifiedCall
from qwen_vla.model.action_expert import ExpertContext, is_full
from qwen_vla.model.images.transform import ImageTransform, image_transform_of
from qwen_vla.model.modeling import QwenVLAModel
from qwen_vla.model.real_time_chunking import Continuation

MODES = ("auto", "off", "graphs", "compile")


class ChunkRunner:
    """The computation of a chunk: the context of the expert, and actions from it.

    mode: ``auto`` is compiled blocks in CUDA graphs on a GPU and plain PyTorch elsewhere; ``graphs`` does not compile;
    ``compile`` also compiles on a CPU, if that is faster; ``off`` calls the model's own methods. With ``fixed_shapes``
    everything is prepared for the shapes of its first call, which then takes seconds: `Policy.warm_up` makes these
    calls. The weights may change between chunks; their shapes and device may not. On a GPU results are valid until the
    next call. transform: for images that batches contain unrounded; by default that of the model's configuration.
    """

    def __init__(self, model: QwenVLAModel, mode: str = "auto", transform: ImageTransform | None = None):
        if mode not in MODES:
            raise ValueError(f"accelerate {mode!r} is not one of {', '.join(MODES)}")
        self.model, self.mode, self.device = model, mode, model.device
        self._transform = transform or image_transform_of(model.config)
        self._on_gpu = self.device.type == "cuda"
        self.fixed_shapes = mode == "compile" or mode != "off" and self._on_gpu
        if self.fixed_shapes:
            keep_compiled_code()
        self._pool = torch.cuda.graph_pool_handle() if self._on_gpu else None
        self._blocks: CompiledBlocks | None = None
        self._grids: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._backbone = self._verified("backbone", self._plain_context)
        self._loops: dict[int, tuple[EulerLoop, VerifiedCall]] = {}

    @torch.no_grad()
    def context(self, batch: dict[str, torch.Tensor], action_mask: torch.Tensor) -> ExpertContext:
        """The expert's context of a processor's batch, for actions under a mask [B, H, K].

        Rows are padded after their tokens (``QwenVLAProcessor.collate`` with a length), or not at all; a batch padded
        before them, as in training, is computed by the plain model. Nothing here waits for a GPU.
        """
        mask, grid = batch["attention_mask"], batch.get("image_grid_thw")
        images = 0 if grid is None else len(grid)
        if self.mode == "off" or not bool((mask[:, 1:] <= mask[:, :-1]).all()):
            return self._unaccelerated_context(batch, action_mask)
        passed = {name: batch[name] for name in ("images", "pixel_values", "state", "state_mask") if name in batch}
        tokens = torch.stack((batch["input_ids"], mask))
        return ExpertContext(**self._backbone(tokens, action_mask, image_count=images, **passed))

    @torch.no_grad()
    def sample_actions(
        self,
        context: ExpertContext,
        action_mask: torch.Tensor,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        noise: torch.Tensor | None = None,
        continuation: Continuation | None = None,
    ) -> torch.Tensor:
        """``QwenVLAModel.sample_from`` with the same arguments and a result as close to float32.

        A continuation is computed by the plain model: guidance needs gradients, and a prefix has modulations per token.
        """
        steps = self.model.config.euler_steps if steps is None else steps
        if self.mode == "off" or continuation is not None:
            noise = None if noise is None else noise.to(context.tokens)
            return self.model.sample_from(context, action_mask, steps, generator, noise, continuation)
        mask = action_mask.to(self.device).bool()
        if noise is None:
            noise = self.model.start_noise(mask, context.tokens.dtype, generator)
        if steps not in self._loops:
            loop = EulerLoop(self.model.action_expert, steps)
            self._loops[steps] = loop, self._verified(f"Euler loop of {steps} steps", loop)
        loop, call = self._loops[steps]
        loop.tables.refresh()
        return call(vars(context), mask, noise)

    def decisions(self) -> dict[str, list[Decision]]:
        """The decisions so far, per part and set of shapes."""
        calls = [self._backbone, *(call for _, call in self._loops.values())]
        return {call.name: list(call.decisions.values()) for call in calls}

    def _plain_context(
        self,
        tokens: torch.Tensor,
        action_mask: torch.Tensor,
        image_count: int,
        images: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **state: torch.Tensor,
    ) -> dict[str, Any]:
        """Fields of the context; tokens [2, B, S]: their ids, and a mask, 1 for tokens, 0 after them."""
        ids, mask = tokens.to(self.device).unbind()
        if images is not None:
            pixel_values = self._transform.patchify(self._transform.rounded(images))
        here, there = self._grid(image_count)
        encoding = self.model.encode(
            ids,
            None if is_full(mask) else mask,
            None if pixel_values is None else pixel_values.to(self.device),
            here,
            **{name: tensor.to(self.device) for name, tensor in state.items()},
            position_ids=self.model.positions(ids, mask, there),
            right_padded=True,
        )
        return vars(self.model.expert_context(encoding, action_mask.bool().any(dim=-1)))

    def _unaccelerated_context(self, batch: dict[str, torch.Tensor], action_mask: torch.Tensor) -> ExpertContext:
        batch = dict(batch)
        if "images" in batch:
            batch["pixel_values"] = self._transform.patchify(self._transform.rounded(batch.pop("images")))
        inputs = {name: tensor.to(self.device) for name, tensor in batch.items()}
        encoding = self.model.encode(**inputs, right_padded=False)
        return self.model.expert_context(encoding, action_mask.bool().any(dim=-1))

    def _grid(self, images: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Patches of this many images [images, 3], on CPU and device; cached for graphs, which cannot copy."""
        if not images:
            return None, None
        if images not in self._grids:
            grid = torch.tensor([self._transform.grid] * images)
            self._grids[images] = grid, grid.to(self.device)
        return self._grids[images]

    def _verified(self, name: str, plain: Any) -> VerifiedCall:
        compiled = {"compiled blocks": self._make_compiled}
        graphs = {"a CUDA graph": partial(ReplayedCall, device=self.device, pool=self._pool)}
        on_gpu = {"graphs": graphs, "auto": {"compiled blocks in a CUDA graph": self._make_captured, **graphs}}
        on_gpu["compile"] = on_gpu["auto"]
        variants: dict[str, Make] = (on_gpu if self._on_gpu else {"compile": compiled}).get(self.mode, {})
        return VerifiedCall(name, plain, variants, must_win=not self._on_gpu)

    def _compiled_blocks(self) -> CompiledBlocks:
        if self._blocks is None:
            self._blocks = CompiledBlocks(self.model)
        return self._blocks

    def _make_captured(self, plain: Any, args: tuple, kwargs: dict[str, Any]) -> ReplayedCall:
        with self._compiled_blocks().active():
            return ReplayedCall(plain, args, kwargs, self.device, self._pool)

    def _make_compiled(self, plain: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        blocks = self._compiled_blocks()

        def run(*args: Any, **kwargs: Any) -> Any:
            with blocks.active():
                return plain(*args, **kwargs)

        return run
