# SPDX-License-Identifier: Apache-2.0
"""QwenVLAModel: one backbone run per chunk, independence of padding and masks, losses, files."""

import numpy as np
import pytest
import torch
from comparison import assert_alike, differ
from micro import TEMPLATE, build, micro_config, pictures
from safetensors.torch import save_file
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5VisionPatchEmbed

from qwen_vla import QwenVLAConfig, QwenVLAModel, Sample
from qwen_vla.model.modeling import multimodal_positions

PROMPTS = [TEMPLATE.replace("{instruction}", t) for t in ("pick up the red cube", "stop", "put the green cube away")]


@pytest.fixture
def actions():
    torch.manual_seed(5)
    mask = torch.zeros(3, 4, 10, dtype=torch.bool)
    mask[0, :4, :7] = mask[1, :2, :3] = mask[2, :3, :7] = True
    return {"actions": torch.randn(3, 4, 10), "action_mask": mask}


def test_positions_are_the_backbones(micro):
    model, processor = micro
    images = pictures(3)
    del images[1]["ego"], images[2]["ego"], images[2]["cam_wrist"]
    batch = processor(PROMPTS, images)
    expected, _ = model.vlm.model.get_rope_index(
        batch["input_ids"], batch["mm_token_type_ids"], batch["image_grid_thw"], attention_mask=batch["attention_mask"]
    )
    assert torch.equal(model.encode(**batch).position_ids, expected)


def test_positions_of_oblong_images(micro):
    model, _ = micro
    grids = torch.tensor([[1, 4, 8], [1, 6, 2]])
    types = torch.tensor([[0, 0, 0] + [1] * 8 + [0, 0], [0, 1, 1, 1, 0, 0] + [0] * 7])
    mask = torch.tensor([[0] + [1] * 12, [1] * 13])
    ids = torch.where(types == 1, model.config.vlm_config.image_token_id, 9)
    expected, _ = model.vlm.model.get_rope_index(ids, types, grids, attention_mask=mask)
    assert torch.equal(multimodal_positions(mask, types == 1, grids, 2), expected)


def test_wrong_number_of_image_tokens_is_refused(micro):
    model, processor = micro
    batch = processor(PROMPTS[:1], pictures(1))
    batch["image_grid_thw"] = batch["image_grid_thw"][:1]
    with pytest.raises(ValueError, match="image tokens"):
        model.encode(**batch)


@pytest.mark.parametrize(("patch", "merge"), [(8, 2), (16, 1)])
def test_fast_vision_path_equals_the_backbones_own(patch, merge):
    model, processor = build(micro_config(patch=patch, merge=merge))
    batch = processor(PROMPTS, pictures(3))
    given = batch["pixel_values"], batch["image_grid_thw"]
    fast = model._encode_images(*given)
    visual = model.vlm.model.visual
    original = Qwen3_5VisionPatchEmbed(visual.config)
    original.load_state_dict(visual.patch_embed.state_dict())
    visual.patch_embed = original
    own = torch.cat(model.vlm.model.get_image_features(*given, return_dict=True).pooler_output)
    torch.testing.assert_close(fast, own, atol=1e-5, rtol=1e-4)


def test_left_padded_batch_equals_single_samples(any_micro):
    model, processor = any_micro
    images = pictures(3)
    del images[1]["ego"]
    mask = torch.zeros(3, 4, 10, dtype=torch.bool)
    mask[:, :, :7] = True
    noise = torch.randn(3, 4, 10)
    together = model.sample_actions(model.encode(**processor(PROMPTS, images)), mask, 4, noise=noise)
    for n in range(3):
        single = model.encode(**processor([PROMPTS[n]], [images[n]]))
        alone = model.sample_actions(single, mask[:1], 4, noise=noise[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone, atol=2e-5, rtol=1e-4)
    assert (together[0] - together[1])[:, :7].abs().max() > 1e-3


def test_backbone_runs_once_per_chunk_and_the_expert_once_per_step(any_micro):
    model, processor = any_micro
    calls = {"backbone": 0, "vision": 0, "block": 0}
    watched = {
        "backbone": model.vlm.model.language_model,
        "vision": model.vlm.model.visual,
        "block": model.action_expert.blocks[0],
    }

    def counter(name):
        def count(*_):
            calls[name] += 1

        return count

    hooks = [module.register_forward_hook(counter(name)) for name, module in watched.items()]
    mask = torch.ones(3, 4, 10, dtype=torch.bool)
    model.predict_action_chunk(mask, steps=7, **processor(PROMPTS, pictures(3)))
    [hook.remove() for hook in hooks]
    assert calls == {"backbone": 1, "vision": 1, "block": 7}


def test_default_number_of_steps_is_the_configured_one(micro):
    model, processor = micro
    encoding = model.encode(**processor(PROMPTS[:1], pictures(1)))
    mask, noise = torch.ones(1, 4, 10, dtype=torch.bool), torch.randn(1, 4, 10)
    four = model.sample_actions(encoding, mask, 4, noise=noise)
    assert model.config.euler_steps == 4
    assert_alike(model.sample_actions(encoding, mask, noise=noise), four)
    assert differ(model.sample_actions(encoding, mask, 10, noise=noise), four)


def test_masked_channels_and_steps_never_influence_the_loss(micro, actions):
    model, processor = micro
    encoding = model.encode(**processor(PROMPTS, pictures(3)))
    mask, clean = actions["action_mask"], actions["actions"]
    tau, noise = torch.tensor([0.1, 0.5, 0.9]), torch.randn(3, 4, 10)
    base = model.action_loss(encoding, clean, mask, tau, noise)
    for garbage in (7.0, torch.inf, torch.nan):
        dirty = torch.where(mask, clean, garbage), mask, tau, torch.where(mask, noise, garbage)
        assert_alike(model.action_loss(encoding, *dirty), base)


def test_masked_channels_and_steps_never_influence_the_output(micro, actions):
    model, processor = micro
    encoding, mask = model.encode(**processor(PROMPTS, pictures(3))), actions["action_mask"]
    noise = torch.randn(3, 4, 10)
    base = model.sample_actions(encoding, mask, 4, noise=noise)
    dirty = model.sample_actions(encoding, mask, 4, noise=torch.where(mask, noise, torch.nan))
    assert_alike(dirty, base)
    assert (base[~mask] == 0).all() and (base[mask] != 0).all()


def test_loss_equals_a_reference_from_the_experts_own_velocity(micro, actions):
    model, processor = micro
    encoding = model.encode(**processor(PROMPTS, pictures(3)))
    mask, clean = actions["action_mask"].numpy(), actions["actions"].numpy() * actions["action_mask"].numpy()
    tau = np.float32([0.3, 0.6, 0.95])
    noise = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32) * mask
    noisy = (1 - tau[:, None, None]) * clean + tau[:, None, None] * noise
    with torch.no_grad():
        velocity = model.action_expert(
            encoding.hidden,
            encoding.attention_mask,
            encoding.position_ids,
            torch.from_numpy(noisy),
            torch.from_numpy(tau),
            torch.from_numpy(mask.any(-1)),
        ).numpy()
    squared = (velocity - (noise - clean)) ** 2 * mask
    per_channel = squared.sum(1) / np.maximum(mask.sum(1), 1)
    expected = (per_channel.sum(1) / (mask.sum(1) > 0).sum(1)).mean()
    loss = model.action_loss(encoding, actions["actions"], actions["action_mask"], *map(torch.from_numpy, (tau, noise)))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_noise_draws_share_one_encoding(micro, actions):
    model, processor = micro
    encoding = model.encode(**processor(PROMPTS, pictures(3)))
    tau, noise = torch.rand(6), torch.randn(6, 4, 10)
    both = model.action_loss(encoding, **actions, tau=tau, noise=noise, noise_draws=2)
    each = [model.action_loss(encoding, **actions, tau=tau[i::2], noise=noise[i::2]) for i in range(2)]
    assert both.item() == pytest.approx(sum(each).item() / 2, rel=1e-5)


def test_language_loss_equals_transformers_own(micro):
    model, processor = micro
    batch = processor(PROMPTS, pictures(3), answers=["a red cube", None, "(12, 345)"])
    positions = model.encode(**batch).position_ids
    own = model.vlm(**batch, position_ids=positions).loss
    torch.testing.assert_close(model(**batch).language_loss, own, atol=1e-5, rtol=1e-5)


def test_only_what_is_asked_for_runs(micro, actions):
    model, processor = micro
    ran = []
    hooks = [
        model.vlm.lm_head.register_forward_hook(lambda *_: ran.append("head")),
        model.action_expert.blocks[0].register_forward_hook(lambda *_: ran.append("expert")),
    ]
    batch = processor(PROMPTS, pictures(3))
    output = model(**batch, **actions)
    assert ran == ["expert"] and output.language_loss is None
    ran.clear()
    output = model(**processor(PROMPTS, answers=["yes"] * 3))
    assert ran == ["head"] and output.action_loss is None
    [hook.remove() for hook in hooks]
    with pytest.raises(ValueError, match="no targets"):
        model(**batch)


def test_losses_are_weighted(micro, actions):
    model, processor = micro
    batch = processor(PROMPTS, pictures(3), answers=["yes"] * 3)
    output = model(**batch, **actions, tau=torch.rand(3), noise=torch.randn(3, 4, 10))
    torch.testing.assert_close(output.loss, output.action_loss + 0.1 * output.language_loss)


def test_gradient_reaches_backbone_and_vision(micro, actions):
    model, processor = micro
    model(**processor(PROMPTS, pictures(3)), **actions).loss.backward()
    backbone = model.vlm.model
    for module in (backbone.visual.patch_embed, backbone.language_model.layers[0].mlp, model.action_expert):
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
    model.zero_grad()


def test_text_alone_can_drive_the_expert(micro):
    """The text-to-action stage trains without any image."""
    model, processor = micro
    encoding = model.encode(**processor(PROMPTS))
    assert not encoding.image_token_mask.any()
    chunk = model.sample_actions(encoding, torch.ones(3, 4, 10, dtype=torch.bool), 4)
    assert torch.isfinite(chunk).all()


def test_generator_makes_chunks_repeatable(micro):
    model, processor = micro
    batch, mask = processor(PROMPTS, pictures(3)), torch.ones(3, 4, 10, dtype=torch.bool)
    first, again, other = (
        model.predict_action_chunk(mask, 4, torch.Generator().manual_seed(s), **batch) for s in (1, 1, 2)
    )
    assert_alike(again, first)
    assert differ(first, other)


@pytest.mark.parametrize("max_shard_size", ["5GB", "100KB"])
def test_saved_and_loaded_model_acts_bit_for_bit_the_same(any_micro, tmp_path, max_shard_size):
    model, processor = any_micro
    batch, mask = processor(PROMPTS, pictures(3)), torch.ones(3, 4, 10, dtype=torch.bool)
    expected = model.predict_action_chunk(mask, 4, torch.Generator().manual_seed(1), **batch)
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    shards = list(tmp_path.glob("*.safetensors"))
    assert len(shards) == 1 if max_shard_size == "5GB" else len(shards) > 3
    again = QwenVLAModel.from_pretrained(tmp_path).eval()
    assert torch.equal(again.predict_action_chunk(mask, 4, torch.Generator().manual_seed(1), **batch), expected)
    assert again.vlm.lm_head.weight is again.vlm.get_input_embeddings().weight


def test_fresh_model_keeps_adaln_zero():
    """The generic initialization of transformers must not overwrite the expert's zeros."""
    expert = QwenVLAModel(micro_config()).action_expert
    zeros = [expert.out_modulation, expert.action_out[-1], *(b.modulation for b in expert.blocks)]
    assert all((layer.weight == 0).all() for layer in zeros)
    assert expert.blocks[0].qkv.weight.std() > 0.05


def test_loading_fills_in_a_missing_expert_and_says_so(micro, tmp_path):
    """A backbone alone is a valid start: the expert is then new, with its zeros, and reported as missing."""
    model, _ = micro
    backbone = {f"vlm.{k}": v.clone() for k, v in model.vlm.state_dict().items() if k != "lm_head.weight"}
    model.config.save_pretrained(tmp_path)
    save_file(backbone, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again, report = QwenVLAModel.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] and all(k.startswith("action_expert.") for k in report["missing_keys"])
    assert (again.action_expert.blocks[0].modulation.weight == 0).all()
    assert again.action_expert.blocks[0].qkv.weight.std() > 0.05
    assert torch.equal(again.vlm.lm_head.weight, model.vlm.lm_head.weight)


def test_configuration_round_trip_and_presets(tmp_path):
    config = QwenVLAConfig.preset("tiny", tau_direction="noise")
    config.save_pretrained(tmp_path)
    assert QwenVLAConfig.from_pretrained(tmp_path).to_diff_dict() == config.to_diff_dict()
    with pytest.raises(ValueError, match="huge"):
        QwenVLAConfig.preset("huge")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tau_direction": "up"}, "tau_direction 'up'"),
        ({"image_size": 100}, "image_size 100"),
        ({"image_order": "none"}, "image_order"),
        ({"expert_config": {"context_size": 7, "hidden_size": 128, "num_heads": 4}}, "context_size 7"),
        ({"expert_config": {"context_size": 128, "hidden_size": 32, "num_heads": 4}}, "head dimension 8"),
    ],
)
def test_inconsistent_configuration_says_what_is_wrong(change, words):
    with pytest.raises(ValueError, match=words):
        QwenVLAConfig.preset("tiny", **change)


def test_labels_are_not_rounded_to_the_precision_of_the_computation(micro):
    """A new expert predicts zero, so its loss is the mean square of the labels: under autocast, too, exactly."""
    filled, processor = micro
    model = QwenVLAModel(filled.config)
    batch = processor.collate([Sample("pick up the red cube", pictures(1)[0])])
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.rand(1, 4, 10, generator=generator), torch.randn(1, 4, 10, generator=generator)
    mask = torch.ones(1, 4, 10, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.action_loss(model.encode(**batch), clean, mask, torch.tensor([0.5]), noise)
    assert float(loss.detach()) == pytest.approx(float((noise.double() - clean.double()).square().mean()), rel=1e-6)
