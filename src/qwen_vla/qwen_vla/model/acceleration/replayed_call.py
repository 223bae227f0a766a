# SPDX-License-Identifier: Apache-2.0
"""A function captured once as a CUDA graph and replayed on new values: one launch instead of thousands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

FIXED = "_qwen_vla_fixed"  # attribute of tensors returned by a replayed function
WARM_UP = 3  # runs on a side stream before capture, so that libraries have done allocation and tuning


class ReplayedCall:
    """A function of tensors whose shapes are those of ``args`` and ``kwargs``.

    Arguments, on any device, are copied to fixed memory on the ``device`` before each replay. The results are fixed
    memory, too: they are valid until the next call. If they are the arguments of the next replayed function, that one
    was made for this memory, and nothing is copied. ``pool``: memory shared by graphs that never run at the same time.
    On devices other than a GPU the function itself runs on that memory, for tests.
    """

    def __init__(self, function: Callable, args: tuple, kwargs: dict[str, Any], device: torch.device, pool: Any = None):
        leaves, self._spec = pytree.tree_flatten((args, kwargs))
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Any = None
        # Tensors created in inference mode could be neither overwritten outside of it nor used in gradients (guidance).
        with torch.inference_mode(False), torch.no_grad():
            self._memory = [self._kept(leaf, device) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
            if device.type == "cuda":
                self._capture(pool)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for target, leaf in zip(self._memory, pytree.tree_leaves((args, kwargs)), strict=True):
            if isinstance(leaf, torch.Tensor) and target.data_ptr() != leaf.data_ptr():
                target.copy_(leaf, non_blocking=True)
        if self._graph is None:
            self._run_into_result()
        else:
            self._graph.replay()
        return self._result

    @staticmethod
    def _kept(leaf: torch.Tensor, device: torch.device) -> torch.Tensor:
        return leaf if getattr(leaf, FIXED, False) else leaf.to(device, copy=True)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _run_into_result(self) -> None:
        result = self._run()
        if self._result is None:
            self._result = pytree.tree_map_only(torch.Tensor, _marked, result)
        for target, leaf in zip(pytree.tree_leaves(self._result), pytree.tree_leaves(result), strict=True):
            if isinstance(leaf, torch.Tensor):
                target.copy_(leaf)

    def _run(self) -> Any:
        args, kwargs = pytree.tree_unflatten(self._memory, self._spec)
        return self._function(*args, **kwargs)

    def _capture(self, pool: Any) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads (a node's callbacks) may use the device; only this one's calls are recorded.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._result = self._run()
        pytree.tree_map_only(torch.Tensor, _marked, self._result)


def _marked(tensor: torch.Tensor) -> torch.Tensor:
    setattr(tensor, FIXED, True)
    return tensor
