# SPDX-License-Identifier: Apache-2.0
"""The grounding head's loss: zero for the truth, no gradient from invisible points."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from comparison import assert_alike
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qwen_vla.model.sample import POINTS, TIPS, PointLabels, Sample
from qwen_vla.training.grounding import OUTPUTS, WEIGHTS, GroundingHead, GroundingTargets

SIDE = 6
CELLS = SIDE * SIDE


def transparent_head():
    """A head whose outputs are its inputs, so that a test can say what each token answers."""
    head = GroundingHead(len(POINTS) * len(OUTPUTS))
    head.norm, head.out = nn.Identity(), nn.Identity()
    return head


def scene(seed, images=6):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(images, len(POINTS), 3, generator=generator) * 0.98 + 0.01
    chance = torch.rand(images, len(POINTS), generator=generator)
    visible, hidden = chance < 0.6, chance > 0.8
    visible[0], hidden[0] = True, False
    openings = torch.rand(images, TIPS, generator=generator)
    openings[1, 1] = -1
    return GroundingTargets(torch.arange(images), points, visible, hidden, openings)


def loss_of(head, tokens, targets):
    """The loss as a run puts it together from sums and counts."""
    counts = targets.counts(CELLS)
    return sum(WEIGHTS[name] * total / max(1, counts[name]) for name, total in head.sums(tokens, targets).items())


def cell_of(points):
    """Number of the cell (row-major) that each point (…, 2) lies in."""
    column, row = (points[..., :2] * SIDE).long().clamp(max=SIDE - 1).unbind(-1)
    return row * SIDE + column


def perfect_tokens(targets):
    """Every token gives the true coordinates; only the token of a visible point's own cell claims to hold it."""
    values = torch.zeros(len(targets.points), CELLS, len(POINTS), len(OUTPUTS))
    values[..., 1:4] = targets.points[:, None]
    values[:, :, -TIPS:, 4] = targets.openings[:, None]
    cells = torch.nn.functional.one_hot(cell_of(targets.points), CELLS).movedim(-1, 1)
    values[..., 0] = 60.0 * cells * targets.visible[:, None] - 30.0
    return values.flatten(-2)


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_truth_costs_nothing_and_is_found(seed):
    head, targets = transparent_head(), scene(seed)
    tokens = perfect_tokens(targets)
    assert loss_of(head, tokens, targets).item() < 1e-4
    found, known = head.locate(tokens), targets.openings >= 0
    torch.testing.assert_close(found[..., :3], targets.points)
    torch.testing.assert_close(found[:, -TIPS:, 3][known], targets.openings[known])
    torch.testing.assert_close(found[..., 4], targets.visible.float())


@pytest.mark.parametrize("what", range(len(OUTPUTS)))
def test_every_wrong_output_costs(what):
    head, targets = transparent_head(), scene(0)
    tokens = perfect_tokens(targets).unflatten(-1, (len(POINTS), len(OUTPUTS)))
    tokens[..., what] = tokens[..., what].roll(7, dims=1) if what == 0 else tokens[..., what] + 0.3
    assert loss_of(head, tokens.flatten(-2), targets).item() > 0.05


def test_points_of_which_nothing_is_known_contribute_nothing():
    head, targets = transparent_head(), scene(1)
    tokens = torch.randn(6, CELLS, len(POINTS) * len(OUTPUTS), requires_grad=True)
    loss = loss_of(head, tokens, targets)
    loss.backward()
    gradient = tokens.grad.unflatten(-1, (len(POINTS), len(OUTPUTS))).movedim(-2, 1)
    unknown = ~(targets.visible | targets.hidden)
    assert unknown.any() and (gradient[unknown] == 0).all()
    assert all((values != 0).any() for values in gradient[~unknown])
    moved = replace(targets, points=torch.where(targets.visible[..., None], targets.points, 77.0))
    assert_alike(loss_of(head, tokens, moved), loss)


def test_a_point_that_is_hidden_teaches_only_that_no_cell_holds_it():
    head, targets = transparent_head(), scene(1)
    targets = replace(targets, hidden=~targets.visible)
    tokens = torch.randn(6, CELLS, len(POINTS) * len(OUTPUTS), requires_grad=True)
    loss_of(head, tokens, targets).backward()
    gradient = tokens.grad.unflatten(-1, (len(POINTS), len(OUTPUTS))).movedim(-2, 1)[targets.hidden]
    assert (gradient[..., 0] > 0).all() and (gradient[..., 1:] == 0).all()


def test_a_tip_without_a_gripper_is_not_asked_how_far_it_is_open():
    head, targets = transparent_head(), scene(1)
    targets = replace(targets, visible=torch.ones_like(targets.visible), openings=torch.full((6, TIPS), -1.0))
    tokens = torch.randn(6, CELLS, len(POINTS) * len(OUTPUTS), requires_grad=True)
    assert targets.counts(CELLS)["opening"] == 0
    loss_of(head, tokens, targets).backward()
    assert (tokens.grad.unflatten(-1, (len(POINTS), len(OUTPUTS)))[..., 4] == 0).all()


def test_only_tokens_near_a_point_answer_where_it_is():
    head, targets = transparent_head(), scene(2)
    tokens = torch.randn(6, CELLS, len(POINTS) * len(OUTPUTS), requires_grad=True)
    loss_of(head, tokens, targets).backward()
    gradient = tokens.grad.unflatten(-1, (len(POINTS), len(OUTPUTS)))
    centers = (torch.stack(torch.meshgrid(*[torch.arange(SIDE)] * 2, indexing="xy"), -1).reshape(-1, 2) + 0.5) / SIDE
    distance = (targets.points[:, None, :, :2] - centers[:, None]).abs().amax(-1)
    far = (distance > 1 / SIDE) | ~targets.visible[:, None]
    assert (gradient[far][:, 1:] == 0).all()
    assert (gradient[~far][:, 1:4] != 0).all()


def test_nothing_visible_costs_nothing_and_leaves_no_gradient():
    targets = scene(3)
    targets.visible[...] = targets.hidden[...] = False
    head = GroundingHead(16)
    tokens = torch.randn(6, CELLS, 16, requires_grad=True)
    loss = loss_of(head, tokens, targets)
    loss.backward()
    assert loss.item() == 0.0 and (tokens.grad == 0).all()
    assert all((parameter.grad == 0).all() for parameter in head.parameters()), "zero, not None"


def test_a_real_head_learns_one_scene():
    torch.manual_seed(0)
    targets, head = scene(4, images=2), GroundingHead(64)
    tokens = torch.randn(2, CELLS, 64)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    first = loss_of(head, tokens, targets).item()
    for _ in range(300):
        optimizer.zero_grad()
        loss = loss_of(head, tokens, targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * first
    error = (head.locate(tokens)[..., :2] - targets.points[..., :2]).norm(dim=-1)
    assert error[targets.visible].max() < 0.05


def labels(first, images):
    """Labels whose u counts the images of the whole batch, from `first` on."""
    points = np.zeros((images, len(POINTS), 3), np.float32)
    points[:, :, 0] = (first + np.arange(images))[:, None] / 10
    seen = np.ones(points.shape[:2], bool)
    return PointLabels(points, seen, ~seen, np.array([first / 10, -1], np.float32))


def test_labels_find_their_images_whatever_each_row_shows():
    picture, history = np.zeros((4, 4, 3), np.uint8), np.zeros((3, 4, 4, 3), np.uint8)
    samples = [
        Sample("one camera", {"wrist": picture}, labels=labels(0, 1)),
        Sample("text only"),
        Sample("images without labels", {"ego": picture, "wrist": picture}),
        Sample("in another order", {"wrist": picture, "ego": history}, labels=labels(3, 4)),
    ]
    targets = GroundingTargets.of(samples, ("ego", "wrist"), merged=1)
    assert targets.image.tolist() == [0, 3, 4, 5, 6]
    # The wrist's image is the first of the last sample and the last of its images in the batch.
    torch.testing.assert_close(targets.points[:, 0, 0], torch.tensor([0.0, 0.4, 0.5, 0.6, 0.3]))
    assert targets.openings[:, 0].tolist() == pytest.approx([0.0, 0.3, 0.3, 0.3, 0.3])
    assert (targets.openings[:, 1] == -1).all()
    assert GroundingTargets.of(samples[1:3], ("ego", "wrist"), merged=1) is None


def test_a_video_has_labels_by_step():
    video = np.zeros((3, 4, 4, 3), np.uint8)
    samples = [Sample("no labels", {"ego": video}), Sample("two steps", {"ego": video}, labels=labels(0, 2))]
    assert GroundingTargets.of(samples, ("ego",), merged=2).image.tolist() == [2, 3]


@given(st.integers(0, 2**31), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_sums_and_counts_of_parts_add_up_to_those_of_the_whole(seed, cut):
    targets, head = scene(seed), GroundingHead(16)
    tokens = torch.randn(6, CELLS, 16, generator=torch.Generator().manual_seed(seed))
    parts = [
        GroundingTargets(*(tensor[rows] for tensor in vars(targets).values())) for rows in (slice(cut), slice(cut, 6))
    ]
    sums = [head.sums(tokens[rows], part) for rows, part in zip((slice(cut), slice(cut, 6)), parts, strict=True)]
    for name, total in head.sums(tokens, targets).items():
        torch.testing.assert_close(sums[0][name] + sums[1][name], total)
        assert sum(part.counts(CELLS)[name] for part in parts) == targets.counts(CELLS)[name]
