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

from qwen_vla.data.lerobot import write_json
from qwen_vla.training.recipe import Recipe, RecipeError
from qwen_vla.training.run import HEAD_FILE, Run, averaged

STATE_FILE = "state.pt"
RECIPE_FILE = "recipe.json"
TRAINING_FILE = "training.json"
RESUMABLE = {"threads", "save_every", "log_every", "validate_every"}  # may differ between the parts of one run


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
    """The whole state in one file, renamed into place: an interrupted save leaves the previous one."""
    path = run.recipe.output / STATE_FILE
    state = {
        "step": run.step,
        "model": run.model.state_dict(),
        "head": run.head.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
        "average": run.average,
    }
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def resume(run: Run) -> None:
    """Go on from the state in the recipe's output folder, if there is one; `claim` the folder first."""
    path = run.recipe.output / STATE_FILE
    if path.exists():
        state = _read(path)
        run.model.load_state_dict(state["model"])
        run.head.load_state_dict(state["head"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.schedule.load_state_dict(state["schedule"])
        run.average = [tensor.to(run.accelerator.device) for tensor in state["average"]]
        run.step = state["step"]
    if run.accelerator.is_main_process:
        write_json(run.recipe.output / RECIPE_FILE, json.loads(run.recipe.model_dump_json()))


def export(run: Run) -> Path:
    """The averaged weights with processor, statistics, recipe and data seeds: all that inference and a rerun need."""
    folder = run.recipe.output / "model"
    temporary = folder.with_name("model.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with averaged(run):
        run.model.save_pretrained(temporary)
    run.batches.processor.save_pretrained(temporary)
    save_file({name: value.contiguous() for name, value in run.head.state_dict().items()}, temporary / HEAD_FILE)
    recipe = json.loads(run.recipe.model_dump_json())
    write_json(temporary / TRAINING_FILE, {"recipe": recipe, "step": run.step, "data": _data(run)})
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)
    return folder


def _data(run: Run) -> list[dict]:
    """Where the training data came from, that of the model it started from included: those scenes prove nothing."""
    keys = ("suite", "kind", "seeds", "total_episodes", "total_frames")
    data = [{key: source.reader.info.get(key) for key in keys} for source in run.batches.sources]
    earlier = run.recipe.init_from and run.recipe.init_from / TRAINING_FILE
    if earlier and earlier.exists():
        data += [entry for entry in json.loads(earlier.read_text())["data"] if entry not in data]
    return data


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
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
