# SPDX-License-Identifier: Apache-2.0
"""Recipes that fine-tune a small checkpoint in Qwen's layout on recordings of the suite."""

from qwen_vla.training.recipe import Recipe

EIGHT_BITS = {"name": "adamw_8bit", "expert_lr": 1e-3, "warmup_steps": 1, "ema_decay": 0.0}


def recipe_for(output, recordings, qwen, **changes) -> Recipe:
    fields = {
        "stage": "sft",
        "name": "adapters",
        "output": output,
        "backbone": str(qwen),
        "model": {"image_size": 64},
        "data": [{"kind": "robot", "path": str(recordings / "demonstrations")}],
        "steps": 10,
        "batch_size": 4,
        "losses": {"action": 1.0, "language": 0.0},
        "optimizer": {"expert_lr": 1e-3, "warmup_steps": 1},
        "held_out_share": 0.25,
        "threads": 1,
    }
    return Recipe.model_validate(fields | changes)
