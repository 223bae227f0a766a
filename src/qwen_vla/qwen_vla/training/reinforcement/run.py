# SPDX-License-Identifier: Apache-2.0
"""A reinforcement run: its model, optimizer and progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qwen_vla.policies.policy import Policy
from qwen_vla.suites import load_suite
from qwen_vla.training.distributed import accelerator_of, asked_to_shard, like, load_optimizer, spread, whole
from qwen_vla.training.low_memory.adapters import merged_weights
from qwen_vla.training.output_folder import MODEL_FOLDER
from qwen_vla.training.precision import in_bf16
from qwen_vla.training.recipe import RecipeError
from qwen_vla.training.reinforcement.actor import Actor, Sampling
from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe
from qwen_vla.training.reinforcement.value_head import ActorCritic, ValueHead
from qwen_vla.training.start import adapt
from qwen_vla.training.state import record_of_data, write_model

VALUE_HEAD_FILE = "value_head.safetensors"


@dataclass
class Run:
    """Everything that an update changes. Its random draws depend only on the recipe's seed and `step`."""

    recipe: ReinforcementRecipe
    actor: Actor
    value_head: ValueHead
    optimizer: torch.optim.Optimizer
    step: int = 0

    @property
    def is_main(self) -> bool:
        return self.actor.accelerator.is_main_process

    def state(self) -> dict[str, Any]:
        """The state for `restore`, gathered: what is trained; the rest is in the recipe's checkpoint."""
        trained = {name for name, p in self.actor.model.named_parameters() if p.requires_grad}
        state = {
            "model": {name: tensor for name, tensor in self.actor.model.state_dict().items() if name in trained},
            "value_head": self.value_head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        return whole(state, self.is_main)

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state, sharded as in this run."""
        for part, weights in ((self.actor.model, state["model"]), (self.value_head, state["value_head"])):
            present = part.state_dict()
            part.load_state_dict({name: like(tensor, present[name]) for name, tensor in weights.items()}, strict=False)
        load_optimizer(self.optimizer, state["optimizer"])

    @property
    def scenes(self) -> range:
        """This process's scenes of the next update; none is ever reused."""
        first = self.recipe.first_scene + self.step * self.recipe.episodes
        return self.own(range(first, first + self.recipe.episodes))

    def own(self, every: range) -> range:
        """This process's part of something."""
        return every[self.actor.accelerator.process_index :: self.actor.accelerator.num_processes]


def prepare(recipe: ReinforcementRecipe) -> Run:
    """The run at step 0, from the recipe's checkpoint. The optimizer's groups: actor, value head."""
    robot = load_suite(recipe.suite).embodiment.name
    accelerator = accelerator_of(cpu=not torch.cuda.is_available())
    _check_parts(recipe, accelerator.num_processes)
    device = accelerator.device
    policy = Policy.from_pretrained(
        recipe.init_from, device, recipe.euler_steps, robot, torch.float32, accelerate="off"
    )
    sampling = Sampling(recipe.temperature, recipe.noise_level)
    half = in_bf16(recipe, device)
    actor = Actor(policy, sampling, half, recipe.ppo.counted_rows, accelerator)
    torch.manual_seed(recipe.seed)  # adapters start at random
    adapt(actor.model, recipe)
    actor.model.to(device).train(recipe.gradient_checkpointing)  # checkpoints are made in training only
    value_head = ValueHead(policy.model.config.text.hidden_size).to(device)
    shard = accelerator.num_processes > 1 and (recipe.shard or asked_to_shard())
    both = ActorCritic(actor.model, value_head)
    actor.within = spread(both, accelerator, shard, actor.model.block_names, half)
    trained = [p for p in actor.model.parameters() if p.requires_grad]
    groups = [
        {"params": trained, "lr": recipe.ppo.actor_lr},
        {"params": list(value_head.parameters()), "lr": recipe.ppo.value_lr},
    ]
    return Run(recipe, actor, value_head, torch.optim.AdamW(groups, weight_decay=0.0))


def export(run: Run) -> Path:
    """Save the model with processor, critic, recipe and the seeds of all data, for inference and further stages.

    All processes must call it; the main one writes.
    """
    if run.recipe.validation:  # what was validated is what is deployed
        run.actor.model.config.noise_temperature = run.recipe.validation.temperature
    folder, recipe, count = run.recipe.output / MODEL_FOLDER, run.recipe, run.step * run.recipe.episodes
    seeds = [recipe.first_scene, recipe.first_scene + count]
    played = {"suite": recipe.suite, "kind": "roll-outs", "seeds": seeds, "total_episodes": count}
    data = record_of_data([played], [recipe.init_from])
    heads = {VALUE_HEAD_FILE: whole(run.value_head.state_dict(), run.is_main)}
    weights = whole(merged_weights(run.actor.model), run.is_main)
    if run.is_main:
        write_model(folder, run, run.actor.model, run.actor.processor, data, heads, weights)
    return folder


def _check_parts(recipe: ReinforcementRecipe, processes: int) -> None:
    counts = {"episodes": recipe.episodes, "environments": recipe.environments}
    counts |= {"validation.episodes": recipe.validation.episodes} if recipe.validation else {}
    for name, count in counts.items():
        if count < processes:
            raise RecipeError(
                f"recipe {recipe.name}: {name} {count} is less than one for each of {processes} processes"
            )
