# SPDX-License-Identifier: Apache-2.0
"""Aligns loaded weights as PyTorch's allocator would, so that results equal those of the saved model.

The tensors of a safetensors file are views of its memory map and may start at any multiple of 8 bytes, depending on the
length of the file's header. The CPU's matrix products in float32 and float64 round differently at such addresses.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import nn

ALIGNMENT = 64  # bytes, as PyTorch's CPU allocator aligns


class AlignedWeights:
    """Mixin before the base class of a transformers or diffusers model: aligns weights from ``from_pretrained``."""

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
        """Like the library's; float32 weights on the CPU are then copied to aligned memory.

        A loaded model computes bit-identical results to the saved one, on one machine with one number of threads. This
        costs one pass over the file (about a second for 1.3 GB). 16-bit weights stay views of the memory-mapped file:
        their products are the same at any address.
        """
        loaded = super().from_pretrained(*arguments, **options)  # pyright: ignore[reportAttributeAccessIssue]  # a mixin
        align(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded


@torch.no_grad()
def align(model: nn.Module) -> None:
    """Copy each 32- or 64-bit tensor on the CPU that is not aligned to ``ALIGNMENT`` bytes, one by one.

    The memory map ends with the last view of it; until then its pages belong to the page cache, which can drop them.
    """
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.device.type == "cpu" and tensor.element_size() >= 4 and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()
