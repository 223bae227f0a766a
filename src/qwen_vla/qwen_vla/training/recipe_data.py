# SPDX-License-Identifier: Apache-2.0
"""The datasets of a recipe: finds the missing ones and records them."""

from __future__ import annotations

import sys
from pathlib import Path

from qwen_vla.data.collect import collect, is_complete
from qwen_vla.data.collection import Collection
from qwen_vla.data.sources import AnyData
from qwen_vla.parallel import Engine
from qwen_vla.training.recipe import Recipe, RecipeError
from qwen_vla.training.recipe_files import load_collections, load_data, load_recipe
from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe


def recorded_collections(recipe: Recipe | ReinforcementRecipe) -> list[Collection]:
    """The datasets of a recipe that its `collect` list defines, in the order of the list.

    RecipeError if one is missing and not in the list.
    """
    if isinstance(recipe, ReinforcementRecipe) or not recipe.data_paths:
        return []
    listed = load_collections(recipe.collect) if recipe.collect else []
    needed = [collection for collection in listed if collection.out in recipe.data_paths]
    for path in recipe.data_paths:
        if not path.exists() and path not in [collection.out for collection in needed]:
            lacks = f"{recipe.collect} does not list it" if recipe.collect else "no `collect` says how to record it"
            raise RecipeError(
                f"recipe {recipe.name}: there is no data in {path} (relative to {Path.cwd()}), and {lacks}; "
                "put your data there"
            )
    return needed


def entry_of(recipe: Path, path: Path) -> AnyData:
    """The entry of a recipe's `data` for a dataset; RecipeError if it has none or several."""
    entries = load_data(recipe)
    found = [entry for entry in entries if (named := getattr(entry, "path", None)) is not None and _same(named, path)]
    if len(found) != 1:
        paths = ", ".join(str(getattr(entry, "path", entry.kind)) for entry in entries) or "none"
        raise RecipeError(f"{recipe} has {len(found)} entries under `data` for {path}; it has {paths}")
    return found[0]


def _same(named: str | Path, path: Path) -> bool:
    return str(named) == str(path) or Path(named).resolve() == path.resolve()


def collect_data(path: Path, workers: int, engine: Engine = "processes") -> dict:
    """Record the missing datasets of a recipe file, one by one; returns a summary. Another call resumes.

    RecipeError if it has none that can be recorded: there is nothing that this could ever do for the recipe.
    """
    recipe = load_recipe(path)
    needed, summaries = recorded_collections(recipe), []
    if not needed:
        raise RecipeError(f"{path}: nothing to collect: {_why_none(recipe)}; the next step is: qwen-vla train {path}")
    missing = [collection for collection in needed if not is_complete(collection)]
    if not missing:
        places = ", ".join(str(collection.out) for collection in needed)
        print(f"nothing left to collect, complete: {places}", file=sys.stderr, flush=True)
    for number, collection in enumerate(missing, start=1):
        print(f"dataset {number} of {len(missing)}: {collection.out}", file=sys.stderr, flush=True)
        summaries.append(collect(collection, workers, engine))
    return {"recipe": recipe.name, "collected": summaries}


def _why_none(recipe: Recipe | ReinforcementRecipe) -> str:
    """Why a recipe whose data are complete has none that could be recorded."""
    if isinstance(recipe, ReinforcementRecipe):
        return "stage rl trains on its own episodes"
    if not recipe.data_paths:
        kinds = ", ".join(dict.fromkeys(entry.kind for entry in recipe.data))
        return f"its data ({kinds}) are generated or downloaded during training"
    there = ", ".join(map(str, recipe.data_paths))
    listed = (
        f"{recipe.collect} lists none of these folders" if recipe.collect else "no `collect` says how to record more"
    )
    return f"its data are there ({there}), and {listed}"
