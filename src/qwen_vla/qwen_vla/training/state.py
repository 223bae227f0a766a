# SPDX-License-Identifier: Apache-2.0
"""The output of a run of any stage: the state for resuming, and the model with all that inference needs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file

from qwen_vla.evaluation.model_card import CARD_FILE, write_model_card
from qwen_vla.model.checkpoint.files import read_training
from qwen_vla.model.modeling import QwenVLAModel
from qwen_vla.model.normalization import Quantiles
from qwen_vla.model.processing import QwenVLAProcessor
from qwen_vla.output_files import complete_or_absent, folder_complete_or_absent
from qwen_vla.training.output_folder import STATE_FILE, model_files, write_training_file
from qwen_vla.training.progress.log import cut_log

if TYPE_CHECKING:
    from qwen_vla.training.recipe import Recipe
    from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe

Weights = Mapping[str, torch.Tensor]


class Resumable(Protocol):
    """The interface of a run for saving and resuming.

    Attributes:
        step: current step.
        is_main: whether this process is the one that writes.
    """

    step: int

    @property
    def recipe(self) -> Recipe | ReinforcementRecipe: ...

    @property
    def is_main(self) -> bool: ...

    def state(self) -> dict[str, Any]:
        """All that a step changes; except in the main process, it may be empty."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        ...


class StateError(ValueError):
    """A saved state that cannot be read; the message names the file and the remedy."""


def save(run: Resumable) -> None:
    """The whole state in one file, renamed into place: an interrupted save leaves the previous one.

    All processes must call it; the main one writes. DiskFull if there is no space.
    """
    state = {"step": run.step, **run.state()}
    if run.is_main:
        path = run.recipe.output / STATE_FILE
        with complete_or_absent(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)  # to an open file: with a path, it does not report a full disk


def resume(run: Resumable) -> None:
    """Resume from the state in the recipe's output folder, if there is one; `claim` the folder first.

    On a CPU the losses are then bit-identical to those of an uninterrupted run, as long as machine, library versions,
    number of threads and processes and everything not in `RESUMABLE` stay the same; otherwise up to rounding.
    """
    path = run.recipe.output / STATE_FILE
    if path.exists():
        state = _read(path)
        run.restore(state)
        run.step = state["step"]
    if run.is_main:
        cut_log(run.recipe.output, run.step)


def refuse_other_statistics(then: Mapping[str, Mapping], now: Mapping[str, Quantiles]) -> None:
    """StateError if the statistics of a saved state are not those of the run: its data changed in between.

    then: by name, as `Quantiles.to_json` writes them.
    """
    changed = sorted(n for n in {*then, *now} if n not in then or n not in now or not _same(then[n], now[n]))
    if changed:
        raise StateError(
            f"the data changed since the state was saved: other statistics of {', '.join(changed)}; restore the data, "
            "or choose another output"
        )


def _same(then: Mapping, now: Quantiles) -> bool:
    return tuple(then["channel_names"]) == now.channel_names and all(
        np.allclose(then[bound], getattr(now, bound), rtol=1e-6, atol=1e-9) for bound in ("q01", "q99")
    )


def write_model(
    folder: Path,
    run: Resumable,
    model: QwenVLAModel,
    processor: QwenVLAProcessor,
    data: Iterable[dict],
    heads: Mapping[str, Weights],
    weights: Weights | None = None,
) -> None:
    """Write a model as a complete folder, or none: processor, statistics, recipe, data and model card beside it.

    Args:
        folder: destination; an earlier model of ours is replaced.
        run: whose recipe and step are recorded.
        model: what is saved, with its own weights or with `weights`.
        processor: the processor for inference.
        data: origin of all training data, from `record_of_data`.
        heads: file name → weights needed only for further training.
        weights: instead of the model's own.
    """
    with folder_complete_or_absent(folder, model_files) as temporary:
        model.save_pretrained(temporary, state_dict=None if weights is None else dict(weights))
        processor.save_pretrained(temporary)
        for file, head in heads.items():
            save_file({name: value.contiguous() for name, value in head.items()}, temporary / file)
        record = {"recipe": json.loads(run.recipe.model_dump_json()), "step": run.step, "data": list(data)}
        write_training_file(temporary, record, later=(CARD_FILE,))
    write_model_card(folder)


def record_of_data(own: Iterable[dict], starts: Iterable[Path | None]) -> list[dict]:
    """The data of a run and of the models that it started from: success in these scenes proves nothing."""
    data = list(own)
    for folder in starts:
        if folder:
            records = (entry.model_dump(mode="json", exclude_unset=True) for entry in read_training(folder).data)
            data += [entry for entry in records if entry not in data]
    return data


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise StateError(
            f"{path} is corrupt or truncated ({path.stat().st_size} bytes); delete it to train from the start"
        ) from error
