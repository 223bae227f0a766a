"""What a run leaves on disk: the state to resume from, and the finished model with all that inference needs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from qwen_vla.model_card import write_model_card
from qwen_vla.output_files import write_json
from qwen_vla.training.distributed import like, own_part, whole
from qwen_vla.training.log import cut_log
from qwen_vla.training.recipe import Recipe, RecipeError
from qwen_vla.training.run import Run, averaged
from qwen_vla.training.start import HEAD_FILE, merged_weights

STATE_FILE = "state.pt"
RECIPE_FILE = "recipe.json"
TRAINING_FILE = "training.json"
# May differ between the parts of one run: they change when things happen and where, not what is learned.
RESUMABLE = {"threads", "save_every", "keep_every", "log_every", "validate_every"} | {
    "shard",
    "compile",
    "gradient_checkpointing",
    "workers",
    "environments",
}


class StateError(ValueError):
    """A saved state that cannot be read; the message names the file and the way out."""


def claim(recipe: Recipe) -> None:
    """Make the output folder; RecipeError when it holds the state of another recipe."""
    recipe.output.mkdir(parents=True, exist_ok=True)
    if not (recipe.output / STATE_FILE).exists():
        return
    before = dict(_flat(json.loads((recipe.output / RECIPE_FILE).read_text())))
    now = dict(_flat(json.loads(recipe.model_dump_json())))
    changed = [
        f"{name} ({before.get(name)} then, {now.get(name)} now)"
        for name in sorted({*before, *now})
        if name not in RESUMABLE and before.get(name) != now.get(name)
    ]
    if changed:
        raise RecipeError(
            f"{recipe.output} was trained with other values of {', '.join(changed)}; choose another output or delete it"
        )


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
        path = run.recipe.output / STATE_FILE
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, path)


def resume(run: Run) -> None:
    """Go on from the state in the recipe's output folder, if there is one; `claim` the folder first.

    On a CPU the losses are then those of a run that was never interrupted, bit for bit, as long as machine, library
    versions, number of threads and processes and what `RESUMABLE` lets change stay the same; otherwise up to rounding.
    """
    path = run.recipe.output / STATE_FILE
    if path.exists():
        _restore(run, read_state(path))
    if run.accelerator.is_main_process:
        write_json(run.recipe.output / RECIPE_FILE, json.loads(run.recipe.model_dump_json()))
        cut_log(run.recipe.output, run.step)


def export(run: Run, name: str = "model") -> Path:
    """The averaged weights with processor, statistics, recipe and data seeds: all that inference and a rerun need.

    They become the folder `name` of the output. All processes call it, the main one writes.
    """
    folder = run.recipe.output / name
    temporary = folder.with_name(f"{name}.tmp")
    main = run.accelerator.is_main_process
    with averaged(run):
        weights = whole(merged_weights(run.model), main)
    head = whole(run.learner.head.state_dict(), main)
    if not main:
        return folder
    shutil.rmtree(temporary, ignore_errors=True)
    run.model.save_pretrained(temporary, state_dict=weights)
    run.processor.save_pretrained(temporary)
    save_file({name: value.contiguous() for name, value in head.items()}, temporary / HEAD_FILE)
    recipe = json.loads(run.recipe.model_dump_json())
    write_json(temporary / TRAINING_FILE, {"recipe": recipe, "step": run.step, "data": _data(run)})
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)
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


def read_state(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise StateError(
            f"{path} is damaged or cut short ({path.stat().st_size} bytes); delete it to train from the start"
        ) from error


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested JSON with dotted names."""
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(child, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
