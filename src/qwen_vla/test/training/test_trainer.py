# SPDX-License-Identifier: Apache-2.0
"""Training with real data and real optimization steps: what a run leaves, and that interrupting it changes nothing."""

import contextlib
import json
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState

from qwen_vla import Observation, Policy
from qwen_vla.output_paths import OutputRefused
from qwen_vla.training import trainer
from qwen_vla.training.batching.batches import Batches, Prefetch
from qwen_vla.training.output_folder import STATE_FILE, claim
from qwen_vla.training.progress.curve import plot_curve
from qwen_vla.training.progress.log import read_log
from qwen_vla.training.recipe import Recipe, RecipeError
from qwen_vla.training.run import averaged, prepare
from qwen_vla.training.state import StateError, resume, save
from qwen_vla.training.trainer import StopSignal, train, training_step

STEPS = 10
OPTIMIZER = {"backbone_lr": 1e-3, "expert_lr": 1e-3, "warmup_steps": 2}


def recipe_for(recordings, output, kinds, **changes) -> Recipe:
    """Prompts of each kind of recording, and a question about each in every third row."""
    fields = {
        "stage": "sft",
        "name": output.name,
        "output": output,
        "data": [{"kind": "robot", "path": str(recordings / kind), "weight": 2} for kind in kinds]
        + [{"kind": "questions", "path": recordings / kind} for kind in kinds],
        "steps": STEPS,
        "batch_size": 3,
        "losses": {"action": 1.0, "language": 0.1, "grounding": 0.3},
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


def test_action_training_logs_losses_and_errors_in_millimeters(actions):
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
    demonstrations, snapshots = [1_000_000, 1_000_004], [2_000_000, 2_000_006]
    assert [(source["kind"], source["seeds"]) for source in training["data"]] == [
        ("demonstrations", demonstrations),
        ("snapshots", snapshots),
        ("questions", demonstrations),
        ("questions", snapshots),
    ]
    assert not list(actions.output.glob("*.tmp"))


def test_data_of_the_model_it_started_from_count_as_trained_on(recordings, pretraining, tmp_path):
    output = tmp_path / "demonstrations_only"
    recipe = recipe_for(recordings, output, ["demonstrations"], init_from=pretraining.output / "model", steps=1)
    train(recipe)
    data = json.loads((output / "model/training.json").read_text())["data"]
    assert [source["kind"] for source in data] == ["demonstrations", "questions", "snapshots", "questions"]


def test_the_loss_curve_is_drawn_and_survives_a_cut_log(actions, tmp_path):
    assert (actions.output / "loss.png").read_bytes().startswith(b"\x89PNG")
    log = (actions.output / "log.jsonl").read_text()
    (tmp_path / "log.jsonl").write_text(log[: len(log) - 20])
    assert plot_curve(tmp_path).stat().st_size > 5000


# ------------------------------------------------------------------------------ interruptions
@pytest.mark.slow
def test_ctrl_c_saves_and_resuming_gives_bit_identical_weights(recordings, pretraining, actions, tmp_path):
    recipe = action_recipe(recordings, pretraining, tmp_path / "interrupted")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    command = [sys.executable, "-m", "qwen_vla", "train", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        # Until noise has been drawn for an action loss: resuming must not depend on how many numbers were drawn before.
        wait_while_running(process, lambda: "action" in logged_keys(recipe))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in errors
    assert "interrupted: 2.9 M parameters" in errors and "from step 0" in errors
    assert f"of {STEPS}, all saved; the same command resumes" in errors
    assert 1 <= state_of(recipe)["step"] < STEPS
    train(recipe)
    assert_same_state(state_of(recipe), state_of(actions))


def test_a_killed_run_takes_the_same_steps_again(recordings, pretraining, actions, tmp_path):
    recipe = action_recipe(recordings, pretraining, tmp_path / "killed", save_every=STEPS // 2)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    command = [sys.executable, "-m", "qwen_vla", "train", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_while_running(process, lambda: logged_step(recipe) > STEPS // 2)
        process.kill()
    assert state_of(recipe)["step"] == STEPS // 2, "steps were taken that nobody saved"
    train(recipe)
    assert_same_state(state_of(recipe), state_of(actions))
    measured = ("samples_per_s", "data_wait_share")
    curves = [
        [{k: v for k, v in row.items() if k not in measured} for row in read_log(r.output)] for r in (recipe, actions)
    ]
    assert curves[0] == curves[1]


def logged_step(recipe):
    log = recipe.output / "log.jsonl"
    return max((row["step"] for row in read_log(recipe.output)), default=0) if log.is_file() else 0


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
    losses = pretraining.losses.model_dump()
    whole = recipe_for(recordings, tmp_path / "parts", ["snapshots"], steps=2, losses=losses, keep_every=1)
    train(whole, max_steps=1)
    assert state_of(whole)["step"] == 1
    (whole.output / "model/evaluation.json").write_text("mine")
    train(whole)
    assert_same_state(state_of(whole), state_of(pretraining))
    assert (whole.output / "model/evaluation.json").read_text() == "mine", "a new model replaces the run's files alone"
    train(whole)  # finished: nothing is left to do
    assert state_of(whole)["step"] == 2
    first, second, last = (whole.output / name / "model.safetensors" for name in ("step_1", "step_2", "model"))
    assert second.read_bytes() == last.read_bytes() != first.read_bytes()  # models are kept on the way


def test_two_signals_at_once_ask_and_a_later_one_ends(monkeypatch):
    """A job's end reaches a process from the scheduler and from torchrun."""
    with StopSignal() as stop:
        assert not stop.asked
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            signal.raise_signal(number)
        assert stop.asked
        monkeypatch.setattr(trainer, "IMPATIENCE", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_signals_are_handled_as_before_when_training_is_over(actions):
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("keep", [0, 100, -2000], ids=["empty", "beginning", "end missing"])
def test_a_damaged_state_is_named_with_the_way_out(run, tmp_path, monkeypatch, keep):
    whole = (run.recipe.output / STATE_FILE).read_bytes()
    monkeypatch.setattr(run, "recipe", run.recipe.model_copy(update={"output": tmp_path}))
    (tmp_path / STATE_FILE).write_bytes(whole[:keep])
    with pytest.raises(StateError, match=r"state.pt is corrupt or truncated \(\d+ bytes\); delete it to train from"):
        resume(run)


def test_another_recipe_does_not_continue_the_run(actions):
    other = {"batch_size": 4, "optimizer": {**actions.optimizer.model_dump(), "ema_decay": 0.5}}
    changed = Recipe.model_validate(actions.model_dump() | other)
    expected = r"other values of batch_size \(3 then, 4 now\), optimizer.ema_decay \(0.999 then, 0.5 now\); choose"
    with pytest.raises(RecipeError, match=expected):
        train(changed)


def test_a_finished_model_is_not_trained_over_by_another_recipe_even_without_its_state(pretraining, tmp_path):
    output = tmp_path / "copy"
    shutil.copytree(pretraining.output, output, ignore=shutil.ignore_patterns(STATE_FILE))
    same = pretraining.model_copy(update={"output": output})
    claim_as(same, pretraining)
    with pytest.raises(RecipeError, match=r"other values of steps \(2 then, 3 now\)"):
        claim(same.model_copy(update={"steps": 3}))


def claim_as(recipe, before):
    """Claim the copy of a run's folder, whose recipe names the original."""
    (recipe.output / "recipe.json").write_text(before.model_copy(update={"output": recipe.output}).model_dump_json())
    claim(recipe)


@pytest.mark.parametrize("name", ["model", "step_20"])
def test_a_folder_of_somebody_else_is_refused_before_training(pretraining, tmp_path, name):
    output = tmp_path / "mine"
    (output / name).mkdir(parents=True)
    (output / name / "thesis.txt").write_text("years of work")
    recipe = pretraining.model_copy(update={"output": output})
    with pytest.raises(OutputRefused, match="mine is not empty and was not made by train; choose another folder"):
        train(recipe)
    (output / "recipe.json").write_text(recipe.model_dump_json())
    with pytest.raises(OutputRefused, match=f"mine/{name} is not a model written by train; move it away"):
        train(recipe)
    assert (output / name / "thesis.txt").read_text() == "years of work"
    assert {path.name for path in output.iterdir()} == {name, "recipe.json"}


def test_the_model_that_training_starts_from_is_not_replaced(actions, pretraining):
    output = pretraining.output
    with pytest.raises(RecipeError, match="init_from: .*/model is in the output and would be replaced"):
        claim(actions.model_copy(update={"output": output, "init_from": output / "model"}))


def test_an_output_below_the_home_folder_may_be_written_with_a_tilde(actions, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = Recipe.model_validate(actions.model_dump() | {"output": "~/runs/mine"})
    assert recipe.output == tmp_path / "runs/mine"


def test_a_full_disk_is_said_in_one_line_and_the_run_goes_on_when_there_is_room(
    recordings, pretraining, actions, tmp_path
):
    recipe = action_recipe(recordings, pretraining, tmp_path / "full", save_every=STEPS // 2)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))

    command = [sys.executable, "-m", "qwen_vla.cli", "train", str(file)]
    failed = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True, timeout=120)
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    last = failed.stderr.strip().splitlines()[-1]
    expected = rf"qwen-vla: {recipe.output}/state.pt is larger than .* \(.*B free\); .*same command again"
    assert re.fullmatch(expected, last)
    assert not list(recipe.output.rglob("*.tmp")) and not (recipe.output / "model").exists()
    train(recipe)
    assert_same_state(state_of(recipe), state_of(actions))


def test_how_often_to_save_and_log_may_change(actions):
    claim(actions.model_copy(update={"save_every": 1, "log_every": 7, "validate_every": 3, "threads": 2}))


# ---------------------------------------------------------------------------------- batches
@pytest.fixture
def run(actions):
    """A prepared run of the action recipe, at step 0."""
    return prepare(actions)


def test_held_out_frames_are_never_trained_on(run):
    mixture = run.batches.mixture
    seen = [set() for _ in run.sources]
    for step in range(200):
        for row in mixture.plan(step):
            seen[row.source].add(row.index)
    for source, indices in zip(run.sources, seen, strict=True):
        assert len(source.held_out) and not indices & set(source.held_out.tolist())
        assert indices <= set(source.training.tolist()) and len(indices) > 0.8 * len(source.training)


def test_statistics_come_from_training_frames_alone(run):
    source = run.sources[0]
    quantiles = run.processor.normalization["widowx"]
    chunks = np.stack([source.chunk(index) for index in source.training])
    expected = np.quantile(chunks.reshape(-1, 7).astype(float), [0.01, 0.99], axis=0)
    np.testing.assert_allclose(np.stack([quantiles.q01, quantiles.q99])[:, [0, 1, 2, 6]], expected[:, [0, 1, 2, 6]])


def leaves_of(batch):
    grounding = [] if batch.grounding is None else list(vars(batch.grounding).values())
    return [*batch.inputs.values(), batch.tau, batch.noise, *grounding]


def batches_of(run, **changes):
    """The run's batches for another process."""
    batches = run.batches
    fields = {"horizon": batches.horizon, "noise_draws": batches.noise_draws} | changes
    return Batches(batches.mixture, batches.processor, batches.config, **fields)


def test_batches_depend_on_seed_and_step_alone(run):
    one, other = batches_of(run), batches_of(run)
    for step in (5, 0, 3, 8):
        (first,), (same,) = one[step], other[step]
        for found, expected in zip(leaves_of(first), leaves_of(same), strict=True):
            assert found is expected is None or torch.equal(found, expected)
    assert not torch.equal(one[0][0].noise, one[1][0].noise)


def test_processes_and_parts_divide_the_global_batch_between_them(run):
    (whole,) = batches_of(run)[4]
    mask = whole.inputs["attention_mask"].bool()
    texts = [ids[valid].tolist() for ids, valid in zip(whole.inputs["input_ids"], mask, strict=True)]
    tokens = run.model.config.tokens_per_image
    for processes, accumulate in ((3, 1), (1, 3), (1, 2)):
        parts = [
            part
            for process in range(processes)
            for part in batches_of(run, processes=processes, accumulate=accumulate, process=process)[4]
        ]
        rows = [
            ids[valid].tolist()
            for part in parts
            for ids, valid in zip(part.inputs["input_ids"], part.inputs["attention_mask"].bool(), strict=True)
        ]
        assert sorted(rows) == sorted(texts)
        noise = torch.cat([part.noise for part in parts if part.noise is not None])
        assert all(any(torch.equal(row, other) for other in whole.noise) for row in noise)
        for name, count in whole.counts(tokens).items():
            assert sum(part.counts(tokens).get(name, 0) for part in parts) == count


def test_every_source_is_dealt_out_evenly(run):
    plan = run.batches.mixture.plan(4)
    dealt = batches_of(run, processes=2)._dealt(plan)
    assert sorted(dealt[0] + dealt[1]) == list(range(len(plan)))
    for source in {row.source for row in plan}:
        first, second = (sum(plan[i].source == source for i in part) for part in dealt)
        assert abs(first - second) <= 1


def test_counts_are_those_that_the_model_counts(run):
    (batch,) = batches_of(run)[4]
    encoding = run.model.encode(**batch.inputs)
    counts = batch.counts(run.model.config.tokens_per_image)
    terms = run.model.action_terms(
        encoding, batch.inputs["actions"], batch.inputs["action_mask"], batch.tau, batch.noise, run.recipe.noise_draws
    )
    assert counts["action"] == terms.counted
    assert counts["language"] == run.model.language_terms(encoding, batch.inputs["labels"]).counted


def test_a_batch_that_is_slow_to_make_is_waited_for_and_counted(run):
    class Slow:
        def __getitem__(self, step):
            threading.Event().wait(0.05)
            return [step]

    with Prefetch(Slow(), 3, 6) as prefetch:
        assert [prefetch.take(step) for step in (3, 4, 5)] == [[3], [4], [5]]
    assert 0.1 < prefetch.waited < 5


def test_an_error_in_the_data_reaches_the_trainer(run):
    class Broken:
        def __getitem__(self, step):
            raise ValueError("row 7 is broken")

    with Prefetch(Broken(), 0, 5) as prefetch, pytest.raises(ValueError, match="row 7 is broken"):
        prefetch.take(0)


def test_a_recipe_that_would_learn_nothing_from_its_data_is_refused(recordings, tmp_path):
    losses = {"action": 1.0, "language": 0.1, "grounding": 0.0}
    with pytest.raises(RecipeError, match="snapshots would have no loss, it is for losses.grounding"):
        prepare(recipe_for(recordings, tmp_path / "x", ["demonstrations", "snapshots"], losses=losses))


def test_data_that_are_all_held_out_are_refused(recordings, tmp_path):
    with pytest.raises(ValueError, match="4 in all, 4 held out, none left to train on"):
        prepare(recipe_for(recordings, tmp_path / "x", ["demonstrations"], held_out_share=0.95))


# --------------------------------------------------------------------------- several processes
TWO_PROCESSES = """
import json, sys, torch
from pathlib import Path
from qwen_vla.training import trainer
from qwen_vla.training.recipe import Recipe
from qwen_vla.training.run import export, prepare
from qwen_vla.training.state import resume, save

torch.set_num_threads(1)
torch.manual_seed(0)
recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
recipe.output.mkdir(exist_ok=True, parents=True)
run = prepare(recipe)
resume(run)
rows = []
while run.step < int(sys.argv[2]):
    rows.append(trainer.training_step(run, run.batches[run.step]))
    run.step += 1
save(run)
export(run)
measured = trainer.validate(run)
if run.accelerator.is_main_process:
    (recipe.output / "rows.json").write_text(json.dumps([rows, run.accelerator.num_processes, measured]))
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch(recipe, folder, processes, steps=2, nodes=1) -> list[dict]:
    """Take steps in that many processes, below one agent of torchrun or more; the losses that the main one saw."""
    file, script = folder / "recipe.json", folder / "steps.py"
    file.write_text(recipe.model_dump_json())
    script.write_text(TWO_PROCESSES)
    meeting = (
        ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"] if nodes > 1 else ["--standalone"]
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(nodes), *meeting]
    command += ["--nproc-per-node", str(processes // nodes), script, file, str(steps)]
    agents = [subprocess.Popen(command) for _ in range(nodes)]
    assert [agent.wait(500) for agent in agents] == [0] * nodes
    rows, found, measured = json.loads((recipe.output / "rows.json").read_text())
    assert found == processes and len(measured) >= 3
    return rows


def assert_same_run(recipe, other, rows, other_rows):
    """Equal up to the order in which numbers were added up."""
    for one, two in zip(rows, other_rows, strict=True):
        assert one == pytest.approx(two, rel=2e-4)
    one, two = (state_of(r)["learner"] for r in (recipe, other))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=3e-5, msg=lambda text, n=name: f"{n}: {text}")


def alone(recipe, steps=2) -> list[dict]:
    """The same in this process."""
    torch.manual_seed(0)
    recipe.output.mkdir(exist_ok=True)
    run = prepare(recipe)
    resume(run)
    rows = []
    while run.step < steps:
        rows.append(training_step(run, run.batches[run.step]))
        run.step += 1
    save(run)
    return rows


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", [False, True], ids=["DDP", "FSDP"])
def test_two_processes_train_as_one_does(recordings, pretraining, tmp_path, shard):
    # In float32 and with small steps: Adam's first ones turn rounding errors of tiny gradients into whole steps.
    changes = {"autocast": "no", "batch_size": 5, "optimizer": {**OPTIMIZER, "warmup_steps": 100}}
    one = action_recipe(recordings, pretraining, tmp_path / "one", **changes)
    two = action_recipe(recordings, pretraining, tmp_path / "two", **changes, accumulate=2, shard=shard)
    rows = alone(one), launch(two, tmp_path, 2)
    assert_same_run(one, two, *rows)
    # And on from there by one process: what two of them saved is whole.
    alone(two, steps=3)
    assert state_of(two)["step"] == 3
    assert Policy.from_pretrained(two.output / "model").camera_tags == ("ego", "cam_wrist")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_machines_train_as_one_does(recordings, pretraining, tmp_path):
    changes = {"autocast": "no", "batch_size": 5, "optimizer": {**OPTIMIZER, "warmup_steps": 100}}
    one = action_recipe(recordings, pretraining, tmp_path / "one", **changes)
    two = action_recipe(recordings, pretraining, tmp_path / "two", **changes)
    assert_same_run(one, two, alone(one), launch(two, tmp_path, 2, nodes=2))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_of_two_processes_ends_complete(recordings, pretraining, tmp_path):
    recipe = action_recipe(recordings, pretraining, tmp_path / "pair", steps=2)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    subprocess.run([*command, "-m", "qwen_vla", "train", str(file)], check=True, timeout=500)
    assert state_of(recipe)["step"] == 2
    assert [row["step"] for row in read_log(recipe.output) if "gradient_norm" in row] == [1, 2]
    assert Policy.from_pretrained(recipe.output / "model").camera_tags == ("ego", "cam_wrist")
