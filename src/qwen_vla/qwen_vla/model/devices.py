# SPDX-License-Identifier: Apache-2.0
"""The device that a person names."""

from __future__ import annotations

import torch


def usable_device(name: str) -> torch.device:
    """The device of a name such as cpu, cuda or cuda:1; ValueError if PyTorch does not know it or finds no such GPU."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is unknown; choose cpu, cuda, or cuda:NUMBER") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {name}: PyTorch {torch.__version__} finds no GPU; choose cpu, or install its CUDA build"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name}: PyTorch finds GPUs up to cuda:{torch.cuda.device_count() - 1}")
    return device
