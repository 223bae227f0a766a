# SPDX-License-Identifier: Apache-2.0
"""from_backbone: checkpoints in Qwen's own layout, written here with transformers' own class, become a Qwen-VLA."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from comparison import assert_alike
from micro import pictures
from qwen_checkpoint import TOKENS, write_checkpoint
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from qwen_vla import QwenVLAModel, QwenVLAProcessor
from qwen_vla.model.pretrained import find_checkpoint
from qwen_vla.model.processing import camera_token_names
from qwen_vla.model.sample import Sample

TAGS = ("ego", "cam_wrist")
EXPERT = {"hidden_size": 96, "num_layers": 2, "num_heads": 2, "intermediate_size": 128}


def from_backbone(folder, **options):
    return QwenVLAModel.from_backbone(folder, camera_tags=TAGS, expert_config=EXPERT, image_size=64, **options)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def qwen(request, tmp_path_factory):
    """Folder of a sharded checkpoint and the transformers model that wrote it."""
    folder = tmp_path_factory.mktemp("qwen")
    return folder, write_checkpoint(folder, tied=request.param)


@pytest.fixture
def copied(tmp_path):
    write_checkpoint(tmp_path)
    return tmp_path


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


def test_the_checkpoint_of_this_test_is_laid_out_as_qwens(qwen):
    folder, backbone = qwen
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(shards(folder)) > 3 and "model.language_model.layers.0.linear_attn.in_proj_qkv.weight" in index
    assert (
        "model.visual.blocks.0.attn.qkv.weight" in index
        and "model.language_model.layers.3.self_attn.q_proj.weight" in index
    )
    assert ("lm_head.weight" in index) != backbone.config.tie_word_embeddings


def test_hidden_states_are_the_backbones_own(qwen):
    """With images, through both kinds of layers."""
    folder, backbone = qwen
    model, processor = from_backbone(folder)
    batch = processor(["pick up the red cube", "stop"], pictures(2))
    # The new tokens have new rows, which the original model gets here too.
    with torch.no_grad():
        ours = model.encode(**batch)
        backbone.get_input_embeddings().weight.copy_(model.get_input_embeddings().weight)
        theirs = backbone.model(**batch, use_cache=False).last_hidden_state
    valid = batch["attention_mask"].bool()
    assert_alike(ours.hidden[valid], theirs[valid])


def test_the_states_of_videos_are_the_backbones_own(qwen):
    """Steps of two frames with their times, beside an image: against the backbone's separate inputs for videos."""
    folder, backbone = qwen
    model, processor = from_backbone(folder)
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    first, second = TAGS[:2]
    views = [{first: frames, second: frames[0]}, {first: frames[:2]}]
    batch = processor.collate([Sample("go on", view, frame_rate=2.0) for view in views])
    assert len(batch["image_grid_thw"]) == 4 and "<1.0 seconds>" in processor.tokenizer.decode(batch["input_ids"][0])
    patches = batch["pixel_values"].chunk(4)
    grid = batch["image_grid_thw"][0].tolist()
    theirs_batch = {name: batch[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
    theirs_batch |= {"pixel_values": patches[2], "image_grid_thw": torch.tensor([grid])}
    theirs_batch |= {"pixel_values_videos": torch.cat([patches[0], patches[1], patches[3]])}
    theirs_batch |= {"video_grid_thw": torch.tensor([[2, *grid[1:]], [1, *grid[1:]]])}
    with torch.no_grad():
        ours = model.encode(**batch)
        backbone.get_input_embeddings().weight.copy_(model.get_input_embeddings().weight)
        theirs = backbone.model(**theirs_batch, use_cache=False).last_hidden_state
    valid = batch["attention_mask"].bool()
    assert_alike(ours.hidden[valid], theirs[valid])


def test_text_states_are_the_backbones_own(qwen):
    folder, backbone = qwen
    model, processor = from_backbone(folder)
    batch = processor(["pick up the red cube and put it into the blue bowl"])
    with torch.no_grad():
        theirs = backbone.model(**batch, use_cache=False).last_hidden_state
        assert_alike(model.encode(**batch).hidden, theirs)


def test_embeddings_stay_tied_or_untied(qwen):
    folder, backbone = qwen
    model, _ = from_backbone(folder)
    embedding, head = model.get_input_embeddings().weight, model.vlm.lm_head.weight
    assert (embedding is head) == backbone.config.tie_word_embeddings
    assert torch.equal(head[:TOKENS], backbone.lm_head.weight[:TOKENS])


def test_camera_tokens_take_padding_rows_each_unlike_the_others(qwen):
    """Drawn from the spread of the trained rows: equal ones would make every camera the same."""
    folder, backbone = qwen
    model, processor = from_backbone(folder)
    ids = processor.tokenizer.convert_tokens_to_ids(camera_token_names(TAGS))
    assert ids == list(range(TOKENS, TOKENS + 4)) and model.config.vlm_config.text_config.vocab_size == 384
    for ours, theirs in (
        (model.get_input_embeddings().weight, backbone.get_input_embeddings().weight),
        (model.vlm.lm_head.weight, backbone.lm_head.weight),
    ):
        assert ours.shape == theirs.shape
        off = (ours[ids] - theirs[:TOKENS].mean(0)) / theirs[:TOKENS].std(0)
        assert torch.pdist(off).min() > 1 and 0.8 < off.std() < 1.2 and abs(off.mean()) < 0.2
        assert torch.equal(ours[TOKENS + 4 :], theirs[TOKENS + 4 :])


@pytest.mark.parametrize("tied", [True, False])
def test_vocabulary_without_padding_grows(tmp_path, tied):
    backbone = write_checkpoint(tmp_path, tied, rows=TOKENS)
    model, processor = from_backbone(tmp_path)
    embedding, head = model.get_input_embeddings().weight, model.vlm.lm_head.weight
    assert len(embedding) == len(head) == model.config.vlm_config.text_config.vocab_size == 320
    assert (embedding is head) == tied and model.vlm.lm_head.out_features == 320
    assert torch.equal(embedding[:TOKENS], backbone.get_input_embeddings().weight)
    off = (head[TOKENS:] - backbone.lm_head.weight.mean(0)) / backbone.lm_head.weight.std(0)
    assert torch.pdist(off).min() > 1 and 0.9 < off.std() < 1.1
    output = model(**processor(["pick up"], answers=["red cube"]))
    assert torch.isfinite(output.language_loss)


def test_the_expert_of_a_backbone_in_bf16_is_in_float32(tmp_path):
    """And runs on it: a step of 5e-5 would not move most of its weights in bf16."""
    write_checkpoint(tmp_path, rows=320)
    model, processor = from_backbone(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in model.vlm.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.action_expert.parameters()} == {torch.float32}
    mask = torch.ones(1, 4, 64, dtype=torch.bool)
    batch = processor(["pick up the red cube"], pictures(1))
    chunk = model.predict_action_chunk(mask, 2, torch.Generator().manual_seed(0), **batch)
    assert chunk.dtype == torch.float32 and torch.isfinite(chunk).all()


def test_an_unknown_token_that_is_one_of_qwens_own_is_accepted(tmp_path):
    """As in transformers' Qwen3.5 tokenizer, whose unknown token is the end of the text."""
    write_checkpoint(tmp_path, rows=320)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path, unk_token="<|endoftext|>")
    tokenizer.save_pretrained(tmp_path)
    _, processor = from_backbone(tmp_path)
    assert processor.tokenizer.unk_token == "<|endoftext|>"
    processor.tokenizer.add_tokens(["<|gripper_start|>"])  # a missing token still is
    with pytest.raises(ValueError, match="lacks the special tokens"):
        QwenVLAProcessor(processor.tokenizer, processor.image_transform, ("ego", "gripper"))


def test_expert_is_new_and_fits_the_backbone(qwen):
    model, processor = from_backbone(qwen[0], tau_direction="noise")
    expert = model.action_expert
    assert expert.context_projection.in_features == 64 and len(expert.blocks) == 2
    assert (expert.blocks[0].modulation.weight == 0).all() and expert.blocks[0].qkv.weight.std() > 0.05
    assert model.config.tau_direction == "noise" and model.config.expert_config.rotary_dim == 16
    mask = torch.ones(1, 16, 64, dtype=torch.bool)
    chunk = model.predict_action_chunk(mask, 2, **processor(["pick up the red cube"], pictures(1)))
    assert chunk.shape == (1, 16, 64) and torch.isfinite(chunk).all()


def test_geometry_of_another_preset(copied):
    model, _ = QwenVLAModel.from_backbone(copied, expert="tiny")
    assert model.config.expert_config.hidden_size == 128 and model.config.expert_config.context_size == 64
    assert not any(p.is_meta for p in model.parameters()) and not any(b.is_meta for b in model.buffers())


def test_result_saves_and_loads_as_any_other_model(qwen, tmp_path):
    model, processor = from_backbone(qwen[0])
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = QwenVLAModel.from_pretrained(tmp_path).eval()
    batch = QwenVLAProcessor.from_pretrained(tmp_path)(["pick up the red cube"], pictures(1))
    with torch.no_grad():
        assert torch.equal(again.encode(**batch).hidden, model.encode(**batch).hidden)


def test_prediction_heads_of_qwen_that_are_not_used_are_no_error(copied):
    """Published checkpoints carry multi-token-prediction layers (mtp.*)."""
    extra = copied / "model-mtp.safetensors"
    save_file({"mtp.fc.weight": torch.zeros(2, 2)}, extra, metadata={"format": "pt"})
    index = copied / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["mtp.fc.weight"] = extra.name
    index.write_text(json.dumps(content))
    assert from_backbone(copied)[0].config.vlm_config.text_config.hidden_size == 64


def test_missing_shard_is_named(copied):
    victim = shards(copied)[1]
    victim.unlink()
    with pytest.raises(FileNotFoundError, match=victim.name):
        from_backbone(copied)


def test_truncated_shard_is_named(copied):
    victim = shards(copied)[2]
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{victim.name}.*truncated"):
        from_backbone(copied)


def test_missing_key_is_named(copied):
    index = copied / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    name = "model.language_model.layers.3.self_attn.q_proj.weight"
    file = copied / content["weight_map"].pop(name)
    rest = {key: value for key, value in load_file(file).items() if key != name}
    save_file(rest, file, metadata={"format": "pt"})
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"lack .*layers\.3\.self_attn\.q_proj\.weight"):
        from_backbone(copied)


def test_wrong_shape_is_named(copied):
    config = copied / "config.json"
    fields = json.loads(config.read_text())
    fields["text_config"]["intermediate_size"] = 100
    config.write_text(json.dumps(fields))
    with pytest.raises((ValueError, RuntimeError), match="mlp"):
        from_backbone(copied)


def test_other_models_are_refused(copied):
    config = copied / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "llama"}))
    with pytest.raises(ValueError, match="config.json describes a 'llama' model.*qwen3_5"):
        from_backbone(copied)


def test_missing_tokenizer_is_named(copied):
    (copied / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="tokenizer.json"):
        from_backbone(copied)


def test_a_hub_id_is_fetched_with_the_needed_files_alone(copied, monkeypatch):
    asked = {}

    def snapshot(name, allow_patterns):
        asked.update(name=name, patterns=allow_patterns)
        return str(copied)

    monkeypatch.setattr("qwen_vla.model.pretrained.snapshot_download", snapshot)
    assert find_checkpoint("Qwen/Qwen3.5-0.8B") == copied
    assert asked["name"] == "Qwen/Qwen3.5-0.8B" and "*.safetensors" in asked["patterns"]
    assert not any(pattern in ("*", "*.bin") for pattern in asked["patterns"])


@pytest.mark.parametrize("name", ["no/such/folder/here", "qwen vla", "/no/such/folder"])
def test_a_name_that_cannot_be_a_hub_id_needs_no_network(name):
    with pytest.raises(OSError, match="neither a folder nor"):
        find_checkpoint(name)


MEASURE = """
import json, sys
import torch
from qwen_vla import QwenVLAModel
import qwen_vla.model.pretrained, transformers.models.qwen3_5.modeling_qwen3_5
torch.set_num_threads(1)
def figures():
    lines = open("/proc/self/smaps_rollup").read().splitlines()[1:]
    rollup = {l.split(":")[0]: int(l.split()[1]) / 1024 for l in lines}
    status = dict(l.split(":", 1) for l in open("/proc/self/status").read().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 1024  # ru_maxrss would start at the size of the parent process
    return {"peak": peak, "rss": rollup["Rss"], "anonymous": rollup["Anonymous"]}
before = figures()
expert = {"hidden_size": 128, "num_layers": 1, "num_heads": 2, "intermediate_size": 128}
model, _ = QwenVLAModel.from_backbone(sys.argv[1], expert_config=expert)
loaded = figures()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.view(-1)[:: 512].clone()  # one read per page: the mapping becomes resident
touched = figures()
weights = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
print(json.dumps({"weights": weights, "before": before, "loaded": loaded, "touched": touched}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_holds_the_weights_once(tmp_path):
    """300 MB of bf16: the peak, resident file pages included, stays under 1.15 times the weights.

    Before anything is read, next to nothing is allocated: the parameters are views of the mapped files.
    """
    write_checkpoint(tmp_path, rows=40_960, width=1280, layers=8, shard="100MB", empty=True)
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    m = json.loads(output.splitlines()[-1])
    assert m["weights"] > 250 and len(shards(tmp_path)) > 2
    assert m["loaded"]["anonymous"] - m["before"]["anonymous"] < 0.15 * m["weights"]
    assert m["touched"]["rss"] - m["before"]["rss"] > 0.9 * m["weights"], "the measurement must see file pages"
    assert m["touched"]["peak"] - m["before"]["rss"] < 1.15 * m["weights"]
