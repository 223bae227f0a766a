# SPDX-License-Identifier: Apache-2.0
"""Adapters reach every linear layer of the backbone, camera markers train whatever is frozen, and both merge."""

import contextlib
import itertools
import json
import math

import pytest
import torch
from micro import pictures
from peft.tuners.lora import LoraLayer
from PIL import Image
from qwen_checkpoint import write_checkpoint
from qwen_recipe import EIGHT_BITS, recipe_for
from torch import nn

from qwen_vla import Policy, QwenVLAConfig, QwenVLAModel, QwenVLAProcessor, Sample
from qwen_vla.training.low_memory.adapters import add_adapters
from qwen_vla.training.low_memory.low_bits import dequantized, is_quantized
from qwen_vla.training.output_folder import STATE_FILE
from qwen_vla.training.recipe import Lora
from qwen_vla.training.run import export, prepare
from qwen_vla.training.trainer import TrainingStopped, train, training_step

VIEWS = ("ego", "cam_left_wrist", "cam_right_wrist")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    write_checkpoint(folder)
    return folder


def adapted(lora: Lora) -> tuple[set[str], set[str]]:
    """Names of the linear layers of Qwen3.5-4B's text layers, and of its adapted layers; on the meta device."""
    with torch.device("meta"):
        model = QwenVLAModel(QwenVLAConfig.preset("4b", expert_config={"num_layers": 1}))
    linears = {n for n, m in model.named_modules() if isinstance(m, nn.Linear) and "language_model.layers" in n}
    add_adapters(model, lora)
    return linears, {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def test_every_linear_layer_of_the_text_tower_has_an_adapter():
    """24 layers of linear attention with five, 8 of attention with four, 32 feed-forward ones with three."""
    linears, found = adapted(Lora())
    assert len(linears) == 24 * 5 + 8 * 4 + 32 * 3 == 248
    assert found == linears


def test_the_vision_tower_has_adapters_if_asked():
    linears, found = adapted(Lora(vision=True))
    vision = found - linears
    assert linears <= found and len(vision) == 24 * 4 + 2  # two of attention, two of the feed-forward; the merger's two
    assert all(".visual." in name for name in vision)


def through(view: str, model, processor) -> torch.Tensor:
    """The chunk that follows one image, seen through a camera; the noise is always the same."""
    image = pictures(1)[0]["ego"]
    batch = processor.collate([Sample("pick up the red cube", {view: image})])
    mask = torch.ones(1, 16, 64, dtype=torch.bool)
    return model.predict_action_chunk(mask, 4, torch.Generator().manual_seed(0), **batch)


def test_after_ten_steps_of_adapters_one_image_through_three_cameras_gives_three_chunks(recordings, qwen, tmp_path):
    torch.manual_seed(0)
    run = prepare(recipe_for(tmp_path / "lora", recordings, qwen, lora={"rank": 4}))
    before = run.model.get_input_embeddings().marker_rows.detach().clone()
    for step in range(10):
        training_step(run, run.batches[step])
        run.step += 1
    run.learner.eval()
    chunks = [through(view, run.model, run.processor) for view in VIEWS]
    scale = chunks[0].std()
    assert all((a - b).abs().max() > 1e-3 * scale for a, b in itertools.combinations(chunks, 2))
    moved = (run.model.get_input_embeddings().marker_rows - before).abs().amax(dim=1) > 0
    seen = [f"<|{tag}_{end}|>" for tag in ("ego", "cam_wrist") for end in ("start", "end")]
    ids = run.processor.tokenizer.convert_tokens_to_ids(seen)
    assert [i for i, m in zip(run.processor.marker_ids, moved, strict=True) if m] == ids, "those of the data, no others"


@pytest.mark.parametrize(
    "changes",
    [{"lora": {"rank": 4, "vision": True}}, {"lora": {"rank": 4, "quantize": "nf4"}}, {"freeze": ["backbone"]}],
    ids=["lora", "nf4", "frozen"],
)
def test_what_was_trained_in_a_frozen_backbone_is_in_the_export(recordings, qwen, tmp_path, changes):
    torch.manual_seed(0)
    run = prepare(recipe_for(tmp_path / "run", recordings, qwen, **changes))
    for step in range(3):
        training_step(run, run.batches[step])
        run.step += 1
    torch._foreach_copy_(run.average, [p.detach() for p in run.trained])
    merged = QwenVLAModel.from_pretrained(export(run)).eval()
    run.learner.eval()
    found, expected = (through("ego", model, run.processor) for model in (merged, run.model))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    base = QwenVLAModel.from_backbone(qwen, expert="tiny")[0].get_input_embeddings().weight
    rows = merged.get_input_embeddings().weight
    assert rows is merged.vlm.lm_head.weight and torch.equal(rows[:300], base[:300]), "words are as they were"


def test_adapters_markers_and_expert_have_rates_of_their_own(recordings, qwen, tmp_path):
    optimizer = {"expert_lr": 1e-3, "marker_lr": 3e-4, "warmup_steps": 1}
    run = prepare(recipe_for(tmp_path / "run", recordings, qwen, lora={"lr": 2e-4}, optimizer=optimizer))
    names = {id(p): name for name, p in run.learner.named_parameters()}
    for group in run.optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            wanted = 3e-4 if "marker" in name else 2e-4 if "lora_" in name else 1e-3
            assert group["lr"] == pytest.approx(wanted), name
            assert "marker" not in name or group["weight_decay"] == 0


def navigation(folder) -> dict:
    """Two episodes of a base with a camera that the arm does not have."""
    Image.new("RGB", (64, 48), "red").save(folder / "view.png")
    row = {"instruction": "go", "rate_hz": 2, "poses": [[0.1 * i, 0, 0] for i in range(6)], "frames": {}}
    row["frames"] = {"cam_front": ["view.png"] * 6}
    (folder / "base.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    return {"kind": "navigation", "path": str(folder / "base.jsonl")}


def test_a_camera_that_joins_later_is_unlike_every_other(recordings, qwen, tmp_path):
    """The checkpoint's spare rows are no embeddings: nothing ever trained them."""
    export(prepare(recipe_for(tmp_path / "first", recordings, qwen, lora={"rank": 4})))
    changes = {"backbone": None, "init_from": tmp_path / "first" / "model", "model": {}, "lora": {"rank": 4}}
    run = prepare(recipe_for(tmp_path / "second", recordings, qwen, data=[navigation(tmp_path)], **changes))
    rows = run.model.get_input_embeddings().marker_rows.detach()
    words = run.model.get_input_embeddings().weight[:300]
    off = (rows - words.mean(0)) / words.std(0)
    assert run.processor.camera_tags[-1] == "cam_front" and len(rows) == 2 * len(run.processor.camera_tags)
    assert torch.pdist(off).min() > 1 and 0.75 < off[-2:].std() < 1.25
    assert math.isfinite(training_step(run, run.batches[0])["action"])


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_a_fine_tune_with_few_bits_resumes_and_loads(recordings, qwen, tmp_path, quantize):
    """Stopped after three of six steps and resumed, it ends as one that went through; the result needs no library."""
    ends = []
    for name, stops in (("whole", [None]), ("resumed", [3, None])):
        lora = {"rank": 4, "quantize": quantize}
        changes = {"lora": lora, "steps": 6, "optimizer": EIGHT_BITS, "save_every": 3, "validate_every": 6}
        recipe = recipe_for(tmp_path / name, recordings, qwen, **changes)
        for stop in stops:
            with contextlib.suppress(TrainingStopped):
                train(recipe, stop)
        ends.append(QwenVLAModel.from_pretrained(recipe.output / "model"))
    assert_same(*ends)
    state = torch.load(tmp_path / "resumed" / STATE_FILE, weights_only=True)
    parts = [of["__bnb_optimizer_quant_state__"] for of in state["optimizer"]["state"].values()]
    moments = [part[name] for part in parts for name in ("state1", "state2")]
    eight = sum(m.numel() for m in moments if m.dtype == torch.uint8)
    assert eight > 0.95 * sum(m.numel() for m in moments) and state["average"] == []
    processor = QwenVLAProcessor.from_pretrained(tmp_path / "resumed" / "model")
    assert torch.isfinite(through("ego", ends[1].eval(), processor)).all()
    policy = Policy.from_pretrained(tmp_path / "resumed" / "model")
    assert policy.embodiment.name == "widowx"


def assert_same(one, other):
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_four_bit_weights_are_where_the_memory_is_and_near_what_they_were(recordings, qwen, tmp_path):
    """Every large linear layer of the text tower; the gates of the linear attention stay."""
    run = prepare(recipe_for(tmp_path / "run", recordings, qwen, lora={"rank": 4, "quantize": "nf4"}))
    base = QwenVLAModel.from_backbone(qwen, expert="tiny")[0]
    packed = {name: m for name, m in run.model.named_modules() if is_quantized(m)}
    layers = [n for n, m in base.named_modules() if isinstance(m, nn.Linear) and "language_model.layers" in n]
    large = [name for name in layers if name.split(".")[-1] not in ("in_proj_a", "in_proj_b")]
    assert sorted(name.removesuffix(".base_layer") for name in packed) == sorted(large)
    for name, module in packed.items():
        weight = base.get_submodule(name.removesuffix(".base_layer")).weight
        assert module.weight.dtype == torch.uint8 and module.weight.numel() == weight.numel() // 2
        assert (dequantized(module) - weight).norm() < 0.15 * weight.norm(), "NF4 of a normal distribution: 9 %"
