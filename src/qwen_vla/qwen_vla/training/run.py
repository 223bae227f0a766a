# SPDX-License-Identifier: Apache-2.0
"""A run of a recipe: everything that a training step uses, created from the recipe and its data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from qwen_vla.data.label_ranges import clipped_shares, refuse_other_ranges
from qwen_vla.data.mixture import Mixture
from qwen_vla.data.samples import SampleSource, SourceContext
from qwen_vla.data.sources import open_sources
from qwen_vla.model.devices import usable_device
from qwen_vla.model.modeling import QwenVLAModel
from qwen_vla.model.processing import QwenVLAProcessor
from qwen_vla.training.balance import GradientBalance
from qwen_vla.training.batching.batches import Batches, filler_for
from qwen_vla.training.batching.resident import resident_sources
from qwen_vla.training.distributed import (
    accelerator_of,
    asked_to_shard,
    in_turn,
    like,
    load_optimizer,
    own_part,
    spread,
    whole,
)
from qwen_vla.training.grounding import GroundingHead
from qwen_vla.training.learner import Learner
from qwen_vla.training.low_memory.adapters import merged_weights
from qwen_vla.training.optimizer import learning_rate, optimizer_of
from qwen_vla.training.output_folder import MODEL_FOLDER
from qwen_vla.training.precision import in_bf16
from qwen_vla.training.recipe import Recipe, RecipeError
from qwen_vla.training.start import HEAD_FILE, load_head, make_model, start_of, statistics_to_keep
from qwen_vla.training.state import record_of_data, refuse_other_statistics, write_model

LOSSES = ("action", "language", "grounding")
Device = Literal["auto", "cpu", "cuda"]


@dataclass
class Run:
    """Model, data, optimizer and progress.

    clipped: per source, the share of its labels outside their statistics' range, by statistics and channel.
    placement: where the data is, as text.
    learner: model and grounding head; wrapped: the same for several processes, called by a step. average: EMA of
    `trained`, the model's trained parameters, in their order (of shards, if sharded); empty without one.
    """

    recipe: Recipe
    accelerator: Accelerator
    sources: list[SampleSource]
    clipped: list[dict[str, dict[str, float]]]
    batches: Batches
    learner: Learner
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    balance: GradientBalance
    placement: str
    step: int = 0
    trained: list[nn.Parameter] = field(init=False)
    average: list[torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        averages = self.recipe.optimizer.ema_decay > 0
        self.average = [own_part(p.detach()).clone() for p in self.trained] if averages else []

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def model(self) -> QwenVLAModel:
        return self.learner.model

    @property
    def processor(self) -> QwenVLAProcessor:
        return self.batches.processor

    def state(self) -> dict[str, Any]:
        """The state for `restore`, gathered from all processes; empty except in the main one."""
        return {
            "learner": whole(self._weights(), self.is_main),
            "optimizer": whole(self.optimizer.state_dict(), self.is_main),
            "schedule": self.schedule.state_dict(),
            "average": whole(self._averages(), self.is_main),
            "language_weight": self.balance.language,
            "statistics": {name: known.to_json() for name, known in self.processor.normalization.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state, sharded as in this run; StateError if its statistics are not those of this run's data."""
        refuse_other_statistics(state.get("statistics", {}), self.processor.normalization)
        present = self.learner.state_dict()
        weights = {name: like(tensor, present[name]) for name, tensor in state["learner"].items()}
        self.learner.load_state_dict(weights, strict=False)
        load_optimizer(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        pairs = zip(state["average"], self.trained if self.average else [], strict=True)
        self.average = [own_part(like(tensor, p)).clone() for tensor, p in pairs]
        self.balance.language = state["language_weight"]

    def _weights(self) -> dict[str, torch.Tensor]:
        """All weights; for a model from a checkpoint, only the trained ones: the others are in the checkpoint."""
        weights = self.learner.state_dict()
        if not (self.recipe.init_from or self.recipe.backbone):
            return weights
        trained = {name for name, p in self.learner.named_parameters() if p.requires_grad}
        return {name: tensor for name, tensor in weights.items() if name in trained}

    def _averages(self) -> list[torch.Tensor]:
        """The averages as tensors of the same kind as the parameters, to be gathered like them."""
        if not self.average:
            return []
        with averaged(self):
            return [p.detach().clone() for p in self.trained]


def prepare(recipe: Recipe, device: Device = "auto") -> Run:
    """The run at step 0. Draws the initial weights from PyTorch's global generator, so seed that first."""
    accelerator = accelerator_of(cpu=not uses_gpu(device))
    _check_batch(recipe, accelerator.num_processes)
    start = start_of(recipe)
    kept = statistics_to_keep(recipe, start)
    context = SourceContext(
        start.config,
        recipe.held_out_share,
        kept,
        images=recipe.stage != "t2a",
        trajectory_steps=recipe.horizon,
    )
    sources = in_turn(accelerator, lambda: open_sources(recipe.data, context))
    mixture = Mixture(sources, [spec.weight for spec in recipe.data], recipe.batch_size, recipe.seed, recipe.balance)
    clipped = clipped_shares(sources, mixture.shares.tolist())
    for source in sources:
        refuse_other_ranges(source, kept)
    _check_losses(recipe, sources)
    model, processor = make_model(recipe, start, sources)
    head = GroundingHead(model.config.text.hidden_size)
    load_head(head, recipe)
    losses = tuple(name for name in LOSSES if getattr(recipe.losses, name))
    learner = Learner(model, head, losses, recipe.noise_draws, recipe.trains_in_backbone).to(accelerator.device)
    _freeze_unused(learner)
    learner.sharded = accelerator.num_processes > 1 and (recipe.shard or asked_to_shard())
    wrapped = spread(learner, accelerator, learner.sharded, model.block_names, in_bf16(recipe, accelerator.device))
    optimizer = optimizer_of(recipe, learner)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(recipe, step))
    resident, placement = resident_sources(sources, processor, accelerator.device)
    batches = Batches(
        mixture,
        processor,
        model.config,
        recipe.horizon,
        recipe.noise_draws,
        recipe.accumulate,
        accelerator.process_index,
        accelerator.num_processes,
        filler_for(processor, images=context.images) if learner.sharded else None,
        grouped=accelerator.num_processes == 1 and accelerator.device.type == "cpu",
        resident=resident,
    )
    balance = GradientBalance(recipe.losses, recipe.losses.language)
    return Run(
        recipe, accelerator, sources, clipped, batches, learner, wrapped, optimizer, schedule, balance, placement
    )


def uses_gpu(device: Device) -> bool:
    """Whether to train on a GPU; ValueError if one is asked for and PyTorch finds none."""
    if device == "auto":
        return torch.cuda.is_available()
    return usable_device(device).type == "cuda"


@contextlib.contextmanager
def averaged(run: Run) -> Iterator[None]:
    """The model with its averaged weights, if it has any, within the context."""
    if not run.average:
        yield
        return
    parameters = [own_part(p.detach()) for p in run.trained]
    present = [p.clone() for p in parameters]
    with torch.no_grad():
        torch._foreach_copy_(parameters, run.average)
        try:
            yield
        finally:
            torch._foreach_copy_(parameters, present)


def export(run: Run, name: str = MODEL_FOLDER) -> Path:
    """Save the averaged weights with all that inference and a rerun need, in folder `name` of the output.

    All processes must call it; the main one writes.
    """
    folder, recipe = run.recipe.output / name, run.recipe
    with averaged(run):
        weights = whole(merged_weights(run.model), run.is_main)
    heads = {HEAD_FILE: whole(run.learner.head.state_dict(), run.is_main)}
    if run.is_main:
        own = [_record(source, clipped) for source, clipped in zip(run.sources, run.clipped, strict=True)]
        data = record_of_data(own, (recipe.init_from, recipe.expert_from))
        write_model(folder, run, run.model, run.processor, data, heads, weights)
    return folder


def _record(source: SampleSource, clipped: Mapping[str, Mapping[str, float]]) -> dict:
    """The origin of a source's data, with the share of its labels that are clipped."""
    return source.provenance() | ({"clipped_share": clipped} if clipped else {})


def _check_batch(recipe: Recipe, processes: int) -> None:
    parts = processes * recipe.accumulate
    if recipe.batch_size < parts:
        raise RecipeError(
            f"recipe {recipe.name}: batch_size {recipe.batch_size} is less than one row for each of {processes} "
            f"processes in {recipe.accumulate} parts"
        )


def _check_losses(recipe: Recipe, sources: Sequence[SampleSource]) -> None:
    """RecipeError if a source has samples without a weighted loss."""
    losses = recipe.losses
    for source in sources:
        sample = source.sample(int(source.training[0]), np.random.default_rng(0))
        taught = {"action": sample.actions, "language": sample.answer, "grounding": sample.labels}
        present = [name for name, what in taught.items() if what is not None]
        if not any(getattr(losses, name) for name in present):
            weights = ", ".join(f"losses.{name}" for name in present) or "no loss at all"
            raise RecipeError(
                f"recipe {recipe.name}: {source.name} would have no loss, it is for {weights}; set a "
                "weight above 0, or remove this data"
            )


def _freeze_unused(learner: Learner) -> None:
    """Freeze a head without its loss, so that weight decay does not change it."""
    learner.head.requires_grad_("grounding" in learner.losses)
