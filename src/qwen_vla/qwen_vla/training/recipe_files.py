# SPDX-License-Identifier: Apache-2.0
"""Reads recipe files: validated once, all problems in one line, including missing inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, TypeAdapter, ValidationError

from embodiment_descriptions.errors import EmbodimentError, ResourceError
from embodiment_descriptions.robots import embodiment_file
from embodiment_descriptions.yaml_files import read_yaml
from qwen_vla.data.collection import Collection
from qwen_vla.data.sources import AnyData
from qwen_vla.errors.validation_errors import as_text
from qwen_vla.model.checkpoint.files import check_checkpoint
from qwen_vla.training.recipe import Recipe, RecipeError
from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe


def _checked_collection(collection: Collection) -> Collection:
    try:
        collection.check()
    except ValueError as error:
        raise ValueError(f"{collection.out}: {error}") from error
    return collection


def _each_once(collections: list[Collection]) -> list[Collection]:
    places = [collection.out for collection in collections]
    for place in places:
        if places.count(place) > 1:
            raise ValueError(f"{place}: listed more than once")
    return collections


COLLECTIONS = TypeAdapter(
    Annotated[list[Annotated[Collection, AfterValidator(_checked_collection)]], AfterValidator(_each_once)]
)


def load_recipe(path: Path) -> Recipe | ReinforcementRecipe:
    """Read and check a recipe file; paths in it are relative to the working folder.

    RecipeError names the file and all its errors.
    """
    values = _yaml(path)
    return _checked(path, TypeAdapter(_recipe_class(values)), values, "recipe")


def load_data(path: Path) -> list[AnyData]:
    """The entries under `data` of a recipe, whether or not the rest is complete; RecipeError names their errors."""
    values = _yaml(path)
    entries = values.get("data") if isinstance(values, dict) else None
    return _checked(path, TypeAdapter(list[AnyData]), entries or [], "`data` of a recipe")


def load_collections(path: Path) -> list[Collection]:
    """Read and check the file that a recipe names under `collect`: a list of datasets.

    RecipeError names the file and all its errors.
    """
    if not path.exists():
        raise RecipeError(
            f"{path}: no such file (relative to {Path.cwd()}); `collect` names a list of datasets to record"
        )
    return _checked(path, COLLECTIONS, _yaml(path), "list of datasets")


def check_inputs(recipe: Recipe | ReinforcementRecipe) -> None:
    """RecipeError if a dataset, a robot or a model to start from is missing; ValueError for a damaged model."""
    for path in recipe.data_paths:
        if not path.exists():
            raise RecipeError(
                f"recipe {recipe.name}: there is no data in {path} (relative to {Path.cwd()}); "
                + (
                    "qwen-vla collect, given the recipe, records it"
                    if getattr(recipe, "collect", None)
                    else "put your data there"
                )
            )
    for number, entry in enumerate(getattr(recipe, "data", ())):
        for robot in getattr(entry, "robots", None) or (getattr(entry, "robot", None),):
            _check_robot(f"recipe {recipe.name}: data.{number}", robot)
    for field in ("init_from", "expert_from"):
        folder = getattr(recipe, field, None)
        if folder and not (folder / "config.json").is_file():
            raise RecipeError(
                f"recipe {recipe.name}: {field}: there is no model in {folder} (relative to {Path.cwd()}); first train "
                "the recipe that writes it, see the comments in config/training/"
            )
        if folder:
            check_checkpoint(folder)


def _check_robot(place: str, robot: Any) -> None:
    """RecipeError if a robot is unknown, or its YAML is missing; other robots are checked when they are loaded."""
    if not isinstance(robot, str):
        return
    try:
        embodiment_file(robot)
    except (EmbodimentError, ResourceError) as error:
        raise RecipeError(f"{place}: {error}") from error


def _yaml(path: Path) -> Any:
    if not path.exists():
        raise RecipeError(f"{path}: no such recipe; see config/training/ for those of the suite")
    if path.is_dir():
        raise RecipeError(f"{path} is a folder; name a file in it")
    try:
        return read_yaml(path)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def _checked(path: Path, kind: TypeAdapter, values: Any, what: str) -> Any:
    try:
        return kind.validate_python(values)
    except ValidationError as error:
        raise RecipeError(f"{path}: {as_text(error, what, _fields(kind.json_schema()))}") from error


def _fields(schema: Any) -> set[str]:
    """Names of all fields in a JSON schema."""
    if isinstance(schema, list):
        return set().union(*map(_fields, schema))
    if not isinstance(schema, dict):
        return set()
    return set(schema.get("properties", ())).union(*map(_fields, schema.values()))


def _recipe_class(values: Any) -> type[BaseModel]:
    if isinstance(values, dict) and values.get("stage") == "rl":
        return ReinforcementRecipe
    return Recipe
