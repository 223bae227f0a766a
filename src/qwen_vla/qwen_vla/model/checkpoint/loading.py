# SPDX-License-Identifier: Apache-2.0
"""Loads the model of a checkpoint. Nothing is built, and no weight is read, before its files fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qwen_vla.model.checkpoint.files import CONFIG_FILE, check_checkpoint, read_weight_headers
from qwen_vla.model.configuration import QwenVLAConfig
from qwen_vla.model.modeling import QwenVLAModel

STARTS_AT_ZERO = ("modulation.", "action_out.")  # weights that training moves away from 0 (AdaLN-Zero)
SHOWN = 3  # names in a message


def load_model(folder: Path, dtype: torch.dtype, config: QwenVLAConfig | None = None) -> QwenVLAModel:
    """The model of a checkpoint.

    Args:
        folder: a checkpoint.
        dtype: of its weights.
        config: instead of the checkpoint's own, to train it further; weights that only this one has are new.

    Raises:
        FileNotFoundError, ValueError: a file is missing or damaged, or they do not fit each other.
    """
    check_checkpoint(folder)
    own = read_configuration(folder)
    check_geometry(folder, own)
    model = QwenVLAModel.from_pretrained(folder, config=config or own, dtype=dtype)
    if damaged := damaged_weights(model):
        raise ValueError(
            f"the weights in {folder} are not those of a trained model: {_few(damaged)}; copy the checkpoint again"
        )
    return model


def read_configuration(folder: Path, **changes: Any) -> QwenVLAConfig:
    """The configuration of a checkpoint; ValueError names config.json if its values contradict each other."""
    try:
        return QwenVLAConfig.from_pretrained(folder, **changes)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {' '.join(str(error).split())}") from error


def check_geometry(folder: Path, config: QwenVLAConfig) -> None:
    """ValueError unless the weights of a folder are those of this configuration: names and shapes.

    The model is built without storage; tensors that share one, such as tied embeddings, are stored under one name.
    """
    with torch.device("meta"):
        model = QwenVLAModel(config)
    stored = {name: tuple(tensor.shape) for name, tensor in read_weight_headers(folder).items()}
    wanted = model.state_dict(keep_vars=True)
    known = {id(tensor) for name, tensor in wanted.items() if name in stored}
    problems = {
        "they lack": [name for name, tensor in wanted.items() if id(tensor) not in known],
        "unknown": [name for name in stored if name not in wanted],
        "of another shape": [
            f"{name} {list(stored[name])}, not {list(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in stored and stored[name] != tuple(tensor.shape)
        ],
    }
    texts = [f"{what} {_few(names)}" for what, names in problems.items() if names]
    if texts:
        raise ValueError(f"weights in {folder} do not fit {folder / CONFIG_FILE}: {'; '.join(texts)}")


def damaged_weights(model: torch.nn.Module) -> list[str]:
    """Matrices that no training leaves behind: all zero, or with values that are not finite."""
    problems = []
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or not weight.numel():
            continue
        low, high = (bound.item() for bound in torch.aminmax(weight.detach()))
        if not abs(high) + abs(low) < float("inf"):
            problems.append(f"{name} is not finite")
        elif low == high == 0.0 and not any(part in name for part in STARTS_AT_ZERO):
            problems.append(f"{name} is all zero")
    return problems


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
