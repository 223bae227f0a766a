# SPDX-License-Identifier: Apache-2.0
"""The datasets of a recipe: finds the missing ones and records them."""

from __future__ import annotations

import sys
from pathlib import Path

from qwen_vla.data.collect import collect, is_complete
from qwen_vla.data.collection import Collection
from qwen_vla.data.sources import AnyData
from qwen_vla.training.recipe import Recipe, RecipeError
from qwen_vla.training.recipe_files import load_collections, load_data
from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe


def missing_collections(recipe: Recipe | ReinforcementRecipe) -> list[Collection]:
    """The datasets of a recipe that are missing or incomplete, in the order of its `collect` list.

    RecipeError if one is missing and not in the list.
    """
    if isinstance(recipe, ReinforcementRecipe) or not recipe.data_paths:
        return []
    listed = load_collections(recipe.collect) if recipe.collect else []
    needed = [collection for collection in listed if collection.out in recipe.data_paths]
    for path in recipe.data_paths:
        if not path.exists() and path not in [collection.out for collection in needed]:
            raise RecipeError(
                f"recipe {recipe.name}: there is no data in {path} (relative to {Path.cwd()}), and "
                f"{recipe.collect or 'no file named under `collect`'} defines how to record it; put your data there"
            )
    return [collection for collection in needed if not is_complete(collection)]


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


def collect_data(recipe: Recipe | ReinforcementRecipe, workers: int) -> list[dict]:
    """Record the missing datasets, one by one; returns the summaries. After an interruption, another call resumes."""
    missing, summaries = missing_collections(recipe), []
    for number, collection in enumerate(missing, start=1):
        print(f"dataset {number} of {len(missing)}: {collection.out}", file=sys.stderr, flush=True)
        summaries.append(collect(collection, workers))
    return summaries
