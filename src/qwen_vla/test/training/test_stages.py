# SPDX-License-Identifier: Apache-2.0
"""Every stage and every kind of data takes real optimization steps, and trains the intended parts."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from qwen_vla import Observation, Policy, QwenVLAConfig, QwenVLAModel
from qwen_vla.training import precision
from qwen_vla.training.balance import RANGE, GradientBalance
from qwen_vla.training.progress.log import BOARD_FOLDER, read_log
from qwen_vla.training.recipe import Losses, Recipe, RecipeError
from qwen_vla.training.run import averaged, prepare
from qwen_vla.training.start import HEAD_FILE
from qwen_vla.training.state import StateError, resume
from qwen_vla.training.trainer import train, training_step

OPTIMIZER = {"backbone_lr": 1e-3, "expert_lr": 1e-3, "warmup_steps": 1}
ALL_LOSSES = {"action": 1.0, "language": 0.1, "grounding": 0.3}
MOTIONS = {"kind": "motions", "robots": ["widowx"], "count": 12, "templates": ["move", "gripper"]}


@pytest.fixture(scope="module", autouse=True)
def accelerator_of_these_tests():
    """Accelerate keeps its settings for the whole process; leave none behind."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def recipe_for(output, data, **changes) -> Recipe:
    fields = {
        "stage": "sft",
        "name": output.name,
        "output": output,
        "data": data,
        "steps": 2,
        "batch_size": 4,
        "losses": ALL_LOSSES,
        "optimizer": OPTIMIZER,
        "held_out_share": 0.25,
        "validate_every": 2,
        "log_every": 1,
        "threads": 1,
    }
    return Recipe.model_validate(fields | changes)


def robot(recordings, kind="demonstrations"):
    return {"kind": "robot", "path": str(recordings / kind)}


def weights_of(folder):
    return QwenVLAModel.from_pretrained(folder).state_dict()


def moved(before, after):
    """Parts of the model in which a weight changed."""
    return {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}


# ------------------------------------------------------------------------------------- stages
@pytest.fixture(scope="module")
def t2a(recordings, tmp_path_factory):
    output = tmp_path_factory.mktemp("stages") / "t2a"
    data = [robot(recordings), {**MOTIONS, "weight": 0.3}]
    optimizer = {"expert_lr": 1e-3, "warmup_steps": 1}
    recipe = recipe_for(output, data, stage="t2a", losses={"action": 1.0}, horizon=64, optimizer=optimizer)
    train(recipe)
    return recipe


@pytest.fixture(scope="module")
def cpt(recordings, t2a, tmp_path_factory):
    output = tmp_path_factory.mktemp("stages") / "cpt"
    data = [robot(recordings), robot(recordings, "snapshots"), {"kind": "questions", "path": recordings / "snapshots"}]
    losses = {**ALL_LOSSES, "balance": "gradient_magnitude", "balance_every": 1, "balance_smoothing": 0.5}
    recipe = recipe_for(output, data, stage="cpt", init_from=t2a.output / "model", losses=losses)
    train(recipe)
    return recipe


def test_text_to_action_sees_whole_trajectories_and_no_images(t2a):
    run = prepare(t2a)
    assert all(not source.sample(source.training[0], np.random.default_rng(0)).images for source in run.sources)
    (batch,) = run.batches[0]
    steps = batch.inputs["action_mask"].any(dim=2).sum(dim=1)
    assert "pixel_values" not in batch.inputs and batch.inputs["actions"].shape[1] == steps.max() > 16
    robot = run.sources[0]
    first, end = robot.episodes[0]
    sample = robot.sample(int(first), np.random.default_rng(0))
    assert len(sample.actions) == min(64, end - first) and f"next {len(sample.actions)} control" in sample.text
    assert run.model.config.tau_distribution == "logit_normal"


def test_a_policy_is_asked_for_its_state_if_its_last_training_read_it(recordings, tmp_path):
    token = {"model": {"proprioception": "token"}, "steps": 1}
    first = recipe_for(tmp_path / "first", [robot(recordings)], **token)
    second = recipe_for(
        tmp_path / "second", [{**robot(recordings), "use_state": False}], init_from=first.output / "model", steps=1
    )
    asked = [Policy.from_pretrained(train(recipe), embodiment="widowx").state_names for recipe in (first, second)]
    assert asked[0] and not asked[1]


def test_text_to_action_trains_the_expert_alone(t2a):
    torch.manual_seed(t2a.seed)
    run = prepare(t2a)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    resume(run)
    assert moved(before, run.model.state_dict()) == {"action_expert"}
    assert all(name.startswith("action_expert") for name, p in run.model.named_parameters() if p.requires_grad)
    loss = run.learner(run.batches[0][0])["action"]
    loss.backward()
    assert all(p.grad is None for p in run.model.vlm.parameters())


def test_each_stage_starts_where_the_one_before_ended(t2a, cpt):
    run = prepare(cpt)
    for name, value in weights_of(t2a.output / "model").items():
        assert torch.equal(run.model.state_dict()[name], value), name
    assert run.model.config.tau_distribution == "beta", "the stage's own, not that of the checkpoint"
    assert moved(weights_of(t2a.output / "model"), weights_of(cpt.output / "model")) == {"vlm", "action_expert"}


def test_chunks_get_statistics_of_their_own(t2a, cpt):
    policy = Policy.from_pretrained(cpt.output / "model")
    trajectories = Policy.from_pretrained(t2a.output / "model").statistics
    assert policy.embodiment.dataset == "widowx" and not np.allclose(policy.statistics.q99, trajectories.q99)


@pytest.mark.parametrize("stage", ["t2a", "cpt"])
def test_what_a_stage_exports_acts(stage, request):
    recipe = request.getfixturevalue(stage)
    policy = Policy.from_pretrained(recipe.output / "model")
    images = {tag: np.zeros((96, 96, 3), np.uint8) for tag in policy.camera_tags}
    chunk = policy.infer(Observation(images, "lift the red cube"), seed=0)
    assert chunk.data.shape == (16, 7) and np.isfinite(chunk.data).all()
    card = (recipe.output / "model/README.md").read_text()
    assert recipe.name in card


def test_the_log_is_also_a_tensorboard(cpt):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(cpt.output / BOARD_FOLDER))
    board.Reload()
    rows = [row for row in read_log(cpt.output) if "action" in row]
    scalars = board.Scalars("training/action")
    assert [event.step for event in scalars] == [row["step"] for row in rows] == [1, 2]
    assert [event.value for event in scalars] == pytest.approx([row["action"] for row in rows])
    assert all(0 <= row["data_wait_share"] <= 1 for row in rows)


def test_the_expert_of_another_run_can_be_taken_alone(recordings, t2a, tmp_path):
    recipe = recipe_for(tmp_path / "sft", [robot(recordings)], expert_from=t2a.output / "model", seed=7)
    run = prepare(recipe)
    expert, own = weights_of(t2a.output / "model"), run.model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in expert.items() if name.startswith("action_expert."))
    assert any(
        not torch.equal(own[n], v) for n, v in expert.items() if n.startswith("vlm.") and v.shape == own[n].shape
    )


def test_an_expert_of_another_shape_is_refused(recordings, checkpoint, tmp_path):
    with pytest.raises(RecipeError, match="expert_from: the action expert in .* does not fit this model"):
        prepare(recipe_for(tmp_path / "sft", [robot(recordings)], expert_from=checkpoint))


def test_kept_and_recomputed_statistics(recordings, cpt, tmp_path):
    known = Policy.from_pretrained(cpt.output / "model").statistics
    changes = {"init_from": cpt.output / "model", "held_out_share": 0.5, "normalization": {"widowx": "keep"}}
    kept = prepare(recipe_for(tmp_path / "kept", [robot(recordings)], **changes)).processor.normalization["widowx"]
    assert np.array_equal(kept.q99, known.q99)
    del changes["normalization"]
    new = prepare(recipe_for(tmp_path / "new", [robot(recordings)], **changes)).processor.normalization["widowx"]
    assert not np.allclose(new.q99, known.q99), "other training episodes, other statistics"


def test_statistics_that_cannot_be_kept_are_refused(recordings, cpt, tmp_path):
    recipe = recipe_for(tmp_path, [robot(recordings)], init_from=cpt.output / "model", normalization={"arm": "keep"})
    with pytest.raises(RecipeError, match=r"normalization\.arm: .* has no such statistics; it has: .*widowx"):
        prepare(recipe)


def test_statistics_of_another_robot_of_the_checkpoint_are_not_replaced(recordings, cpt, tmp_path):
    """Its own data is not in the mixture, so that it would act by the ranges of other channels."""
    walks = {**navigation(tmp_path), "robot": "widowx"}
    start = named_apart(cpt.output / "model", tmp_path / "start")
    recipe = recipe_for(tmp_path / "sft", [walks], init_from=start, losses={"language": 0.0})
    with pytest.raises(RecipeError, match="'old_arm' of the model to start from could not act any more"):
        prepare(recipe)


def named_apart(checkpoint, folder):
    """A copy of a checkpoint whose robot has another name than its statistics."""
    shutil.copytree(checkpoint, folder)
    known = json.loads((folder / "embodiments.json").read_text())
    known["old_arm"] = {**known.pop("widowx"), "name": "old_arm"}
    (folder / "embodiments.json").write_text(json.dumps(known))
    return folder


def test_a_run_is_not_resumed_with_other_statistics(recordings, tmp_path):
    run = prepare(recipe_for(tmp_path / "run", [robot(recordings)]))
    state = run.state()
    run.restore(state)
    state["statistics"]["widowx"]["q99"][0] *= 1.01
    with pytest.raises(StateError, match="data changed since the state was saved: other statistics of widowx"):
        run.restore(state)


# ------------------------------------------------------------------------------ kinds of data
def chat(folder):
    Image.new("RGB", (8, 6), (250, 0, 0)).save(folder / "red.png")
    question = [{"type": "image", "image": "red.png"}, {"type": "text", "text": "Which color?"}]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "red"}]
    (folder / "talk.jsonl").write_text("\n".join([json.dumps({"messages": messages})] * 4))
    return {"kind": "chat", "path": folder / "talk.jsonl"}


def navigation(folder, tag="ego"):
    for i in range(21):
        Image.new("RGB", (8, 6), (i, 0, 0)).save(folder / f"{i:03d}.png")
    poses = [[0.1 * i, 0.0, 0.0] for i in range(21)]
    frames = {tag: [f"{i:03d}.png" for i in range(21)]}
    walk = {"instruction": "go on", "rate_hz": 10, "poses": poses, "frames": frames}
    (folder / "walks.jsonl").write_text("\n".join([json.dumps(walk)] * 4))
    return {"kind": "navigation", "path": folder / "walks.jsonl"}


def trajectories(folder):
    points = [[1, 0], None, [3, 1]]
    moment = {"space": "ground", "rate_hz": 2, "entities": [{"name": "the van", "points": points}]}
    (folder / "moments.jsonl").write_text("\n".join([json.dumps(moment)] * 4))
    return {"kind": "trajectories", "path": folder / "moments.jsonl"}


def hands(folder):
    rng = np.random.default_rng(0)
    arrays = {}
    for side in ("left", "right"):
        arrays |= {f"{side}_translation": rng.normal(size=(40, 3)), f"{side}_rotation": rng.normal(size=(40, 3)) * 0.1}
        arrays |= {f"{side}_pca": rng.normal(size=(40, 10)), f"{side}_present": np.ones(40, bool)}
    np.savez(folder / "jar.npz", **arrays)
    line = {"instruction": "open the jar", "rate_hz": 30, "hands": "jar.npz"}
    (folder / "hands.jsonl").write_text("\n".join([json.dumps(line)] * 4))
    return {"kind": "hands", "path": folder / "hands.jsonl"}


def motions(_folder):
    return {**MOTIONS, "rate_hz": "embodiment"}


@pytest.mark.parametrize("kind", [chat, navigation, trajectories, hands, motions], ids=lambda kind: kind.__name__)
def test_every_kind_of_data_trains_beside_a_robot(recordings, tmp_path, kind):
    recipe = recipe_for(tmp_path / "run", [robot(recordings), kind(tmp_path)])
    run = prepare(recipe)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    for _ in range(2):
        losses = training_step(run, run.batches[run.step])
        run.step += 1
    assert ("language" in losses) == (kind is chat)
    (batch,) = run.batches[0]
    assert batch.inputs["action_mask"].any(dim=(1, 2)).sum() == (2 if kind is chat else 4)
    assert moved(before, run.model.state_dict()) == {"vlm", "action_expert"}
    assert set(run.sources[1].statistics) <= set(run.processor.normalization)


def test_new_cameras_join_those_of_the_checkpoint(recordings, cpt, tmp_path):
    data = [robot(recordings), navigation(tmp_path, "cam_front")]
    run = prepare(recipe_for(tmp_path / "sft", data, init_from=cpt.output / "model"))
    assert run.processor.camera_tags == ("ego", "cam_wrist", "cam_front")
    rows = run.model.get_input_embeddings().weight.shape[0]
    assert rows >= len(run.processor.tokenizer) and rows == run.model.config.vlm_config.text_config.vocab_size
    assert math.isfinite(training_step(run, run.batches[0])["action"])


# ------------------------------------------------------------------------------------ options
def test_adapters_are_trained_instead_of_the_backbone_and_merged_in_the_export(recordings, cpt, tmp_path):
    lora = {"rank": 4, "alpha": 8}
    recipe = recipe_for(tmp_path / "lora", [robot(recordings)], init_from=cpt.output / "model", lora=lora)
    train(recipe)
    run = prepare(recipe)
    resume(run)
    trained = {name for name, p in run.model.named_parameters() if p.requires_grad}
    assert all("lora_" in n or n.endswith("marker_rows") or n.startswith("action_expert.") for n in trained)
    exported = weights_of(recipe.output / "model")
    before = weights_of(cpt.output / "model")
    assert exported.keys() == before.keys(), "inference needs no peft"
    changed = {name for name in before if name.startswith("vlm.") and not torch.equal(before[name], exported[name])}
    tied = {"vlm.model.language_model.embed_tokens.weight", "vlm.lm_head.weight"}  # the markers of cameras
    assert changed - tied and all(name.split(".")[-2] in recipe.lora.targets for name in changed - tied)
    batch = run.batches.held_out(run.sources[0], 2)
    merged = QwenVLAModel.from_pretrained(recipe.output / "model")
    with averaged(run), torch.no_grad():
        run.learner.eval()
        found, expected = (model.encode(**batch.inputs).hidden for model in (merged, run.model))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_unknown_adapter_targets_are_refused(recordings, tmp_path):
    with pytest.raises(RecipeError, match="lora.targets: .*nowhere"):
        prepare(recipe_for(tmp_path / "x", [robot(recordings)], lora={"targets": ["nowhere"]}))


def test_frozen_parts_stay(recordings, tmp_path):
    recipe = recipe_for(tmp_path / "frozen", [robot(recordings)], freeze=["vision"])
    run = prepare(recipe)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    training_step(run, run.batches[0])
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and not any(".visual." in name for name in changed)
    assert any(name.startswith("vlm.") for name in changed)


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"gradient_checkpointing": True}, 1e-4),
        ({"autocast": "bf16"}, 0.05),
        ({"autocast": "bf16", "precision": "bf16", "freeze": ["vision"]}, 0.05),
        ({"accumulate": 2}, 1e-4),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_saves_memory_changes_little(recordings, tmp_path, changes, tolerance, monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    found = []
    for options in ({"freeze": changes.get("freeze", ())}, changes):
        torch.manual_seed(0)
        run = prepare(recipe_for(tmp_path / "run", [robot(recordings)], **options))
        found.append(training_step(run, run.batches[0]))
        assert all(p.dtype == torch.float32 for p in run.trained)
    assert found[1] == pytest.approx(found[0], rel=tolerance)
    if "precision" in changes:
        assert {p.dtype for p in run.model.vlm.model.visual.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("has_bf16", "stored", "computed"),
    [
        (True, {}, torch.bfloat16),
        (False, {}, torch.float32),
        (False, {"precision": "bf16", "freeze": ["vision"]}, torch.bfloat16),
    ],
)
def test_a_cpu_does_not_imitate_bf16_unless_weights_are_stored_in_it(
    recordings, tmp_path, has_bf16, stored, computed, monkeypatch
):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: has_bf16)
    recipe = recipe_for(tmp_path / "run", [robot(recordings)], autocast="bf16", **stored)
    run, found = prepare(recipe), set()
    layer = next(module for module in run.model.action_expert.modules() if isinstance(module, torch.nn.Linear))
    layer.register_forward_hook(lambda _layer, _inputs, output: found.add(output.dtype))
    training_step(run, run.batches[0])
    assert found == {computed}
    assert ("in fp32" in precision.told(recipe, torch.device("cpu"))) == (computed == torch.float32)


@pytest.mark.slow
def test_compiled_blocks_take_the_same_step(recordings, tmp_path):
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        run = prepare(recipe_for(tmp_path / "x", [robot(recordings)], compile=compiled))
        found.append(training_step(run, run.batches[0]))
    assert found[0] == pytest.approx(found[1], rel=1e-3)


# ------------------------------------------------------------------------------------ balance
def test_the_weight_of_language_follows_the_gradients():
    losses = Losses(action=2.0, language=0.1, balance="gradient_magnitude", balance_ratio=0.5, balance_smoothing=0.75)
    balance = GradientBalance(losses, 0.1)
    assert balance.due(0) and balance.due(20) and not balance.due(21)
    for _ in range(60):
        balance.update(action_norm=3.0, language_norm=6.0)
    assert balance.language * 6.0 == pytest.approx(0.5 * 2.0 * 3.0), "λ_vl·‖g_vl‖ = ratio · λ_act·‖g_act‖"
    for norms in ((0.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)):
        balance.update(*norms)
    assert balance.language == pytest.approx(0.5)
    for _ in range(200):
        balance.update(1e-9, 1.0)
    assert balance.language == pytest.approx(0.1 / RANGE), "a closed gate does not switch language off"


def test_the_balance_is_measured_logged_and_resumed(cpt):
    weights = [row["language_weight"] for row in read_log(cpt.output) if "language_weight" in row]
    assert len(weights) == 2 and cpt.losses.language not in weights and weights[0] != weights[1]
    run = prepare(cpt)
    assert run.balance.language == cpt.losses.language
    resume(run)
    assert run.balance.language == weights[-1]


# ---------------------------------------------------------------------------------- learning
def test_200_steps_on_one_batch_leave_less_than_5_percent_of_every_loss(recordings, tmp_path):
    data = [robot(recordings), {"kind": "questions", "path": recordings / "demonstrations"}]
    optimizer = {"backbone_lr": 2e-3, "expert_lr": 2e-3, "warmup_steps": 10, "weight_decay": 0.0}
    torch.manual_seed(0)
    options = {"steps": 200, "batch_size": 2, "optimizer": optimizer, "model": {"image_size": 48}}
    run = prepare(recipe_for(tmp_path / "run", data, **options))
    batches = run.batches[0]
    rows = []
    for run.step in range(200):
        rows.append(training_step(run, batches))
    for name in ALL_LOSSES:
        last = np.mean([row[name] for row in rows[-5:]])
        assert last < 0.05 * rows[0][name], f"{name}: {rows[0][name]:.3f} → {last:.3f}"


def test_a_stage_without_its_head_exports_one_all_the_same(t2a):
    assert (t2a.output / "model" / HEAD_FILE).exists()
    assert QwenVLAConfig.from_pretrained(t2a.output / "model").horizon == 16
