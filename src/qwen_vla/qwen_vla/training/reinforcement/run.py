"""A reinforcement run: what is trained, what it leaves on disk, and how it goes on after an interruption."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from qwen_vla.output_files import folder_complete_or_absent
from qwen_vla.policies.policy import Policy
from qwen_vla.suites import load_suite
from qwen_vla.training.output_folder import (
    MODEL_FOLDER,
    STATE_FILE,
    TRAINING_FILE,
    model_files,
    write_training_file,
)
from qwen_vla.training.progress.log import cut_log
from qwen_vla.training.reinforcement.actor import Actor, Sampling
from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe
from qwen_vla.training.reinforcement.value_head import ValueHead
from qwen_vla.training.state import read_state, write_state

VALUE_HEAD_FILE = "value_head.safetensors"


@dataclass
class Run:
    """Everything that an update changes. What it draws depends on the recipe's seed and `step` alone."""

    recipe: ReinforcementRecipe
    actor: Actor
    value_head: ValueHead
    optimizer: torch.optim.Optimizer
    step: int = 0

    @property
    def scenes(self) -> range:
        """The scenes of the next update; none is ever used twice."""
        first = self.recipe.first_scene + self.step * self.recipe.episodes
        return range(first, first + self.recipe.episodes)


def prepare(recipe: ReinforcementRecipe) -> Run:
    """The run at step 0, from the recipe's checkpoint. The optimiser's groups: actor, value head."""
    robot = load_suite(recipe.suite).embodiment.name
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = Policy.from_pretrained(
        recipe.init_from, device, recipe.euler_steps, robot, torch.float32, accelerate="off"
    )
    sampling = Sampling(recipe.temperature, recipe.noise_level)
    actor = Actor(policy, sampling, autocast=recipe.autocast == "bf16")
    actor.model.vlm.requires_grad_(recipe.trained == "all")
    value_head = ValueHead(policy.model.config.vlm_config.text_config.hidden_size).to(device)
    trained = [p for p in actor.model.parameters() if p.requires_grad]
    groups = [
        {"params": trained, "lr": recipe.ppo.actor_lr},
        {"params": list(value_head.parameters()), "lr": recipe.ppo.value_lr},
    ]
    return Run(recipe, actor, value_head, torch.optim.AdamW(groups, weight_decay=0.0))


def save(run: Run) -> None:
    """The whole state in one file, renamed into place: an interrupted save leaves the previous one."""
    state = {
        "step": run.step,
        "model": run.actor.model.state_dict(),
        "value_head": run.value_head.state_dict(),
        "optimizer": run.optimizer.state_dict(),
    }
    write_state(run.recipe.output / STATE_FILE, state)


def resume(run: Run) -> None:
    """Go on from the state in the recipe's output folder, if there is one; `claim` the folder first."""
    path = run.recipe.output / STATE_FILE
    if path.exists():
        state = read_state(path)
        run.actor.model.load_state_dict(state["model"])
        run.value_head.load_state_dict(state["value_head"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.step = state["step"]
    cut_log(run.recipe.output, run.step)


def export(run: Run) -> Path:
    """The model with processor, critic, recipe and the seeds of all data: what inference and a further stage need."""
    folder = run.recipe.output / MODEL_FOLDER
    with folder_complete_or_absent(folder, model_files) as temporary:
        run.actor.model.save_pretrained(temporary)
        run.actor.processor.save_pretrained(temporary)
        save_file(run.value_head.state_dict(), temporary / VALUE_HEAD_FILE)
        recipe = json.loads(run.recipe.model_dump_json())
        write_training_file(temporary, {"recipe": recipe, "step": run.step, "data": _data(run)})
    return folder


def _data(run: Run) -> list[dict]:
    """The scenes of this run and the data of the model it started from: success there proves nothing."""
    recipe = run.recipe
    seeds = [recipe.first_scene, run.scenes.start]
    data = [{"suite": recipe.suite, "kind": "roll-outs", "seeds": seeds, "total_episodes": seeds[1] - seeds[0]}]
    earlier = recipe.init_from / TRAINING_FILE
    if earlier.exists():
        data += json.loads(earlier.read_text())["data"]
    return data
