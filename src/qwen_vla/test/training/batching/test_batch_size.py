# SPDX-License-Identifier: Apache-2.0
"""A recipe in batches of another size sees as many samples, with steps to match."""

from pathlib import Path

import pytest
import torch

from qwen_vla.training.batching.batch_size import with_batch_size
from qwen_vla.training.optimizer import learning_rate
from qwen_vla.training.recipe import Recipe
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


NOISE = 300.0  # of a sample's gradient, per entry
OPTIMIZERS = {
    "AdamW": lambda weights: torch.optim.AdamW([weights], betas=(0.9, 0.95), weight_decay=0.0),
    "Muon": lambda weights: torch.optim.Muon([weights], weight_decay=0.0),
}


def weights_after(recipe: Recipe, optimizer: str, rate: float) -> tuple[float, float]:
    """Share that is left, and spread, of 32×32 weights ±1 that belong at 0, after training on mostly noisy gradients.

    The share is what was not learned yet, the spread what the noise did. rate: the highest learning rate.
    """
    generator = torch.Generator().manual_seed(recipe.batch_size)
    start = torch.randn(32, 32, generator=generator).sign()
    weights = torch.nn.Parameter(start.clone())
    chosen = OPTIMIZERS[optimizer](weights)
    for step in range(recipe.steps):
        noise = torch.randn(weights.shape, generator=generator) / recipe.batch_size**0.5
        weights.grad = weights.detach() + NOISE * noise
        chosen.param_groups[0]["lr"] = rate * learning_rate(recipe, step)
        chosen.step()
    left = (weights * start).mean().item()
    return left, (weights - left * start).std().item()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_where_gradients_are_mostly_noise_the_root_keeps_what_samples_teach_and_other_rules_do_not(recipe, optimizer):
    """Only of the rule: not that gradients of a real model are mostly noise at these sizes."""
    rate = {"AdamW": 0.03, "Muon": 0.1}[optimizer]
    options = {**recipe.optimizer.model_dump(), "expert_lr": rate, "warmup_steps": 80}
    small = Recipe.model_validate({**recipe.model_dump(), "steps": 1600, "batch_size": 32, "optimizer": options})
    large = with_batch_size(small, 256)
    left, spread = weights_after(small, optimizer, rate)
    assert 0.2 < left < 0.7 and spread > 0.3, "learning under way, and noisy"
    found = weights_after(large, optimizer, large.optimizer.expert_lr)
    assert found[0] == pytest.approx(left, abs=0.1) and found[1] == pytest.approx(spread, rel=0.15)
    for other in (rate, 8 * rate):  # left as it was, and in proportion
        assert abs(weights_after(large, optimizer, other)[0] - left) > 0.2, other
