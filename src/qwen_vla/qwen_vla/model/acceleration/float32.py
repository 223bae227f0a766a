# SPDX-License-Identifier: Apache-2.0
"""The float32 result of a half-precision model: with its own weights, without a copy of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

HALF = (torch.bfloat16, torch.float16)
_DTYPE = inspect.getattr_static(torch.Tensor, "dtype").__get__


class Float32(TorchFunctionMode):
    """While active, every operation runs in float32: half-precision arguments are converted first.

    Weights are converted one at a time, on use, so that a large model needs no second copy in memory.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.embedding:  # only selects rows; converting the table would cost gigabytes
            return _single(func(*args, **kwargs))
        if func == _DTYPE:
            return _single(func(*args, **kwargs))
        return func(*pytree.tree_map(_single, args), **pytree.tree_map(_single, kwargs))


def _single(value: Any) -> Any:
    """float32 for a half-precision tensor or type; anything else unchanged."""
    if isinstance(value, torch.dtype):
        return torch.float32 if value in HALF else value
    if isinstance(value, torch.Tensor) and value.dtype in HALF:
        return value.float()
    return value
