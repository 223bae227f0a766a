"""The recipe of a training run: typed, validated once, kept beside every checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class RecipeError(ValueError):
    """A recipe that is missing, wrong or cannot be followed; the message names file or recipe, and field or folder."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSource(_Strict):
    """A LeRobotDataset and its share of the mixture."""

    path: Path
    weight: float = Field(1.0, gt=0)


class Losses(_Strict):
    """Weights of the losses (paper: λ_act, λ_vl). grounding: dense auxiliary head on image tokens, training only."""

    action: float = Field(1.0, ge=0)
    language: float = Field(0.1, ge=0)
    grounding: float = Field(0.3, ge=0)


class Optimizer(_Strict):
    """AdamW with separate learning rates, linear warm-up and cosine decay to `final_share` of the peak."""

    backbone_lr: float = Field(gt=0)
    expert_lr: float = Field(gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(200, ge=0)
    final_share: float = Field(0.05, ge=0, le=1)
    max_grad_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)


class Recipe(_Strict):
    """One stage of training. Batches ask questions with probability `question_share`, else they show prompts."""

    name: str
    output: Path
    preset: Literal["tiny", "4b"] = "tiny"
    init_from: Path | None = None
    tau_direction: Literal["noise", "clean"] = "noise"
    robot: str
    data: list[DataSource] = Field(min_length=1)
    steps: int = Field(gt=0)
    batch_size: int = Field(32, gt=0)
    noise_draws: int = Field(1, gt=0)
    question_share: float = Field(0.0, ge=0, le=1)
    losses: Losses = Losses()
    optimizer: Optimizer
    held_out_share: float = Field(0.02, ge=0, lt=1)
    validate_every: int = Field(1000, gt=0)
    save_every: int = Field(500, gt=0)
    log_every: int = Field(20, gt=0)
    threads: int = Field(2, gt=0)
    autocast: Literal["no", "bf16"] = "no"
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _questions_teach(self) -> Self:
        if self.question_share and not (self.losses.language or self.losses.grounding):
            raise ValueError("question_share is above 0, but the weights of losses.language and losses.grounding are 0")
        return self


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe file; paths in it are relative to the folder that the command is called in."""
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe; see config/training/ for those that come with the suite")
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        raise RecipeError(f"{path}: {_in_words(error)}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def check_inputs(recipe: Recipe) -> None:
    """RecipeError when a data set or the model to start from is missing."""
    for source in recipe.data:
        if not source.path.is_dir():
            raise RecipeError(
                f"recipe {recipe.name}: there is no data set in {source.path} (seen from {Path.cwd()}); the comment at "
                "the top of the recipe file has the `qwen-vla collect` command that makes it"
            )
    if recipe.init_from and not (recipe.init_from / "config.json").is_file():
        raise RecipeError(
            f"recipe {recipe.name}: there is no model in {recipe.init_from} (seen from {Path.cwd()}); first train the "
            "recipe that writes it, see the comments in config/training/"
        )


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
