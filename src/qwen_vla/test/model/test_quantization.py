# SPDX-License-Identifier: Apache-2.0
"""8-bit weights: which layers have them, how much they round, and that everything else stays."""

import copy

import pytest
import torch
from micro import build, micro_config
from micro_chunks import LAYERS, chunk, padded, reference
from torch import nn

from qwen_vla.model.acceleration import ChunkRunner
from qwen_vla.model.acceleration.quantization import FLOAT8, Float8Linear, quantized, rounded
from qwen_vla.model.acceleration.verified_call import relative_errors


@pytest.fixture(scope="module")
def both():
    """The same model with its own weights and with rounded ones, and the processor."""
    model, processor = build(micro_config(LAYERS))
    return model, quantized(copy.deepcopy(model), "fp8"), processor


def test_rows_are_rounded_relative_to_their_largest_entry():
    rows = torch.randn(5, 64) * torch.tensor([1e-4, 1.0, 1e4, 1e-30, 0.0])[:, None]
    values, scale = rounded(rows)
    assert values.dtype == FLOAT8 and scale.shape == (5, 1)
    again = values.float() * scale
    assert ((again - rows).abs() <= rows.abs() / 16 + rows.abs().amax(1, keepdim=True) * 2e-6 + 1e-12).all()


def test_the_large_layers_of_expert_and_language_tower_have_8_bits(both):
    _, model, _ = both
    names = {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, Float8Linear)}
    assert names == {
        *("gate_up", "down"),  # the expert's
        *("q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkv", "in_proj_z", "out_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    assert not any(isinstance(part, Float8Linear) for part in model.vlm.model.visual.modules())
    layers = [part for part in model.modules() if isinstance(part, Float8Linear)]
    assert all(layer.weight.element_size() == 1 for layer in layers)


def test_a_layer_is_the_product_of_what_was_rounded():
    torch.manual_seed(0)
    for bias in (False, True):
        linear = nn.Linear(64, 32, bias=bias)
        x = torch.randn(3, 7, 64)
        (w, ws), (r, rs) = rounded(linear.weight), rounded(x.view(-1, 64))
        expected = (r.double() * rs) @ (w.double() * ws).T + (linear.bias if bias else 0.0)
        with torch.no_grad():
            torch.testing.assert_close(Float8Linear(linear)(x), expected.view(3, 7, 32).float(), atol=1e-5, rtol=1e-5)
            assert relative_errors([Float8Linear(linear)(x)], [linear(x)])[0] == pytest.approx(0.03, abs=0.02)


def test_a_chunk_is_near_the_unrounded_one_and_not_equal(both):
    model, rough, processor = both
    batch = padded(processor, 72)
    error = relative_errors([chunk(ChunkRunner(rough), batch)], [reference(model, batch)])[0]
    assert 1e-4 < error < 0.05


def test_none_changes_nothing_and_others_are_refused(both):
    model = both[0]
    assert quantized(model, "none") is model and not any(isinstance(m, Float8Linear) for m in model.modules())
    with pytest.raises(ValueError, match="quantize 'int4' is not one of none, fp8"):
        quantized(model, "int4")
