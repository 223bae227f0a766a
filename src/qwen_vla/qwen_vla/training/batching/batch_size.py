# SPDX-License-Identifier: Apache-2.0
"""The same training in batches of another size."""

from __future__ import annotations

import math

from qwen_vla.training.recipe import Recipe

INTERVALS = ("steps", "validate_every", "save_every", "keep_every", "log_every")
RATES = ("backbone_lr", "expert_lr", "marker_lr")


def with_batch_size(recipe: Recipe, size: int) -> Recipe:
    """A recipe that sees as many samples in batches of `size` rows.

    Learning rates grow with the square root of the batch, as suits optimizers that normalize a step (Malladi et al.
    2022). Steps, warm-up and intervals shrink with it, and the averaged weights look back over as many samples.
    """
    factor = size / recipe.batch_size
    values = recipe.model_dump(exclude_unset=True)
    optimizer = recipe.optimizer
    for name in INTERVALS:
        if (steps := getattr(recipe, name)) is not None:
            values[name] = _fewer(steps, factor)
    rates = {name: getattr(optimizer, name) for name in RATES}
    values["optimizer"] = optimizer.model_dump() | {
        **{name: rate and rate * math.sqrt(factor) for name, rate in rates.items()},
        "warmup_steps": round(optimizer.warmup_steps / factor),
        "ema_decay": optimizer.ema_decay**factor,
    }
    if recipe.lora:
        values["lora"] = recipe.lora.model_dump() | {"lr": recipe.lora.lr * math.sqrt(factor)}
    values["losses"] = recipe.losses.model_dump() | {"balance_every": _fewer(recipe.losses.balance_every, factor)}
    reference = recipe.batch_size_reference or recipe.batch_size
    return Recipe.model_validate(values | {"batch_size": size, "batch_size_reference": reference})


def _fewer(steps: int, factor: float) -> int:
    return max(1, round(steps / factor))
