# SPDX-License-Identifier: Apache-2.0
"""The files of a checkpoint folder: their names, and what each must be before a model is built. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from qwen_vla.json_files import read_json
from qwen_vla.model.checkpoint.config_file import ConfigFile
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
from qwen_vla.model.checkpoint.weights_header import TensorRecord, read_header
from qwen_vla.model.normalization import Quantiles, QuantilesRecord

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
EMBODIMENTS_FILE = "embodiments.json"
NORMALIZATION_FILE = "normalization.json"
TRAINING_FILE = "training.json"
ADAPTER_FILE = "adapter_config.json"  # transformers would load the weights that it names, from anywhere
REMEDY = "is the checkpoint complete? Copy or download it again"


class WeightsIndex(BaseModel):
    """model.safetensors.index.json: in which file of the folder each tensor is."""

    weight_map: dict[str, Annotated[str, Field(pattern=r"^[\w-][\w.-]*\.safetensors$")]] = Field(min_length=1)


class DataRecord(BaseModel):
    """An entry of training.json's data: where it came from, and the seeds of its scenes (first, end)."""

    model_config = ConfigDict(extra="allow", strict=True)

    seeds: tuple[int, int] | None = None


class TrainingRecord(BaseModel):
    """training.json: how a checkpoint was trained. All of it is optional: others' checkpoints lack it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    recipe: dict[str, Any] = {}
    step: int | None = None
    data: list[DataRecord] = []

    @property
    def steps(self) -> int | None:
        """Steps of the recipe; None if they are not recorded."""
        steps = self.recipe.get("steps")
        return steps if isinstance(steps, int) else None


def check_knows(path: Path, robot: str) -> None:
    """Like `check_checkpoint`, and also for the robot of its training; ValueError names the known ones."""
    check_checkpoint(path)
    known = sorted(read_embodiments(path))
    if robot not in known:
        raise ValueError(f"{path} was not trained for {robot}; it knows {', '.join(known) or 'none'}")


def check_checkpoint(path: Path) -> ConfigFile:
    """Check a checkpoint's configuration and the headers of its weights, before anything is built.

    Raises:
        FileNotFoundError, ValueError: a file is missing, damaged or contradicts another one; it is named.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no checkpoint directory at {path} (relative to {Path.cwd()}); check the path")
    if not (path / CONFIG_FILE).is_file():
        raise FileNotFoundError(f"{path} is not a checkpoint: it has no {CONFIG_FILE}; {REMEDY}")
    config = read_json(path / CONFIG_FILE, ConfigFile, REMEDY)
    tensors = read_weight_headers(path)
    if config.layers > len(tensors):
        raise ValueError(
            f"{path / CONFIG_FILE} has {config.layers} layers, but the weights only {len(tensors)} tensors; {REMEDY}"
        )
    return config


def read_weight_headers(path: Path) -> dict[str, TensorRecord]:
    """All tensors in the weights of a folder, by name; errors name a missing or damaged file."""
    if (path / ADAPTER_FILE).exists():
        raise ValueError(f"{path / ADAPTER_FILE}: weights of an adapter alone are no model; merge them into its base")
    tensors: dict[str, TensorRecord] = {}
    for file in weight_files(path):
        tensors |= read_header(file)
    return tensors


def weight_files(path: Path) -> list[Path]:
    """The weight files of a folder, as listed by its index; ValueError if that is damaged."""
    index = path / WEIGHTS_INDEX_FILE
    if not index.is_file():
        return [path / WEIGHTS_FILE]
    return [path / name for name in sorted(set(read_json(index, WeightsIndex, REMEDY).weight_map.values()))]


def read_embodiments(path: Path) -> dict[str, EmbodimentInfo]:
    """The robots that a checkpoint was trained for, by name; errors name embodiments.json."""
    return read_json(path / EMBODIMENTS_FILE, dict[str, EmbodimentInfo], REMEDY)


def read_training(path: Path) -> TrainingRecord:
    """A checkpoint's record of its training, empty if there is none; ValueError if the file is damaged."""
    file = path / TRAINING_FILE
    return read_json(file, TrainingRecord) if file.exists() else TrainingRecord()


def read_normalization(path: Path) -> dict[str, Quantiles]:
    """A checkpoint's statistics, by data set; errors name normalization.json."""
    file, result = path / NORMALIZATION_FILE, {}
    for name, record in read_json(file, dict[str, QuantilesRecord], REMEDY).items():
        try:
            result[name] = record.quantiles
        except ValueError as error:
            raise ValueError(f"{file}: {name}: {error}") from error
    return result
