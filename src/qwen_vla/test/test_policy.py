"""Policy: an observation to a chunk in physical units, from nothing but a checkpoint directory."""

import shutil

import numpy as np
import pytest
import torch

from qwen_vla import Observation, Policy

from .comparison import assert_alike
from .conftest import CHANNELS, TAGS, pictures


@pytest.fixture(scope="module")
def policy(checkpoint):
    return Policy.from_pretrained(checkpoint)


@pytest.fixture
def observation():
    return Observation(pictures(1)[0], "pick up the red cube", stamp_ns=1234567890123456789)


def test_chunk_carries_everything_a_robot_needs(policy, observation):
    chunk = policy.infer(observation, seed=0)
    assert chunk.data.shape == (4, 7) and chunk.data.dtype == np.float32 and np.isfinite(chunk.data).all()
    assert chunk.channel_names == CHANNELS and chunk.control_mode == "eef_delta" and chunk.period == 0.2
    assert chunk.stamp_ns == observation.stamp_ns and chunk.embodiment == "widowx" and chunk.execution_horizon == 2
    parts = chunk.inference_ms
    assert parts["total"] == pytest.approx(parts["preprocess"] + parts["backbone"] + parts["expert"])


def test_actions_are_in_physical_units(policy, observation):
    data = policy.infer(observation, seed=0).data
    limits = np.arange(1.0, 8.0)  # the fixture's statistics are −n…n for channel n
    assert (np.abs(data) <= limits + 1e-5).all() and np.abs(data / limits).max() > 0.05
    batch = policy.processor([policy.prompt(observation.instruction)], [observation.images])
    packed = policy.model.predict_action_chunk(policy.action_mask, 4, torch.Generator().manual_seed(0), **batch)
    assert_alike(torch.from_numpy(data), torch.from_numpy(np.float32(packed[0, :4, :7].numpy().clip(-1, 1) * limits)))


def test_a_seed_makes_it_repeatable_bit_for_bit_also_after_loading_again(policy, observation, checkpoint):
    first, second, third = (policy.infer(observation, seed=s).data for s in (3, 3, 4))
    assert np.array_equal(first, second) and np.abs(first - third).max() > 1e-3
    assert np.array_equal(Policy.from_pretrained(checkpoint).infer(observation, seed=3).data, first)


def test_images_and_words_matter(policy, observation):
    base = policy.infer(observation, seed=0).data
    other = Observation(pictures(1, seed=9)[0], observation.instruction)
    stop = Observation(observation.images, "stop")
    for changed in (other, stop):
        assert np.abs(policy.infer(changed, seed=0).data - base).max() > 1e-3


@pytest.mark.parametrize("instruction", ["", "  \n"])
def test_empty_instruction_is_refused(policy, observation, instruction):
    with pytest.raises(ValueError, match="instruction is empty"):
        policy.infer(Observation(observation.images, instruction))


@pytest.mark.parametrize("views", [{}, {"ego": 0}, {"ego": 0, "cam_wrist": None}])
def test_missing_camera_is_named(policy, observation, views):
    images = {tag: observation.images[tag] if value == 0 else value for tag, value in views.items()}
    with pytest.raises(ValueError, match="lacks camera .*'cam_wrist'"):
        policy.infer(Observation(images, "stop"))


def test_unknown_camera_is_named(policy, observation):
    with pytest.raises(ValueError, match="cam_left"):
        policy.infer(Observation({**observation.images, "cam_left": observation.images["ego"]}, "stop"))


def test_non_finite_output_is_an_error(checkpoint, observation):
    broken = Policy.from_pretrained(checkpoint)
    torch.nn.init.constant_(broken.model.action_expert.action_out[-1].bias, torch.nan)
    with pytest.raises(FloatingPointError, match="non-finite"):
        broken.infer(observation)


def test_unknown_embodiment_lists_the_known_ones(checkpoint):
    with pytest.raises(ValueError, match=r"'spot' is unknown; this checkpoint has \['widowx'\]"):
        Policy.from_pretrained(checkpoint, embodiment="spot")


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Policy.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "normalization.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_file_is_named(checkpoint, tmp_path, name, damage):
    path = tmp_path / "copy"
    shutil.copytree(checkpoint, path)
    if damage == "missing":
        (path / name).unlink()
    else:
        (path / name).write_bytes((path / name).read_bytes()[: (path / name).stat().st_size // 2])
    with pytest.raises((OSError, ValueError), match=name):
        Policy.from_pretrained(path)


def test_missing_shard_is_named(policy, checkpoint, tmp_path):
    path = tmp_path / "sharded"
    shutil.copytree(checkpoint, path)
    (path / "model.safetensors").unlink()
    policy.model.save_pretrained(path, max_shard_size="200KB")
    shard = sorted(path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=shard.name):
        Policy.from_pretrained(path)


def test_weights_of_another_model_are_refused(checkpoint, tmp_path):
    path = tmp_path / "other"
    shutil.copytree(checkpoint, path)
    config = (path / "config.json").read_text()
    (path / "config.json").write_text(config.replace('"num_layers": 2', '"num_layers": 3'))
    with pytest.raises(ValueError, match=r"do not fit .*config\.json: missing_keys"):
        Policy.from_pretrained(path)


def test_camera_tags_and_prompt(policy):
    assert policy.camera_tags == TAGS
    assert policy.prompt(" stop ") == "The robot is WidowX with single arm. Please do: stop."
