"""Loaded weights begin where PyTorch's own allocator would put them, and so compute what they did when they were saved.

The tensors of a safetensors file are views of its memory map and may begin at any multiple of 8 bytes: the length of
the file's header decides. The CPU's matrix products in float32 and float64 round differently at such an address.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import nn

ALIGNMENT = 64  # bytes, as PyTorch's CPU allocator aligns


class AlignedWeights:
    """Mixin in front of the base class of a transformers or diffusers model: aligns what ``from_pretrained`` loads."""

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
        """As the library's own; float32 weights on the CPU then lie in aligned memory of their own.

        A saved and loaded model computes what the original does, bit for bit on one machine with one number of threads.
        That costs one pass over the file (about a second for 1.3 GB) and saves no time later. Weights of 16 bits stay
        views of the memory-mapped file: their products are the same at any address.
        """
        loaded = super().from_pretrained(*arguments, **options)
        align(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded


@torch.no_grad()
def align(model: nn.Module) -> None:
    """Copy each tensor of 32 or 64 bits on the CPU that begins off a multiple of ``ALIGNMENT`` bytes, one by one.

    The memory map ends with the last view of it; until then its pages belong to the page cache, which can drop them.
    """
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.device.type == "cpu" and tensor.element_size() >= 4 and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()
