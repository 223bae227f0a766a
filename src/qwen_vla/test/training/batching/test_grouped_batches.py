# SPDX-License-Identifier: Apache-2.0
"""Batches whose rows are grouped by size teach what one batch of all rows teaches."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from micro import build, micro_config, pictures

from qwen_vla.data.mixture import Mixture
from qwen_vla.model.images.transform import ImageTransform
from qwen_vla.model.sample import POINTS, TIPS, PointLabels, Sample
from qwen_vla.training.batching.batches import ACTION_PASSES, CONTEXT_PASSES, OVERHEAD, Batches, alike
from qwen_vla.training.grounding import WEIGHTS, GroundingHead
from qwen_vla.training.learner import Learner


class Robot:
    """A source of rows with so many cameras and steps; of questions where there are no steps."""

    statistics: dict = {}
    embodiments: dict = {}
    held_out = np.arange(0)

    def __init__(self, cameras, steps):
        self.cameras, self.steps, self.training = cameras, steps, np.arange(50)

    def sample(self, index, rng):
        images = {tag: image for tag, image in pictures(1, index)[0].items() if tag in self.cameras}
        shape = (len(images), len(POINTS))
        labels = PointLabels(rng.random((*shape, 3), np.float32), rng.random(shape) < 0.5, np.zeros(shape, bool), NEVER)
        actions = rng.uniform(-1, 1, (self.steps, 7)).astype(np.float32) if self.steps else None
        answer = None if self.steps else "red"
        return Sample("go " * (1 + index % 3), images, answer, actions, labels=labels if images else None)


NEVER = np.full(TIPS, -1, np.float32)
ROBOTS = [Robot(("ego", "cam_wrist"), 4), Robot(("ego",), 2), Robot(("cam_wrist",), 0), Robot((), 3)]


@pytest.fixture(scope="module")
def learner():
    torch.manual_seed(1)
    model, processor = build(micro_config())
    losses = ("action", "language", "grounding")
    return Learner(model, GroundingHead(64), losses, noise_draws=2, trains_in_backbone=True), processor


def taught(learner, batches, tokens):
    """Losses and gradients of all batches of a step together."""
    learner.zero_grad()
    totals = dict.fromkeys(("action", "language", *WEIGHTS), 0.0)
    counts = dict.fromkeys(totals, 0)
    for batch in batches:
        for name, value in learner(batch).items():
            totals[name] = totals[name] + value
        for name, value in batch.counts(tokens).items():
            counts[name] += value
    losses = {name: totals[name] / max(1, counts[name]) for name in totals}
    sum(losses.values()).backward()
    return losses, [parameter.grad.clone() for parameter in learner.parameters()]


def test_groups_teach_what_one_batch_teaches(learner, monkeypatch):
    monkeypatch.setattr("qwen_vla.training.batching.batches.OVERHEAD", 1)  # for a model and images that are so small
    model, processor = learner
    config = model.model.config
    mixture = Mixture(ROBOTS, [3.0, 2.0, 2.0, 2.0], 18, seed=3)
    whole, grouped = (Batches(mixture, processor, config, None, 2, grouped=g) for g in (False, True))
    assert [len(whole[5]), len(grouped[5])] == [1, 4]
    assert sorted(len(batch.inputs["input_ids"]) for batch in grouped[5]) == [4, 4, 4, 6]
    steps = {batch.inputs["actions"].shape[1] for batch in grouped[5] if "actions" in batch.inputs}
    assert steps == {2, 3, 4}, "no batch has more steps than its rows"
    expected, gradients = taught(model, whole[5], config.tokens_per_image)
    found, same = taught(model, grouped[5], config.tokens_per_image)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-4), name
    for ours, theirs in zip(same, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-3)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=30), st.integers(1, 100))
@settings(max_examples=40, deadline=None)
def test_no_cut_in_order_of_size_costs_less(sizes, tokens):
    views = pictures(1)[0]
    tags = list(views)
    samples = [
        Sample("go", {tag: views[tag] for tag in tags[:images]}, actions=np.zeros((steps, 3)) if steps else None)
        for images, steps in sizes
    ]
    groups = alike(samples, ImageTransform(8 * tokens, 8, 1, 1))
    assert sorted(number for group in groups for number in group) == list(range(len(sizes)))
    weights = [CONTEXT_PASSES * images * tokens**2 + ACTION_PASSES * steps for images, steps in sizes]

    def cost(groups):
        return sum(OVERHEAD + len(group) * max(weights[number] for number in group) for group in groups)

    ordered = sorted(range(len(sizes)), key=weights.__getitem__)
    kinds = [[n for n in ordered if weights[n] == weight] for weight in sorted(set(weights))]
    for cuts in itertools.product((False, True), repeat=min(len(kinds) - 1, 5)):
        others: list[list[int]] = [[]]
        for kind, cut in zip(kinds, (False, *cuts), strict=False):
            others = [*others, []] if cut else others
            others[-1] = others[-1] + kind
        others[-1] = others[-1] + [n for kind in kinds[len(cuts) + 1 :] for n in kind]
        assert cost(groups) <= cost(others)
