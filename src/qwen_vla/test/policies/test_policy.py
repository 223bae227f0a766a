# SPDX-License-Identifier: Apache-2.0
"""Policy: an observation to a chunk in physical units, from nothing but a checkpoint directory."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from comparison import assert_alike
from micro import CHANNELS, TAGS, pictures
from micro_chunks import replaying

from embodiment_descriptions import ActionLayout, ControlMode, resource_path
from qwen_vla import Observation, Policy, Quantiles, QwenVLAConfig, QwenVLAProcessor
from qwen_vla.model.acceleration.prompt_lengths import LONGEST_INSTRUCTION
from qwen_vla_control.motion.base_path import accumulated, seen_from


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


def base_policy(policy, control_mode):
    """The micro model as the policy of a mobile base: 0 to 0.2 m ahead, up to 0.5 rad to either side."""
    processor = QwenVLAProcessor.from_pretrained(policy.model.name_or_path)
    names = ActionLayout.of_base(control_mode).names
    processor.normalization["base"] = Quantiles(np.array([0, 0, -0.5]), np.array([0.2, 0, 0.5]), names)
    info = replace(processor.embodiments["widowx"], name="base", control_mode=control_mode, channel_names=names)
    processor.embodiments["base"] = replace(info, dataset="base")
    policy.model.config.prefix_steps = 2
    return Policy(policy.model, processor, "base")


def test_waypoints_of_a_chunk_are_poses_seen_from_the_base_at_the_observation(policy, observation):
    """The model's waypoints are increments; its base velocities are unchanged."""
    plain = base_policy(policy, ControlMode.BASE_VELOCITY).infer(observation, seed=0).data
    poses = base_policy(policy, ControlMode.BASE_WAYPOINTS).infer(observation, seed=0).data
    assert np.abs(plain[:, 2]).max() > 0.05
    np.testing.assert_allclose(poses, accumulated(np.zeros(3), plain), atol=1e-6)


def test_the_temperature_scales_the_noise_that_a_chunk_starts_from(checkpoint, observation):
    """With a velocity of zero a chunk is its noise: 0.6 of a normal draw, where nothing is clipped."""
    policy = Policy.from_pretrained(checkpoint)
    torch.nn.init.zeros_(policy.model.action_expert.action_out[-1].weight)
    torch.nn.init.zeros_(policy.model.action_expert.action_out[-1].bias)
    policy.model.config.noise_temperature = 0.6
    chunk = policy.statistics.normalize(policy.infer(observation, seed=7).data)
    drawn = torch.randn(1, 4, 10, generator=torch.Generator().manual_seed(7))[0, :, :7].numpy()
    np.testing.assert_allclose(chunk, np.clip(0.6 * drawn, -1, 1), atol=1e-6)
    assert QwenVLAConfig.preset("4b").noise_temperature == 0.6, "the paper's, of evaluation"


@pytest.mark.parametrize(("own", "drawn"), [(0.3, 1.0), (1.5, 1.5)])
def test_after_a_refused_chunk_noise_is_at_least_that_of_training(policy, observation, own, drawn):
    """The next chunk would otherwise resemble the refused one."""
    policy.model.config.noise_temperature = own
    usual, refused = (policy._noise([replace(observation, refusals=n)], [7]) for n in (0, 2))
    np.testing.assert_allclose(refused * own, usual * drawn, rtol=1e-6)


def test_the_shipped_checkpoint_keeps_the_temperature_and_steps_that_it_was_measured_with():
    config = QwenVLAConfig.from_pretrained(resource_path("checkpoints/tiny"))
    assert (config.noise_temperature, config.euler_steps, config.prefix_steps) == (0.3, 4, 0)


def test_waypoints_are_continued_from_the_one_before(policy, observation):
    """Of the old chunk one waypoint lies behind: the base is there, and drives on to the next ones."""
    base = base_policy(policy, ControlMode.BASE_WAYPOINTS)
    previous = base.infer(observation, seed=0)
    chunk = base.continue_chunk(observation, previous, 2, 2, variant="prefix", consumed=1, seed=1)
    np.testing.assert_allclose(chunk.data[:2], seen_from(previous.data[0], previous.data[1:3]), atol=1e-5)


@pytest.mark.parametrize("instruction", ["", "  \n"])
def test_empty_instruction_is_refused(policy, observation, instruction):
    with pytest.raises(ValueError, match="instruction is empty"):
        policy.infer(Observation(observation.images, instruction))


def test_an_instruction_that_is_too_long_is_refused_with_its_length(policy, observation):
    words = " ".join(["again"] * LONGEST_INSTRUCTION)
    with pytest.raises(ValueError, match=rf"has \d+ tokens \(limit {LONGEST_INSTRUCTION}\).*use fewer words"):
        policy.infer(Observation(observation.images, words))


def test_euler_steps_are_those_of_the_configuration_unless_named(checkpoint, policy, observation):
    assert policy.euler_steps == policy.model.config.euler_steps == 4
    named = Policy.from_pretrained(checkpoint, euler_steps=10)
    assert named.euler_steps == 10
    assert not np.array_equal(named.infer(observation, seed=0).data, policy.infer(observation, seed=0).data)


# --- every shape beforehand -------------------------------------------------------------------------------------------


def shapes_seen(policy, monkeypatch):
    """The shapes of the batches that the policy's runner is given from now on."""
    seen, plain = [], policy.runner.context

    def context(batch, mask):
        seen.append((tuple(batch["input_ids"].shape), len(batch["image_grid_thw"])))
        return plain(batch, mask)

    monkeypatch.setattr(policy.runner, "context", context)
    return seen


def test_after_warming_up_no_instruction_has_a_new_shape(checkpoint, observation, monkeypatch):
    policy = Policy.from_pretrained(checkpoint)
    policy.runner = replaying(policy.model)
    seen, told = shapes_seen(policy, monkeypatch), []
    policy.warm_up(progress=lambda done, total, what: told.append((done, total, what)))
    prepared = set(seen)
    assert len(prepared) == len(seen) == len(told) and [done for done, _, _ in told] == list(range(len(told)))
    assert f"{seen[0][0][1]} tokens, 2 images" == told[0][2]
    for count in range(1, 40):
        policy.infer(Observation(observation.images, " ".join(["cube"] * count)))
    assert set(seen) == prepared and policy.latency.seconds is not None


def test_histories_and_batches_are_warmed_up_too(checkpoint, observation, monkeypatch):
    policy = Policy.from_pretrained(checkpoint)
    policy.model.config.history_frames = 2
    policy.runner = replaying(policy.model)
    seen = shapes_seen(policy, monkeypatch)
    policy.warm_up(batch_sizes=(1, 4))
    prepared = set(seen)
    assert {(shape[0], images // shape[0]) for shape, images in prepared} == {(b, n) for b in (1, 4) for n in (2, 3, 4)}
    two = np.stack([observation.images["ego"]] * 2)
    for images in (observation.images, {**observation.images, "ego": two}, dict.fromkeys(TAGS, two)):
        policy.infer(Observation(images, "stop"))
        policy.infer_batch([Observation(images, "stop"), Observation(images, "pick up the red cube")])
    assert set(seen) == prepared, "two observations are computed as four"


def test_warming_up_can_be_given_up(checkpoint):
    def leave(*_):
        raise InterruptedError("the process is ending")

    with pytest.raises(InterruptedError):
        Policy.from_pretrained(checkpoint).warm_up(progress=leave)


def test_a_batch_gives_each_observation_its_own_chunk(policy, observation):
    others = [Observation(images, text) for images, text in zip(pictures(2, seed=5), ("go", "stop"), strict=True)]
    together = policy.infer_batch([observation, *others], seeds=[0, 1, 2])
    for seed, (seen, chunk) in enumerate(zip([observation, *others], together, strict=True)):
        np.testing.assert_allclose(chunk.data, policy.infer(seen, seed=seed).data, atol=1e-4)
        assert chunk.instruction == seen.instruction
    with pytest.raises(ValueError, match="1 observations with 2 seeds"):
        policy.infer_batch([observation], seeds=[1, 2])


def test_chunks_can_be_continued_after_warming_up_on_replayed_memory(checkpoint, observation):
    """What a graph left behind, made in inference mode, takes part in the gradients of guidance."""
    policy, expected = Policy.from_pretrained(checkpoint), Policy.from_pretrained(checkpoint)
    policy.runner = replaying(policy.model)
    policy.warm_up(continues=True)
    motion = {"": np.eye(4)}
    first = policy.infer(observation, seed=0)
    chunks = [p.continue_chunk(observation, first, 1, consumed=1, motion=motion, seed=1) for p in (policy, expected)]
    np.testing.assert_allclose(chunks[0].data, chunks[1].data, atol=1e-4)
    assert not np.allclose(chunks[0].data, policy.infer(observation, seed=1).data, atol=1e-2)


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
    with pytest.raises(ValueError, match=r"do not fit .*config\.json: they lack action_expert"):
        Policy.from_pretrained(path)


def test_camera_tags_and_prompt(policy):
    assert policy.camera_tags == TAGS
    assert policy.prompt(" stop ") == "The robot is WidowX with single arm. Please do: stop."
