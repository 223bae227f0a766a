"""What a run leaves on disk: the state to resume from, and the finished model with all that inference needs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from qwen_vla.model.model_card import CARD_FILE, write_model_card
from qwen_vla.output_files import complete_or_absent, folder_complete_or_absent
from qwen_vla.training.distributed import like, own_part, whole
from qwen_vla.training.output_folder import (
    MODEL_FOLDER,
    STATE_FILE,
    TRAINING_FILE,
    model_files,
    write_training_file,
)
from qwen_vla.training.progress.log import cut_log
from qwen_vla.training.run import Run, averaged
from qwen_vla.training.start import HEAD_FILE, merged_weights


class StateError(ValueError):
    """A saved state that cannot be read; the message names the file and the way out."""


def save(run: Run) -> None:
    """The whole state in one file, renamed into place: an interrupted save leaves the previous one.

    All processes call it, the main one writes.
    """
    main = run.accelerator.is_main_process
    state = {
        "step": run.step,
        "learner": whole(_weights(run), main),
        "optimizer": whole(run.optimizer.state_dict(), main),
        "schedule": run.schedule.state_dict(),
        "average": whole(_averages(run), main),
        "language_weight": run.balance.language,
    }
    if main:
        write_state(run.recipe.output / STATE_FILE, state)


def resume(run: Run) -> None:
    """Go on from the state in the recipe's output folder, if there is one; `claim` the folder first.

    On a CPU the losses are then those of a run that was never interrupted, bit for bit, as long as machine, library
    versions, number of threads and processes and what `RESUMABLE` lets change stay the same; otherwise up to rounding.
    """
    path = run.recipe.output / STATE_FILE
    if path.exists():
        _restore(run, read_state(path))
    if run.accelerator.is_main_process:
        cut_log(run.recipe.output, run.step)


def export(run: Run, name: str = MODEL_FOLDER) -> Path:
    """The averaged weights with processor, statistics, recipe and data seeds: all that inference and a rerun need.

    They become the folder `name` of the output. All processes call it, the main one writes.
    """
    folder = run.recipe.output / name
    main = run.accelerator.is_main_process
    with averaged(run):
        weights = whole(merged_weights(run.model), main)
    head = whole(run.learner.head.state_dict(), main)
    if not main:
        return folder
    with folder_complete_or_absent(folder, model_files) as temporary:
        run.model.save_pretrained(temporary, state_dict=weights)
        run.processor.save_pretrained(temporary)
        save_file({name: value.contiguous() for name, value in head.items()}, temporary / HEAD_FILE)
        recipe = json.loads(run.recipe.model_dump_json())
        write_training_file(temporary, {"recipe": recipe, "step": run.step, "data": _data(run)}, later=(CARD_FILE,))
    write_model_card(folder)
    return folder


def _restore(run: Run, state: dict[str, Any]) -> None:
    present = run.learner.state_dict()
    weights = {name: like(tensor, present[name]) for name, tensor in state["learner"].items()}
    run.learner.load_state_dict(weights, strict=False)
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    for number, moments in state["optimizer"]["state"].items():
        for name, value in moments.items():
            if value.ndim:
                moments[name] = like(value, parameters[int(number)])
    run.optimizer.load_state_dict(state["optimizer"])
    run.schedule.load_state_dict(state["schedule"])
    run.average = [own_part(like(tensor, p)).clone() for tensor, p in zip(state["average"], run.trained, strict=True)]
    run.balance.language = state["language_weight"]
    run.step = state["step"]


def _weights(run: Run) -> dict[str, torch.Tensor]:
    """All weights; of a model that came from a checkpoint, those that are trained: the others are still there."""
    weights = run.learner.state_dict()
    if not (run.recipe.init_from or run.recipe.backbone):
        return weights
    trained = {name for name, p in run.learner.named_parameters() if p.requires_grad}
    return {name: tensor for name, tensor in weights.items() if name in trained}


def _averages(run: Run) -> list[torch.Tensor]:
    """The averages as tensors of the same kind as the parameters, to be put together like them."""
    with averaged(run):
        return [p.detach().clone() for p in run.trained]


def _data(run: Run) -> list[dict]:
    """Where the training data came from, that of the model it started from included: those scenes prove nothing."""
    data = [source.provenance() for source in run.sources]
    for folder in (run.recipe.init_from, run.recipe.expert_from):
        if folder and (folder / TRAINING_FILE).exists():
            data += [e for e in json.loads((folder / TRAINING_FILE).read_text())["data"] if e not in data]
    return data


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state as `read_state` reads it; DiskFull when there is no room."""
    with complete_or_absent(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)  # into an open file: given a path, it does not say that the disk is full


def read_state(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise StateError(
            f"{path} is damaged or cut short ({path.stat().st_size} bytes); delete it to train from the start"
        ) from error
