# SPDX-License-Identifier: Apache-2.0
"""The output folder of a training run: whether a recipe may use it, and which files are the run's. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_vla.model.checkpoint.files import TRAINING_FILE
from qwen_vla.output_files import write_json
from qwen_vla.output_paths import Marker, OutputRefused, check_folder
from qwen_vla.training.recipe import Recipe, RecipeError

if TYPE_CHECKING:
    from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe

STATE_FILE = "state.pt"
RECIPE_FILE = "recipe.json"
MODEL_FOLDER = "model"
RUN = Marker(RECIPE_FILE, frozenset({"stage", "name", "steps"}), "train")
MODEL = Marker(TRAINING_FILE, frozenset({"recipe", "step", "data"}), "train")
# May differ between the parts of one run: they affect when and where things happen, not the result.
RESUMABLE = {"collect", "threads", "save_every", "keep_every", "log_every", "validate_every"} | {
    "shard",
    "compile",
    "gradient_checkpointing",
    "workers",
    "environments",
}


def claim(recipe: Recipe | ReinforcementRecipe) -> None:
    """Claim the output folder for a recipe; every process may call it, repeatedly.

    Raises:
        OutputRefused: the folder, or a model in it that would be replaced, was not made by a training run.
        RecipeError: it contains the result of another recipe, or the model that this one starts from.
    """
    output = recipe.output
    before = check_folder(output, RUN)
    for folder in (output / MODEL_FOLDER, *output.glob("step_*")):
        if folder.exists() and model_files(folder) is None:
            raise OutputRefused(f"{folder} is not a model written by train; move it away, or choose another output")
    for field in ("init_from", "expert_from"):
        start = getattr(recipe, field, None)
        if start and start.resolve().parent == output.resolve():
            raise RecipeError(f"{field}: {start} is in the output and would be replaced; choose another output")
    if before and ((output / STATE_FILE).exists() or (output / MODEL_FOLDER).exists()):
        _refuse_changes(recipe, before)
    write_json(output / RECIPE_FILE, json.loads(recipe.model_dump_json()))


def model_files(folder: Path) -> frozenset[str] | None:
    """Files that a training run wrote into a folder; None if it is not a model of a training run."""
    training = MODEL.read(folder)
    if training is None:
        return None
    return frozenset(training.get("files") or (path.name for path in folder.iterdir()))


def write_training_file(folder: Path, content: dict[str, Any], later: tuple[str, ...] = ()) -> None:
    """Write training.json, the last file of a model except those of `later`; it lists them all."""
    files = sorted({TRAINING_FILE, *later, *(path.name for path in folder.iterdir())})
    write_json(folder / TRAINING_FILE, {**content, "files": files})


def _refuse_changes(recipe: Recipe | ReinforcementRecipe, before: dict[str, Any]) -> None:
    then, now = dict(_flat(before)), dict(_flat(json.loads(recipe.model_dump_json())))
    changed = [
        f"{name} ({then.get(name)} then, {now.get(name)} now)"
        for name in sorted({*then, *now})
        if name not in RESUMABLE and then.get(name) != now.get(name)
    ]
    if changed:
        raise RecipeError(
            f"{recipe.output} was trained with other values of {', '.join(changed)}; choose another output or delete it"
        )


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested JSON with dotted names."""
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(child, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
