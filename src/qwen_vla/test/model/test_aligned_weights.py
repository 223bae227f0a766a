# SPDX-License-Identifier: Apache-2.0
"""Where loaded weights begin in memory does not depend on the length of a file's header, and neither do the results."""

import sys
from pathlib import Path

import pytest
import torch
from micro import build, micro_config, pictures
from safetensors.torch import load_file, save_file

from qwen_vla import ActionExpert, QwenVLAModel
from qwen_vla.model.aligned_weights import ALIGNMENT


def lengthen_header(file, count):
    """Moves every tensor of the file by ``count`` bytes, a multiple of 8."""
    weights = {name: tensor.clone() for name, tensor in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt", "filler": "x" * count})


def offsets(model):
    return {tensor.data_ptr() % ALIGNMENT for tensor in model.state_dict().values()}


@pytest.mark.parametrize("count", range(0, ALIGNMENT, 8))
def test_a_loaded_model_is_aligned_and_acts_bit_for_bit_as_before(micro, tmp_path, count):
    model, processor = micro
    batch, mask = processor(["pick up the red cube"], pictures(1)), torch.ones(1, 4, 10, dtype=torch.bool)
    expected = model.predict_action_chunk(mask, 4, torch.Generator().manual_seed(1), **batch)
    model.save_pretrained(tmp_path)
    lengthen_header(tmp_path / "model.safetensors", count)
    again = QwenVLAModel.from_pretrained(tmp_path).eval()
    assert offsets(again) == {0}
    assert torch.equal(again.predict_action_chunk(mask, 4, torch.Generator().manual_seed(1), **batch), expected)
    assert again.vlm.lm_head.weight is again.vlm.get_input_embeddings().weight


@pytest.mark.parametrize("count", range(0, ALIGNMENT, 8))
def test_so_is_an_expert_of_its_own(micro, tmp_path, count):
    micro[0].action_expert.save_pretrained(tmp_path)
    lengthen_header(tmp_path / "diffusion_pytorch_model.safetensors", count)
    assert offsets(ActionExpert.from_pretrained(tmp_path)) == {0}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_of_16_bits_stay_views_of_the_file(tmp_path):
    build(micro_config())[0].to(torch.bfloat16).save_pretrained(tmp_path)
    model = QwenVLAModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    lines = Path("/proc/self/maps").read_text().splitlines()
    (region,) = (line.split()[0] for line in lines if line.endswith(str(tmp_path / "model.safetensors")))
    first, end = (int(address, 16) for address in region.split("-"))
    assert all(first <= parameter.data_ptr() < end for parameter in model.parameters())
