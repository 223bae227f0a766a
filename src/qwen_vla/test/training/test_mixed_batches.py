# SPDX-License-Identifier: Apache-2.0
"""Batches whose rows differ in everything: each row must count as if it were alone, and two halves as the whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from comparison import assert_alike
from hypothesis import given
from hypothesis import strategies as st
from micro import build, micro_config, pictures

from qwen_vla.data.mixture import Mixture
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext
from qwen_vla.model.modeling import Encoding
from qwen_vla.model.processing import IGNORED_LABEL
from qwen_vla.model.sample import Sample
from qwen_vla.training.batching.batches import Batches
from qwen_vla.training.grounding import GroundingHead
from qwen_vla.training.learner import Learner


def samples():
    """Two cameras and actions; a history of one camera and an answer; text and short actions; a question only."""
    rng = np.random.default_rng(0)
    history = np.stack([view["ego"] for view in pictures(3, seed=1)])
    valid = np.array([True, True, False, False])
    return [
        Sample("pick up the red cube", pictures(1)[0], actions=rng.uniform(-1, 1, (4, 7))),
        Sample("what is this?", {"ego": history}, answer="a red cube"),
        Sample("pick up the green cube", actions=rng.uniform(-1, 1, (4, 3)), valid=valid),
        Sample("what?", {"cam_wrist": pictures(1, seed=2)[0]["cam_wrist"]}, answer="nothing"),
    ]


def random_pair(count, horizon=4):
    generator = torch.Generator().manual_seed(9)
    return torch.rand(count, generator=generator), torch.randn(count, horizon, 10, generator=generator)


def test_a_batch_holds_what_its_rows_have(micro):
    batch = micro[1].collate(samples())
    assert batch["image_grid_thw"].tolist() == [[1, 4, 4]] * 6 and len(batch["pixel_values"]) == 6 * 16
    assert (batch["labels"] != IGNORED_LABEL).any(1).tolist() == [False, True, False, True]
    assert batch["actions"].shape == batch["action_mask"].shape == (4, 4, 10)
    assert batch["action_mask"].sum((1, 2)).tolist() == [28, 0, 6, 0]
    assert np.allclose(batch["actions"][0, :, :7], samples()[0].actions)


def test_what_no_row_has_is_left_out(micro):
    assert set(micro[1].collate([Sample("stop")])) == {"input_ids", "attention_mask", "mm_token_type_ids"}
    with pytest.raises(ValueError, match="at least one sample"):
        micro[1].collate([])


def test_a_history_is_a_video_inside_its_cameras_markers_oldest_first(micro):
    _, processor = micro
    frames = np.stack([view["ego"] for view in pictures(3)])
    batch = processor.collate([Sample("go", {"ego": frames}, frame_rate=5.0)])
    frame = "<|vision_start|>" + "<|video_pad|>" * 4 + "<|vision_end|>"
    shown = "".join(f"<{time} seconds>{frame}" for time in (0.0, 0.2, 0.4))
    assert f"go<|ego_start|>{shown}<|ego_end|><|im_end|>" in processor.tokenizer.decode(batch["input_ids"][0])
    assert (batch["mm_token_type_ids"] == 2).sum() == 12 and (batch["mm_token_type_ids"] == 1).sum() == 0
    each = [processor.collate([Sample("go", {"ego": one})])["pixel_values"] for one in frames]
    assert torch.equal(batch["pixel_values"], torch.cat(each))
    with pytest.raises(ValueError, match="'ego' has no frame"):
        processor.collate([Sample("go", {"ego": frames[:0]})])


def test_a_history_of_one_frame_is_an_image(micro):
    _, processor = micro
    frame = pictures(1)[0]["ego"]
    one, image = (processor.collate([Sample("go", {"ego": view})]) for view in (frame[None], frame))
    assert one.keys() == image.keys() and all(torch.equal(one[name], image[name]) for name in one)


def test_whole_trajectories_may_be_longer_than_the_chunk(micro):
    model, processor = micro
    long = Sample("wave", actions=np.ones((37, 7)))
    with pytest.raises(ValueError, match="37×7 does not fit"):
        processor.collate([long])
    batch = processor.collate([long, samples()[2]], horizon=40)
    assert batch["action_mask"].sum((1, 2)).tolist() == [37 * 7, 6]
    assert torch.isfinite(model(**batch).action_loss)


def test_every_row_counts_as_if_it_were_alone(any_micro):
    model, processor = any_micro
    (tau, noise), rows = random_pair(4), samples()
    whole = model(**processor.collate(rows), tau=tau, noise=noise)
    alone = [
        model(**processor.collate([row]), tau=tau[i : i + 1], noise=noise[i : i + 1]) for i, row in enumerate(rows)
    ]
    actions = [alone[i].action_loss.item() for i in (0, 2)]
    assert whole.action_loss.item() == pytest.approx(np.mean(actions), rel=1e-4)
    assert whole.action_terms.counted == 2
    total = sum(alone[i].language_terms.total.item() for i in (1, 3))
    assert whole.language_terms.total.item() == pytest.approx(total, rel=1e-4)
    assert whole.language_terms.counted == (processor.collate(rows)["labels"] != IGNORED_LABEL).sum()


@pytest.mark.parametrize("draws", [1, 2])
def test_the_expert_sees_only_rows_with_actions(micro, draws):
    model, processor = micro
    seen = []
    hook = model.action_expert.blocks[0].register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    with torch.no_grad():
        model(**processor.collate(samples()), noise_draws=draws)
    hook.remove()
    assert seen == [2 * draws]


def test_garbage_in_rows_without_actions_changes_nothing(micro):
    model, processor = micro
    batch, (tau, noise) = processor.collate(samples()), random_pair(8)
    base = model(**batch, tau=tau, noise=noise, noise_draws=2).action_loss
    batch["actions"][1], noise[2:4] = torch.nan, torch.nan
    assert_alike(model(**batch, tau=tau, noise=noise, noise_draws=2).action_loss, base)


def test_two_halves_reproduce_loss_and_gradients_of_the_whole(micro):
    """What data-parallel processes need: sums over halves, divided by the counts of the whole."""
    model, processor = micro
    rows, (tau, noise) = [*samples(), samples()[0]], random_pair(5)

    def gradients(losses):
        model.zero_grad()
        sum(losses).backward()
        return [p.grad.clone() for p in model.parameters()]

    whole = model(**processor.collate(rows), tau=tau, noise=noise)
    expected = gradients([whole.action_loss, whole.language_loss])
    halves = [model(**processor.collate(rows[s]), tau=tau[s], noise=noise[s]) for s in (slice(0, 2), slice(2, 5))]
    losses = []
    for name in ("action_terms", "language_terms"):
        terms = [getattr(half, name) for half in halves]
        losses += [part.total / sum(t.counted for t in terms) for part in terms]
    assert sum(losses).item() == pytest.approx((whole.action_loss + whole.language_loss).item(), rel=1e-5)
    for ours, theirs in zip(gradients(losses), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)
    model.zero_grad()


def test_a_batch_without_anything_to_learn_still_reaches_every_part(micro):
    """Processes that share sharded parameters must all run the same modules, whatever their rows hold."""
    model, processor = micro
    batch = processor.collate(samples()[:1])
    batch["action_mask"][:] = False
    output = model(**batch, labels=torch.full_like(batch["input_ids"], IGNORED_LABEL))
    output.loss.backward()
    assert output.loss == 0 and output.action_terms.counted == output.language_terms.counted == 0
    for parameter in (*model.action_expert.parameters(), model.vlm.lm_head.weight):
        assert parameter.grad is not None and (parameter.grad == 0).all()
    model.zero_grad()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_rows_select_samples(index):
    numbers = torch.arange(6.0)
    encoding = Encoding(numbers[:, None, None], numbers[:, None], numbers.expand(3, -1)[..., None], numbers[:, None])
    chosen = encoding.rows(torch.tensor(index))
    tensors = [value for value in vars(chosen).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 4 and all(tensor.flatten()[: len(index)].tolist() == index for tensor in tensors)
    assert chosen.position_ids.shape == (3, len(index), 1)


def test_prefixes_are_drawn_up_to_the_configured_length_and_leave_a_step(recordings):
    """Uniform over 0 … 3, a function of the step alone, and without a change of noise and times."""
    config = micro_config(horizon=16)
    _, processor = build(config)
    source = RobotData(kind="robot", path=recordings / "demonstrations").open(SourceContext(config, 0.0))
    mixture = Mixture([source], [1.0], 64, seed=0)
    plain = Batches(mixture, processor, config)[3][0]
    config.prefix_steps = 3
    batches = Batches(mixture, processor, config)
    drawn = torch.cat([batches[step][0].prefix for step in range(6)])
    assert plain.prefix is None and torch.equal(plain.noise, batches[3][0].noise)
    assert torch.equal(batches[3][0].prefix, batches[3][0].prefix) and set(drawn.tolist()) == {0, 1, 2, 3}
    assert torch.bincount(drawn).min() > 0.15 * len(drawn)


def test_a_learner_gives_the_prefix_clean_and_without_a_loss(recordings):
    """What follows a prefix of two steps is judged as the model judges it; labels of the prefix change nothing."""
    config = micro_config(horizon=16)
    model, processor = build(config)
    source = RobotData(kind="robot", path=recordings / "demonstrations").open(SourceContext(config, 0.0))
    batch = Batches(Mixture([source], [1.0], 2, seed=0), processor, config)[0][0]
    batch.prefix = torch.tensor([2, 0])
    learner = Learner(model, GroundingHead(64), ("action",), 1, True)
    inputs = batch.inputs
    expected = model.action_terms(
        model.encode(**inputs), inputs["actions"], inputs["action_mask"], batch.tau, batch.noise, 1, None, batch.prefix
    )
    assert float(learner(batch)["action"]) == pytest.approx(float(expected.total), rel=1e-5)
    assert float(expected.total) != pytest.approx(float(learner(replace(batch, prefix=None))["action"]), rel=1e-3)
