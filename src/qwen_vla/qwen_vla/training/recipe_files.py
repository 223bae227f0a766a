"""Reading recipe files: checked once, all problems in one line, and whether what they start from is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from qwen_vla.training.recipe import Recipe, RecipeError
from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe


def load_recipe(path: Path):
    """Read and check a recipe file; paths in it are relative to the folder that the command is called in.

    Returns a `Recipe`, or for stage rl a `ReinforcementRecipe`.
    """
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe; see config/training/ for those that come with the suite")
    try:
        values = yaml.safe_load(path.read_text())
        return _recipe_class(values).model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_in_words(error)}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def check_inputs(recipe: Recipe) -> None:
    """RecipeError when a data set or a model to start from is missing."""
    for source in getattr(recipe, "data", ()):  # stage rl makes its own
        path = str(getattr(source, "path", "hub:"))
        if not path.startswith("hub:") and not Path(path).exists():
            raise RecipeError(
                f"recipe {recipe.name}: there are no data in {path} (seen from {Path.cwd()}); the comment at the top "
                "of the recipe file says how they are made"
            )
    for field in ("init_from", "expert_from"):
        folder = getattr(recipe, field, None)
        if folder and not (folder / "config.json").is_file():
            raise RecipeError(
                f"recipe {recipe.name}: {field}: there is no model in {folder} (seen from {Path.cwd()}); first train "
                "the recipe that writes it, see the comments in config/training/"
            )


def _recipe_class(values: Any) -> type[BaseModel]:
    if isinstance(values, dict) and values.get("stage") == "rl":
        return ReinforcementRecipe
    return Recipe


def _in_words(error: ValidationError) -> str:
    """All problems of a recipe in one line, each with its field."""
    problems = []
    for problem in error.errors():
        field = ".".join(map(str, problem["loc"])) or "recipe"
        if problem["type"] == "extra_forbidden":
            problems.append(f"{field}: there is no such field")
        elif problem["type"] == "missing":
            problems.append(f"{field}: missing")
        elif problem["type"] == "value_error":
            problems.append(problem["msg"].removeprefix("Value error, "))
        else:
            problems.append(f"{field}: {problem['msg']}, got {problem['input']!r}")
    return "; ".join(problems)
