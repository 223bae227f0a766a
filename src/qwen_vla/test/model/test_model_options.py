# SPDX-License-Identifier: Apache-2.0
"""Options that the paper leaves open: what each does, and that the defaults change nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from comparison import assert_alike
from hypothesis import given
from hypothesis import strategies as st
from micro import build, micro_config, pictures

from qwen_vla import Observation, Policy, QwenVLAConfig, QwenVLAModel, QwenVLAProcessor
from qwen_vla.model.action_expert import joint_mask
from qwen_vla.model.processing import checked_state, state_text
from qwen_vla.model.sample import Sample

SHIPPED = Path(__file__).parents[4] / "checkpoints" / "tiny"
PROMPT = "pick up the red cube"
# Rows 0, 7 and 15 of a chunk of the shipped checkpoint for the WidowX: what changes them changes how robots move.
REFERENCE = [
    [-0.002110562, -0.006325778, -0.001301931, -0.003690091, 0.008715864, 0.000569422, 1.0],
    [0.052723914, -0.073121905, -0.003118750, -0.001579934, 0.006560917, -0.014032639, 1.0],
    [0.017418524, -0.068932399, 0.002816573, -0.004111509, -0.020202626, 0.005390678, 0.0],
]


def option(**fields):
    """A micro model with other options, and its processor."""
    config = micro_config()
    return build(QwenVLAConfig(**{**config.to_dict(), **fields}))


def chunk(model, batch, horizon=4):
    mask = torch.zeros(len(batch["input_ids"]), horizon, 10, dtype=torch.bool)
    mask[:, :, :7] = True
    noise = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1))
    return model.sample_actions(model.encode(**batch), mask, 4, noise=noise)


def test_the_shipped_checkpoint_acts_as_it_always_did():
    """To ten micrometers and microradians: another processor's kernels round the last digits differently."""
    policy = Policy.from_pretrained(SHIPPED, embodiment="widowx")
    rng = np.random.default_rng(7)
    images = {tag: rng.integers(0, 256, (120, 160, 3), dtype=np.uint8) for tag in policy.camera_tags}
    data = policy.infer(Observation(images, PROMPT), seed=3).data
    np.testing.assert_allclose(data[[0, 7, 15]], REFERENCE, atol=1e-5)


def test_options_keep_the_published_sizes_except_the_state_token():
    def parameters(**options):
        with torch.device("meta"):
            expert = QwenVLAModel(QwenVLAConfig.preset("4b", **options)).action_expert
        return sum(p.numel() for p in expert.parameters())

    published = parameters()
    options = {"attention_pattern": "causal", "context_layer": 16, "proprioception": "text", "history_frames": 8}
    assert parameters(**options) == published
    assert parameters(proprioception="token") == published + 64 * 1536 + 1536


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"proprioception": "on"}, "proprioception 'on'"),
        ({"attention_pattern": "full"}, "attention_pattern 'full'"),
        ({"context_layer": 0}, r"context_layer 0 is not in 1\.\.4"),
        ({"context_layer": 5}, "context_layer 5"),
        ({"history_frames": 0}, "history_frames 0"),
        ({"history_rate": 0.0}, "history_rate 0.0 Hz"),
    ],
)
def test_impossible_options_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        QwenVLAConfig.preset("tiny", **change)


def test_presets_merge_dictionaries():
    config = QwenVLAConfig.preset("tiny", expert_config={"action_channels": 32})
    assert config.channels == 32 and config.expert_config.hidden_size == 128


@pytest.mark.parametrize("fields", [{"proprioception": "token"}, {"attention_pattern": "causal"}, {"context_layer": 1}])
def test_options_survive_saving(fields, tmp_path):
    model, processor = option(**fields)
    batch = processor.collate([Sample(PROMPT, pictures(1)[0], state=np.full(7, 0.5))])
    expected = chunk(model, batch)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = QwenVLAProcessor.from_pretrained(tmp_path)
    batch = again.collate([Sample(PROMPT, pictures(1)[0], state=np.full(7, 0.5))])
    assert torch.equal(chunk(QwenVLAModel.from_pretrained(tmp_path).eval(), batch), expected)


# --- proprioception ---------------------------------------------------------------------------------------------------


def test_state_is_not_used_by_default(micro):
    model, processor = micro
    with_state, without = (processor.collate([Sample(PROMPT, state=s)]) for s in (np.ones(7), None))
    assert set(with_state) == set(without) and torch.equal(with_state["input_ids"], without["input_ids"])


def test_state_as_text():
    model, processor = option(proprioception="text")
    batch = processor.collate([Sample(PROMPT, state=np.array([-1.0, -0.73, 0.0, 1.0]))])
    text = processor.tokenizer.decode(batch["input_ids"][0])
    assert f"user\n{PROMPT} state: [0, 34, 128, 255]<|im_end|>" in text and "state" not in batch
    assert PROMPT + "<|im_end|>" in processor.tokenizer.decode(processor.collate([Sample(PROMPT)])["input_ids"][0])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_bins_of_the_state_are_equal_and_cover_the_range(state):
    bins = np.array(eval(state_text(np.array(state)).removeprefix("state: ")))
    centers = (bins + 0.5) / 128 - 1
    assert ((bins >= 0) & (bins < 256)).all() and np.abs(centers - np.float32(state)).max() <= 1 / 256 + 1e-6


@pytest.mark.parametrize("state", [[], [[0.1]], [np.nan], [1.5]])
def test_what_is_no_normalised_state_is_refused(state):
    with pytest.raises(ValueError, match="a state must be finite numbers"):
        checked_state(np.array(state))


def test_state_as_a_token():
    model, processor = option(proprioception="token")
    states = [np.full(7, 0.5), None, np.full(3, -0.5)]
    rows = [Sample(PROMPT, pictures(1)[0], state=state, actions=np.ones((4, 7))) for state in states]
    batch = processor.collate(rows)
    assert batch["state"].shape == (3, 10) and batch["state_mask"].tolist() == [True, False, True]
    together = chunk(model, batch)
    for row in range(3):  # with or without state, alone or beside others
        torch.testing.assert_close(
            together[row : row + 1], chunk_alone(model, processor, rows[row], row), atol=2e-5, rtol=1e-4
        )
    assert (
        together[0] - chunk_alone(model, processor, Sample(PROMPT, pictures(1)[0], state=np.zeros(7)), 0)
    ).abs().max() > 1e-4
    model(**batch).loss.backward()
    assert model.action_expert.state_in.weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match="11 numbers"):
        processor.collate([Sample(PROMPT, state=np.zeros(11))])


def chunk_alone(model, processor, sample, row):
    """The chunk of one sample with the noise that row ``row`` of a batch of three has."""
    mask = torch.zeros(1, 4, 10, dtype=torch.bool)
    mask[:, :, :7] = True
    noise = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(1))[row : row + 1]
    return model.sample_actions(model.encode(**processor.collate([sample])), mask, 4, noise=noise)


# --- which tokens see which, and which layer they come from -----------------------------------------------------------


@pytest.mark.parametrize("pattern", ["bidirectional", "prefix", "causal"])
def test_attention_pattern_by_its_definition(pattern):
    context, horizon = 3, 4
    keys = torch.tensor([[False, True, True, True, True, True, False], [True] * 7])
    seen = joint_mask(keys, context, horizon, pattern, keys.device).expand(2, 1, 7, 7)[:, 0]
    for row in range(2):
        for query in range(7):
            for key in range(7):
                allowed = bool(keys[row, key])
                if pattern != "bidirectional" and query < context:
                    allowed &= key < context
                if pattern == "causal" and query >= context:
                    allowed &= key <= query
                assert bool(seen[row, query, key]) == allowed, (row, query, key)
    everything = joint_mask(None, context, horizon, pattern, keys.device)
    assert everything is None if pattern == "bidirectional" else everything.shape == (1, 1, 7, 7)


@pytest.mark.parametrize("pattern", ["prefix", "causal"])
def test_only_causal_actions_ignore_later_ones(pattern):
    model, processor = option(attention_pattern=pattern)
    encoding = model.encode(**processor([PROMPT], pictures(1)))
    expert = model.action_expert
    context = model.expert_context(encoding, torch.ones(1, 4, dtype=torch.bool))
    noisy, modulations = torch.randn(1, 4, 10), expert.modulations(torch.tensor([0.5]))
    base = expert.velocity(context, noisy, modulations)
    noisy[:, 3] += 1.0
    change = (expert.velocity(context, noisy, modulations) - base).abs().amax(-1)[0]
    assert change[3] > 1e-4 and (change[:3].max() < 1e-6 if pattern == "causal" else change[:3].max() > 1e-4)


@pytest.mark.parametrize("pattern", ["prefix", "causal"])
def test_padding_makes_no_difference_with_any_pattern(pattern):
    model, processor = option(attention_pattern=pattern)
    rows = [Sample(text, pictures(1)[0]) for text in ("stop", PROMPT, "stop")]
    together = chunk(model, processor.collate(rows))
    for row in range(3):
        torch.testing.assert_close(
            together[row : row + 1], chunk_alone(model, processor, rows[row], row), atol=2e-5, rtol=1e-4
        )


@pytest.mark.parametrize("fields", [{"layers": ("linear_attention", "full_attention")}, {}])
def test_tapped_layer(fields):
    """The expert sees what a backbone of so many layers would have given it."""
    config = micro_config(**fields)
    model, processor = build(QwenVLAConfig(**{**config.to_dict(), "context_layer": 1}))
    batch = processor([PROMPT], pictures(1))
    tapped = model.encode(**batch)
    layers = model.vlm.model.language_model.layers
    last = layers[1]
    layers[1] = torch.nn.Identity()
    layers[1].forward = lambda x, **_: x
    short = model.vlm.model(**batch).last_hidden_state
    layers[1] = last
    assert_alike(tapped.context, short)
    assert not torch.allclose(tapped.hidden, tapped.context, atol=1e-2)
    model.config.context_layer = 2
    assert model.encode(**batch).context is None


# --- what runs on a device must not wait for it -----------------------------------------------------------------------


def test_positions_and_masks_may_be_prepared_on_the_host(micro):
    model, processor = micro
    batch = processor([PROMPT], pictures(1))
    expected = chunk(model, batch)
    positions = model.positions(**{k: batch[k] for k in ("input_ids", "attention_mask", "image_grid_thw")})
    del batch["attention_mask"]
    encoding = model.encode(**batch, position_ids=positions)
    assert not encoding.padded
    assert_alike(chunk(model, {**batch, "position_ids": positions}), expected)


def test_velocity_compiles_as_one_graph(micro):
    model, processor = micro
    expert = model.action_expert
    context = model.expert_context(model.encode(**processor([PROMPT], pictures(1))), torch.ones(1, 4, dtype=torch.bool))
    arguments = context, torch.randn(1, 4, 10), expert.modulations(torch.tensor([0.5]))
    with torch.no_grad():
        explanation = torch._dynamo.explain(expert.velocity)(*arguments)
        assert explanation.graph_count == 1 and explanation.graph_break_count == 0
        traced = torch.compile(expert.velocity, fullgraph=True, backend="aot_eager")
        assert_alike(traced(*arguments), expert.velocity(*arguments))


@pytest.mark.parametrize("layers", [("full_attention",) * 2, ("linear_attention", "full_attention")])
def test_gradient_checkpointing_covers_backbone_and_expert_and_changes_no_gradient(layers):
    model, processor = build(micro_config(layers))
    model.train()
    batch = processor.collate([Sample(PROMPT, pictures(1)[0], answer="yes", actions=np.ones((4, 7)))])
    given = {"tau": torch.tensor([0.4]), "noise": torch.randn(1, 4, 10)}
    runs = dict.fromkeys(("backbone", "expert"), 0)

    def count(name):
        def hook(*_):
            runs[name] += 1

        return hook

    # Hooks stand outside the checkpoint, so look inside the blocks to count what is computed again.
    model.vlm.model.language_model.layers[1].input_layernorm.register_forward_hook(count("backbone"))
    model.action_expert.blocks[0].out.register_forward_hook(count("expert"))

    def gradients():
        model.zero_grad()
        model(**batch, **given).loss.backward()
        return [p.grad.clone() for p in model.parameters()]

    plain = gradients()
    assert runs == {"backbone": 1, "expert": 1}
    model.activation_checkpointing_enable()
    again = gradients()
    assert runs == {"backbone": 3, "expert": 3}, "each block computed once more for the backward pass"
    for ours, theirs in zip(again, plain, strict=True):
        torch.testing.assert_close(ours, theirs)
    model.activation_checkpointing_disable()
    gradients()
    assert runs == {"backbone": 4, "expert": 4}
