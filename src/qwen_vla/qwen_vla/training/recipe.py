"""The recipe of a training run: typed, validated once, kept beside every checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class RecipeError(ValueError):
    """A recipe file that is missing or wrong; the message names file and field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSource(_Strict):
    """A LeRobotDataset and its share of the mixture. `collect` says how to make it when it is missing."""

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
    seed: int = 0


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe file."""
    if not path.exists():
        raise RecipeError(f"{path}: no such recipe; see config/training/ for those that come with the suite")
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: {error}") from error
