"""The data sets that a recipe trains on: which of them are missing, and recording those."""

from __future__ import annotations

import sys
from pathlib import Path

from qwen_vla.data.collect import collect, is_complete
from qwen_vla.data.collection import Collection
from qwen_vla.training.recipe import Recipe, RecipeError
from qwen_vla.training.recipe_files import load_collections
from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe


def missing_collections(recipe: Recipe | ReinforcementRecipe) -> list[Collection]:
    """Those data sets of a recipe that are not there, or not complete, in the order of the list that it names.

    RecipeError when one is missing and the list does not say how it is made.
    """
    if not recipe.data_paths:
        return []
    listed = load_collections(recipe.collect) if recipe.collect else []
    needed = [collection for collection in listed if collection.out in recipe.data_paths]
    for path in recipe.data_paths:
        if not path.exists() and path not in [collection.out for collection in needed]:
            raise RecipeError(
                f"recipe {recipe.name}: there are no data in {path} (seen from {Path.cwd()}), and "
                f"{recipe.collect or 'no file named under `collect`'} says how to record them; put yours there"
            )
    return [collection for collection in needed if not is_complete(collection)]


def collect_data(recipe: Recipe | ReinforcementRecipe, workers: int) -> list[dict]:
    """Record what is missing, one after the other; returns the summaries. Interrupted, it goes on when called again."""
    missing, summaries = missing_collections(recipe), []
    for number, collection in enumerate(missing, start=1):
        print(f"data set {number} of {len(missing)}: {collection.out}", file=sys.stderr, flush=True)
        summaries.append(collect(collection, workers))
    return summaries
