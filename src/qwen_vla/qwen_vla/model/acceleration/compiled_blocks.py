# SPDX-License-Identifier: Apache-2.0
"""The model's repeated blocks, compiled once per kind: seconds instead of minutes for a whole tower.

One compiled function serves all blocks of a kind, with weights as arguments, and all prompt lengths.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import nn

from qwen_vla.model.modeling import QwenVLAModel

logger = logging.getLogger(__name__)


class CompiledBlocks:
    """The blocks of the vision tower, of the language tower and of the action expert with compiled forward methods."""

    def __init__(self, model: QwenVLAModel):
        blocks = [
            *model.vlm.model.visual.blocks,
            *model.vlm.model.language_model.layers,
            *model.action_expert.blocks,
        ]
        # Without the checkpointing wrapper, which is for training: it is one function for all kinds of block, and a
        # function is compiled only for a limited number of cases.
        kinds = {type(block) for block in blocks}
        compiled = {kind: _for_all_lengths(torch.compile(inspect.unwrap(kind.forward))) for kind in kinds}
        self._forwards = [(block, MethodType(compiled[type(block)], block)) for block in blocks]
        self._announced = False

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """While active, the model's blocks run compiled; the first time they are compiled, or loaded from disk."""
        if not self._announced:
            logger.warning("compiling the model's blocks: up to a minute now, some seconds at later starts")
            self._announced = True
        for block, forward in self._forwards:
            block.forward = forward
        try:
            yield
        finally:
            for block, _ in self._forwards:
                del block.forward


def keep_compiled_code() -> Path:
    """Keep compiled and autotuned kernels in the user's cache folder, which unlike /tmp survives a reboot.

    Folders already set in the environment are kept. Returns the folder for both.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qwen_vla"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache / "triton"))
    return cache


def _for_all_lengths(compiled: Callable) -> Callable:
    """Compile the sequence axis with dynamic length, in states [..., S, D] and masks [B, 1, _, S]."""

    def run(block: nn.Module, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        length = x.shape[-2]
        for tensor in (x, *_tensors(args), *_tensors(kwargs.values())):
            if tensor.dim() > 1 and tensor.shape[-2] == length:
                torch._dynamo.maybe_mark_dynamic(tensor, tensor.dim() - 2)
            if tensor.dim() == 4 and tensor.shape[-2] in (1, length) and tensor.shape[-1] == length:
                torch._dynamo.maybe_mark_dynamic(tensor, tensor.dim() - 1)
        return compiled(block, x, *args, **kwargs)

    return run


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)
