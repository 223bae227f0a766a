# SPDX-License-Identifier: Apache-2.0
"""A recipe in batches of another size sees as many samples, with steps to match."""

from pathlib import Path

import pytest

from qwen_vla.training.batching.batch_size import with_batch_size
from qwen_vla.training.recipe_files import load_recipe

RECIPE = Path(__file__).resolve().parents[5] / "config/training/joint_actions.yaml"


@pytest.fixture
def recipe():
    return load_recipe(RECIPE)


def test_as_many_samples_at_rates_that_grow_with_the_root_of_the_batch(recipe):
    larger = with_batch_size(recipe, 4 * recipe.batch_size)
    assert larger.steps * larger.batch_size == recipe.steps * recipe.batch_size
    assert larger.optimizer.backbone_lr == pytest.approx(2 * recipe.optimizer.backbone_lr)
    assert larger.optimizer.expert_lr == pytest.approx(2 * recipe.optimizer.expert_lr)
    assert larger.optimizer.warmup_steps == recipe.optimizer.warmup_steps / 4
    assert larger.optimizer.ema_decay == pytest.approx(recipe.optimizer.ema_decay**4)
    assert larger.keep_every == recipe.keep_every / 4
    assert larger.losses.balance_every == recipe.losses.balance_every / 4
    assert (larger.data, larger.noise_draws) == (recipe.data, recipe.noise_draws)


def test_the_size_it_was_written_for_stays_known(recipe):
    assert recipe.batch_size_reference is None
    twice = with_batch_size(with_batch_size(recipe, 512), 1024)
    assert twice.batch_size_reference == recipe.batch_size
    assert twice.optimizer.expert_lr == pytest.approx(4 * recipe.optimizer.expert_lr)


def test_the_same_size_changes_nothing_else(recipe):
    assert with_batch_size(recipe, 64).model_copy(update={"batch_size_reference": None}) == recipe
