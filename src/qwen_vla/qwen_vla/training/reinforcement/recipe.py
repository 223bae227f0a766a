# SPDX-License-Identifier: Apache-2.0
"""The recipe of a reinforcement run; its defaults are the paper's constants (arXiv 2605.30280, RL stage)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from qwen_vla.seeds import require_split
from qwen_vla.training.recipe import Lora, OutputFolder, Strict

TRAINING_SCENES = 3_000_000  # first scene; demonstrations have 1,000,000 on, snapshots 2,000,000 on


class PPO(Strict):
    """PPO with generalized advantage estimation; one chunk is one action.

    counted_rows: rows of a chunk in its log-probability: those executed before the next decision, or all. The noise of
        the others moves the executed ones through the model, so only all of them have the policy's exact density;
        the executed ones are fewer numbers, with less noise in the ratio.
    minibatch: decisions per gradient step. normalize_advantages, max_grad_norm, target_kl (end an update's epochs when
        the approximate KL of a minibatch exceeds it): not given in the paper.
    """

    gamma: float = Field(default=0.99, ge=0, le=1)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    clip: float = Field(default=0.2, gt=0, lt=1)
    value_coefficient: float = Field(default=1.0, ge=0)
    epochs: int = Field(default=4, gt=0)
    actor_lr: float = Field(default=5e-6, gt=0)
    value_lr: float = Field(default=1e-4, gt=0)
    counted_rows: Literal["executed", "all"] = "executed"
    minibatch: int = Field(default=32, gt=0)
    normalize_advantages: bool = True
    max_grad_norm: float = Field(default=1.0, gt=0)
    target_kl: float | None = Field(default=None, gt=0)


class Validation(Strict):
    """Episodes without the stochastic step, every `every` updates, in validation scenes from `seed` on."""

    every: int = Field(default=10, gt=0)
    episodes: int = Field(default=16, gt=0)
    seed: int = Field(default=15_000, ge=0)
    temperature: float = Field(default=0.6, gt=0)

    @model_validator(mode="after")
    def _validation_scenes(self) -> Self:
        require_split("validation", range(self.seed, self.seed + self.episodes), "validation.seed")
        return self


class ReinforcementRecipe(Strict):
    """One reinforcement run: `steps` updates, each on `episodes` whole episodes in new scenes.

    init_from: the checkpoint to improve; suite: its environment and robot. trained: the whole policy, as in
    the paper, or only the action expert (the backbone then runs once per decision, not once per epoch). lora: adapters
    instead of the backbone's weights, at the actor's learning rate. precision, autocast, gradient_checkpointing,
    compile: as in a supervised recipe.
    temperature, noise_level: scale of the noise, and η of the stochastic step, in roll-outs (`flow_sde`; η: not
    in the paper). euler_steps: default, the checkpoint's own, as it is deployed. environments: simulators, each a
    process; workers: how many of them compute at a time. With several processes of training, episodes and simulators
    are divided between them. shard: FSDP instead of a full copy in every one.
    """

    stage: Literal["rl"]
    name: str
    output: OutputFolder
    init_from: Path
    suite: str
    steps: int = Field(gt=0)
    episodes: int = Field(default=16, gt=0)
    environments: int = Field(default=8, gt=0)
    workers: int = Field(default=2, gt=0)
    euler_steps: int | None = Field(default=None, ge=2)
    noise_level: float = Field(default=0.5, gt=0, le=1)
    temperature: float = Field(default=1.0, gt=0)
    trained: Literal["all", "expert"] = "all"
    lora: Lora | None = None
    ppo: PPO = PPO()
    validation: Validation | None = Validation()
    first_scene: int = Field(default=TRAINING_SCENES, ge=TRAINING_SCENES)
    save_every: int = Field(default=5, gt=0)
    threads: int = Field(default=1, gt=0)
    autocast: Literal["no", "bf16"] = "no"
    precision: Literal["fp32", "bf16"] | None = None
    gradient_checkpointing: bool = False
    compile: bool = False
    shard: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lora and self.trained == "expert":
            raise ValueError("lora adapts the backbone, which trained: expert excludes")
        if self.lora and self.lora.quantize != "none" and self.shard:
            raise ValueError("lora.quantize needs whole matrices: shard must be false")
        if self.lora and self.lora.dropout:
            raise ValueError("lora.dropout must be 0: the ratio of probabilities is that of one policy")
        if self.frozen_precision != "fp32" and self.autocast == "no":
            raise ValueError(f"precision {self.precision} with trained weights in fp32 needs autocast: bf16")
        return self

    @property
    def frozen(self) -> frozenset[str]:
        """Parts of the model that are not trained."""
        return frozenset({"backbone"} if self.trained == "expert" else ())

    @property
    def frozen_precision(self) -> Literal["fp32", "bf16"]:
        """The precision of frozen weights."""
        return self.precision or ("bf16" if self.lora and self.autocast == "bf16" else "fp32")

    @property
    def data_paths(self) -> list[Path]:
        """None: it trains on its own episodes."""
        return []
