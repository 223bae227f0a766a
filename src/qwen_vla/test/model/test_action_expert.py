# SPDX-License-Identifier: Apache-2.0
"""The action expert: published sizes, rotary alignment with the backbone, masks and zero initialization."""

import pytest
import torch
from comparison import assert_alike
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5TextRotaryEmbedding

from qwen_vla import ActionExpert, QwenVLAConfig, QwenVLAModel
from qwen_vla.model.action_expert import mrope_cos_sin

MICRO = {"context_size": 24, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 48}
MICRO |= {"action_channels": 6, "rotary_dim": 8, "rope_theta": 100.0, "mrope_section": [2, 1, 1]}


def millions(module):
    return sum(p.numel() for p in module.parameters()) / 1e6


@pytest.fixture(scope="module")
def published():
    with torch.device("meta"):
        return QwenVLAModel(QwenVLAConfig.preset("4b"))


def test_published_component_sizes(published):
    expert = published.action_expert
    assert len(expert.blocks) == 16
    for block in expert.blocks:
        assert millions(block) == pytest.approx(70.8, abs=0.05)
    assert millions(expert.context_projection) == pytest.approx(3.9, abs=0.05)
    assert millions(expert.timestep_embedding) == pytest.approx(2.8, abs=0.05)
    assert millions(expert.out_modulation) == pytest.approx(4.7, abs=0.05)
    assert millions(expert.action_in) + millions(expert.action_out) == pytest.approx(4.9, abs=0.05)
    assert millions(expert) == pytest.approx(1149, abs=1)


def test_backbone_is_the_published_one(published):
    text = published.config.vlm_config.text_config
    assert text.layer_types.count("linear_attention") == 24 and text.layer_types.count("full_attention") == 8
    assert text.layer_types[3] == "full_attention" and text.hidden_size == 2560
    assert published.config.vlm_config.image_token_id == 248056


def test_tiny_fits_two_cores_and_the_repository():
    with torch.device("meta"):
        assert millions(QwenVLAModel(QwenVLAConfig.preset("tiny"))) < 8


@pytest.mark.parametrize("preset", ["tiny", "4b"])
def test_angles_are_the_backbones(preset):
    text = QwenVLAConfig.preset(preset).vlm_config.text_config
    positions = torch.randint(0, 300, (3, 2, 17))
    cos, sin = Qwen3_5TextRotaryEmbedding(text)(torch.zeros(1), positions)
    rope = text.rope_parameters
    ours = mrope_cos_sin(positions, cos.shape[-1], rope["rope_theta"], rope["mrope_section"])
    torch.testing.assert_close(ours[0], cos, atol=0, rtol=0)
    torch.testing.assert_close(ours[1], sin, atol=0, rtol=0)


def filled(qk_norm=False):
    torch.manual_seed(0)
    expert = ActionExpert(**MICRO, qk_norm=qk_norm).eval()
    for parameter in expert.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return expert


def inputs(batch=2, length=7, horizon=4):
    torch.manual_seed(1)
    return {
        "hidden": torch.randn(batch, length, 24),
        "attention_mask": torch.ones(batch, length, dtype=torch.long),
        "position_ids": torch.arange(length).expand(3, batch, -1).clone(),
        "noisy": torch.randn(batch, horizon, 6),
        "tau": torch.linspace(0.2, 0.9, batch),
    }


def test_starts_at_zero_velocity():
    assert (ActionExpert(**MICRO)(**inputs()) == 0).all()


@pytest.mark.parametrize("qk_norm", [False, True])
def test_every_input_matters(qk_norm):
    expert, given = filled(qk_norm), inputs()
    base = expert(**given)
    for name, change in (("hidden", 1.0), ("noisy", 1.0), ("tau", -0.1)):
        assert (expert(**{**given, name: given[name] + change}) - base).abs().max() > 1e-4, name
    moved = given["position_ids"].clone()
    moved[1, :, 2] += 3
    assert (expert(**{**given, "position_ids": moved}) - base).abs().max() > 1e-6


def test_actions_continue_after_the_largest_position():
    expert, given = filled(), inputs()
    context = expert.prepare_context(
        given["hidden"], given["attention_mask"], given["position_ids"], torch.ones(2, 4, dtype=torch.bool)
    )
    expected = mrope_cos_sin(torch.arange(7, 11).expand(3, 2, -1), 8, 100.0, [2, 1, 1])
    torch.testing.assert_close(context.cos[:, 0, 7:], expected[0])
    torch.testing.assert_close(context.sin[:, 0, 7:], expected[1])


def test_padding_and_masked_steps_are_not_attended():
    expert, given = filled(), inputs()
    given["attention_mask"][0, :3] = 0
    steps = torch.tensor([[True] * 4, [True, True, False, False]])
    base = expert(**given, step_mask=steps)
    given["hidden"][0, :3] = torch.nan
    given["noisy"][1, 2:] += 5.0
    after = expert(**given, step_mask=steps)
    assert_alike(after[0], base[0])
    assert_alike(after[1, :2], base[1, :2])


def test_valid_steps_attend_to_later_ones():
    expert, given = filled(), inputs()
    base = expert(**given)
    given["noisy"][:, 3] += 1.0
    assert (expert(**given)[:, 0] - base[:, 0]).abs().max() > 1e-5


def test_the_last_block_may_skip_context_rows():
    expert, given = filled(), inputs()
    context = expert.prepare_context(
        given["hidden"], given["attention_mask"], given["position_ids"], torch.ones(2, 4, dtype=torch.bool)
    )
    x, modulation = torch.randn(2, 11, 32), expert.modulations(given["tau"])[0]
    whole = expert.blocks[0](x, modulation, context.cos, context.sin, None)
    assert_alike(expert.blocks[0](x, modulation, context.cos, context.sin, None, last=4), whole[:, -4:])


def test_every_linear_layer_is_called_so_that_adapters_and_rounded_weights_take_effect():
    expert, called = filled(), set()
    linears = {name: layer for name, layer in expert.named_modules() if isinstance(layer, torch.nn.Linear)}
    for name, layer in linears.items():
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    expert(**inputs())
    assert called == set(linears)


def test_saves_and_loads_as_a_diffusers_model(tmp_path):
    expert, given = filled(qk_norm=True), inputs()
    expert.save_pretrained(tmp_path)
    again = ActionExpert.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**given), expert(**given))
