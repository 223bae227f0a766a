"""Training with real data and real optimisation steps: what a run leaves, and that interrupting it changes nothing."""

import contextlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState

from qwen_vla import Observation, Policy
from qwen_vla.training.batches import Batches
from qwen_vla.training.curve import plot_curve, read_log
from qwen_vla.training.recipe import Recipe, RecipeError
from qwen_vla.training.run import averaged, prepare
from qwen_vla.training.state import STATE_FILE, StateError, claim, resume
from qwen_vla.training.trainer import train

STEPS = 10
OPTIMIZER = {"backbone_lr": 1e-3, "expert_lr": 1e-3, "warmup_steps": 2}


def recipe_for(recordings, output, kinds, **changes) -> Recipe:
    fields = {
        "name": output.name,
        "output": output,
        "robot": "widowx",
        "data": [{"path": recordings / kind} for kind in kinds],
        "steps": STEPS,
        "batch_size": 2,
        "question_share": 0.3,
        "optimizer": OPTIMIZER,
        "held_out_share": 0.25,
        "log_every": 1,
        "threads": 1,
        "autocast": "bf16",
    }
    return Recipe.model_validate(fields | changes)


@pytest.fixture(scope="module", autouse=True)
def accelerator_of_these_tests():
    """Accelerate keeps its settings for the whole process; leave none behind."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def pretraining(recordings, tmp_path_factory):
    """Two steps of a vision-language recipe; the finished run's recipe."""
    output = tmp_path_factory.mktemp("train") / "grounding"
    losses = {"action": 0.0, "language": 0.3, "grounding": 1.0}
    recipe = recipe_for(recordings, output, ["snapshots"], steps=2, losses=losses, validate_every=2)
    assert train(recipe) == output / "model"
    return recipe


def action_recipe(recordings, pretraining, output, **changes) -> Recipe:
    changes = {"init_from": pretraining.output / "model", "noise_draws": 2, "validate_every": STEPS} | changes
    return recipe_for(recordings, output, ["demonstrations", "snapshots"], **changes)


@pytest.fixture(scope="module")
def actions(recordings, pretraining, tmp_path_factory):
    """All steps of an action recipe without interruption; the finished run's recipe."""
    recipe = action_recipe(recordings, pretraining, tmp_path_factory.mktemp("train") / "actions")
    train(recipe)
    return recipe


def state_of(recipe):
    return torch.load(recipe.output / STATE_FILE, weights_only=True)


def leaves(value, name=""):
    """Tensors and numbers of a nested state, by name."""
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(child, f"{name}/{key}")
    else:
        yield name, value


def assert_same_state(one, other):
    one, other = dict(leaves(one)), dict(leaves(other))
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        assert same, name


# ------------------------------------------------------------------ what a run leaves behind
def test_pretraining_learns_grounding_and_language_but_no_actions(pretraining):
    rows = read_log(pretraining.output)
    losses = [row for row in rows if "gradient_norm" in row]
    assert [row["step"] for row in losses] == [1, 2]
    assert all("grounding" in row and "action" not in row for row in losses)
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    measures = {name for row in rows for name in row if name.startswith("held_out/")}
    assert measures >= {"held_out/tip", "held_out/opening"} and "held_out/position_mm" not in measures


def test_action_training_logs_losses_and_errors_in_millimetres(actions):
    rows = read_log(actions.output)
    assert [row["step"] for row in rows if "gradient_norm" in row] == list(range(1, STEPS + 1))
    assert any("action" in row for row in rows) and any("language" in row for row in rows)
    measured = rows[-1]
    assert measured["step"] == STEPS and measured["held_out/position_mm"] > measured["held_out/position_mm_median"] / 2
    assert 0 < measured["held_out/gripper"] < 1


def test_a_step_moves_every_part_of_the_model(actions):
    run = prepare(actions)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    resume(run)
    after = run.model.state_dict()
    moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert run.step == STEPS and moved == {"vlm", "action_expert"}
    with averaged(run):
        average = next(run.model.parameters()).clone()
    assert not torch.equal(average, next(run.model.parameters())), "the average lags behind"


def test_the_exported_model_acts(actions):
    policy = Policy.from_pretrained(actions.output / "model")
    rng = np.random.default_rng(0)
    images = {tag: rng.integers(0, 256, (240, 320, 3), dtype=np.uint8) for tag in policy.camera_tags}
    chunk = policy.infer(Observation(images, "lift the red cube", stamp_ns=7), seed=0)
    assert chunk.data.shape == (16, 7) and np.isfinite(chunk.data).all()
    assert (chunk.control_mode, chunk.period, chunk.execution_horizon) == ("eef_delta", 0.2, 8)
    low, high = policy.statistics.q01, policy.statistics.q99
    assert (chunk.data >= low - 1.001).all() and (chunk.data <= high + 1.001).all()


def test_the_exported_model_has_the_averaged_weights(actions):
    policy = Policy.from_pretrained(actions.output / "model")
    for (name, found), expected in zip(policy.model.named_parameters(), state_of(actions)["average"], strict=True):
        assert torch.equal(found, expected), name


def test_the_exported_model_says_what_it_was_trained_on(actions, pretraining):
    training = json.loads((actions.output / "model/training.json").read_text())
    assert training["step"] == STEPS and training["recipe"]["steps"] == STEPS
    assert [(source["kind"], source["seeds"]) for source in training["data"]] == [
        ("demonstrations", [1_000_000, 1_000_004]),
        ("snapshots", [2_000_000, 2_000_006]),
    ]
    assert not list(actions.output.glob("*.tmp"))


def test_data_of_the_model_it_started_from_count_as_trained_on(recordings, pretraining, tmp_path):
    output = tmp_path / "demonstrations_only"
    recipe = recipe_for(recordings, output, ["demonstrations"], init_from=pretraining.output / "model", steps=1)
    train(recipe)
    data = json.loads((output / "model/training.json").read_text())["data"]
    assert [source["kind"] for source in data] == ["demonstrations", "snapshots"]


def test_the_loss_curve_is_drawn_and_survives_a_cut_log(actions, tmp_path):
    assert (actions.output / "loss.png").read_bytes().startswith(b"\x89PNG")
    log = (actions.output / "log.jsonl").read_text()
    (tmp_path / "log.jsonl").write_text(log[: len(log) - 20])
    assert plot_curve(tmp_path).stat().st_size > 5000


# ------------------------------------------------------------------------------ interruptions
def test_ctrl_c_saves_and_resuming_gives_bit_identical_weights(recordings, pretraining, actions, tmp_path):
    recipe = action_recipe(recordings, pretraining, tmp_path / "interrupted")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    command = [sys.executable, "-m", "qwen_vla.cli", "train", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        # Until noise has been drawn for an action loss: resuming must not depend on how many numbers were drawn before.
        wait_while_running(process, lambda: "action" in logged_keys(recipe))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in errors
    assert "interrupted: 2.9 M parameters" in errors and "from step 0" in errors
    assert f"of {STEPS}, all saved; the same command goes on from there" in errors
    assert 1 <= state_of(recipe)["step"] < STEPS
    train(recipe)
    assert_same_state(state_of(recipe), state_of(actions))


def logged_keys(recipe):
    log = recipe.output / "log.jsonl"
    return {key for row in read_log(recipe.output) for key in row} if log.is_file() else set()


def wait_while_running(process, condition, patience=120.0):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
            raise AssertionError(f"ended with {process.returncode}: {process.stderr.read()}")


def test_max_steps_ends_early_and_the_rest_follows(pretraining, recordings, tmp_path):
    whole = recipe_for(recordings, tmp_path / "parts", ["snapshots"], steps=2, losses=pretraining.losses.model_dump())
    train(whole, max_steps=1)
    assert state_of(whole)["step"] == 1
    train(whole)
    assert_same_state(state_of(whole), state_of(pretraining))
    train(whole)  # finished: nothing is left to do
    assert state_of(whole)["step"] == 2


def test_signals_are_handled_as_before_when_training_is_over(actions):
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("keep", [0, 100, -2000], ids=["empty", "beginning", "end missing"])
def test_a_damaged_state_is_named_with_the_way_out(run, tmp_path, monkeypatch, keep):
    whole = (run.recipe.output / STATE_FILE).read_bytes()
    monkeypatch.setattr(run, "recipe", run.recipe.model_copy(update={"output": tmp_path}))
    (tmp_path / STATE_FILE).write_bytes(whole[:keep])
    with pytest.raises(StateError, match=r"state.pt is damaged or cut short \(\d+ bytes\); delete it to train from"):
        resume(run)


def test_another_recipe_does_not_continue_the_run(actions):
    other = {"batch_size": 3, "optimizer": {**actions.optimizer.model_dump(), "ema_decay": 0.5}}
    changed = Recipe.model_validate(actions.model_dump() | other)
    expected = r"other values of batch_size \(2 then, 3 now\), optimizer.ema_decay \(0.999 then, 0.5 now\); choose"
    with pytest.raises(RecipeError, match=expected):
        train(changed)


def test_how_often_to_save_and_log_may_change(actions):
    claim(actions.model_copy(update={"save_every": 1, "log_every": 7, "validate_every": 3, "threads": 2}))


# ---------------------------------------------------------------------------------- batches
@pytest.fixture
def run(actions):
    """A prepared run of the action recipe, at step 0."""
    return prepare(actions)


def tensors(batch):
    return [*batch.inputs.values(), *vars(batch.grounding).values(), batch.actions, batch.action_mask]


class WatchedFrames:
    """Frames of a camera that remember which of them were looked at."""

    def __init__(self, frames, seen):
        self.frames, self.seen = frames, seen

    def __getitem__(self, frame):
        self.seen.add(int(frame))
        return self.frames[frame]


def test_held_out_frames_are_never_trained_on(run, monkeypatch):
    batches, looked_at = run.batches, {}
    monkeypatch.setattr(batches, "batch_size", 16)
    for source in batches.sources:
        seen = looked_at[source] = set()
        watched = {tag: WatchedFrames(frames, seen) for tag, frames in source.images.items()}
        monkeypatch.setattr(source, "images", watched)
    for step in range(60):
        _ = batches[step]
    for source, seen in looked_at.items():
        assert seen == set(source.training), "all of the others are used"
        assert len(source.held_out) and not seen & set(source.held_out)
        assert not set(source.sentence[source.training]) & set(source.sentence[source.held_out]), "whole episodes"


def test_statistics_come_from_training_frames_alone(run):
    source = run.batches.sources[0]
    quantiles = run.batches.processor.normalization["widowx"]
    expected = np.quantile(source.chunks[source.training].reshape(-1, 7).astype(float), [0.01, 0.99], axis=0)
    np.testing.assert_allclose(np.stack([quantiles.q01, quantiles.q99])[:, [0, 1, 2, 6]], expected[:, [0, 1, 2, 6]])


def test_batches_depend_on_step_and_process_alone(run):
    first = run.batches
    others = [
        Batches(first.sources, first.processor, first.embodiment, first.config, 2, 0.3, seed=0, process=process)
        for process in (0, 1)
    ]
    kinds = set()
    for step in (5, 0, 3, 8, 13, 21):
        one, same, other = (batches[step] for batches in (first, *others))
        kind = ("labels" in one.inputs, one.actions is not None)
        kinds.add(kind)
        assert kind == ("labels" in other.inputs, other.actions is not None), "processes learn the same kind of thing"
        for found, expected in zip(tensors(one), tensors(same), strict=True):
            assert found is expected is None or torch.equal(found, expected)
        assert not torch.equal(one.inputs["pixel_values"], other.inputs["pixel_values"])
    assert len(kinds) >= 2


def test_a_recipe_that_would_learn_nothing_from_its_data_is_refused(recordings, tmp_path):
    losses = {"action": 1.0, "language": 0.1, "grounding": 0.0}
    with pytest.raises(RecipeError, match="nothing would be learned from prompts of .*snapshots"):
        prepare(recipe_for(recordings, tmp_path / "x", ["demonstrations", "snapshots"], losses=losses))


def test_data_that_are_all_held_out_are_refused(recordings, tmp_path):
    with pytest.raises(ValueError, match="4 episodes, 4 of them held out, none left to train on"):
        prepare(recipe_for(recordings, tmp_path / "x", ["demonstrations"], held_out_share=0.95))


# --------------------------------------------------------------------------- several processes
TWO_PROCESSES = """
import json, sys, torch
from pathlib import Path
from qwen_vla.training import trainer
from qwen_vla.training.recipe import Recipe
from qwen_vla.training.run import prepare

run = prepare(Recipe.model_validate_json(Path(sys.argv[1]).read_text()))
rank, world = run.accelerator.process_index, run.accelerator.num_processes
for parameter in run.model.parameters():
    parameter.grad = torch.full_like(parameter, 1.0 + rank)
trainer._average_gradients(run)
mean = {float(value) for p in run.model.parameters() for value in p.grad.unique()}
run.optimizer.zero_grad()
rows = []
for run.step in range(2):
    rows.append(trainer._training_step(run, run.batches[run.step]))
result = {"world": world, "mean": sorted(mean), "rows": rows}
Path(sys.argv[2], f"rank{rank}.json").write_text(json.dumps(result))
torch.save(run.model.state_dict(), Path(sys.argv[2], f"rank{rank}.pt"))
"""


@pytest.mark.slow
def test_two_processes_average_their_gradients_and_stay_identical(recordings, pretraining, tmp_path):
    recipe, script = tmp_path / "recipe.json", tmp_path / "two.py"
    recipe.write_text(action_recipe(recordings, pretraining, tmp_path / "two").model_dump_json())
    script.write_text(TWO_PROCESSES)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, script, recipe, tmp_path], check=True, timeout=170)
    results = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert all(result["world"] == 2 and result["mean"] == [1.5] for result in results)
    norms = [[row.pop("gradient_norm") for row in result["rows"]] for result in results]
    assert norms[0] == norms[1], "both see the averaged gradients"
    assert results[0]["rows"] != results[1]["rows"], "each sees frames of its own"
    weights = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert_same_state(*weights)


@pytest.mark.slow
def test_a_run_of_two_processes_ends_complete(recordings, pretraining, tmp_path):
    recipe = action_recipe(recordings, pretraining, tmp_path / "pair", steps=2)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, "-m", "qwen_vla.cli", "train", str(file)], check=True, timeout=170)
    assert state_of(recipe)["step"] == 2
    assert [row["step"] for row in read_log(recipe.output)] == [1, 2]
    assert Policy.from_pretrained(recipe.output / "model").camera_tags == ("ego", "cam_wrist")
