# SPDX-License-Identifier: Apache-2.0
"""PPO by several processes: the same run as that of one, up to rounding, as copies (DDP) and as shards (FSDP)."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import walk_process

from qwen_vla import Policy, QwenVLAModel, QwenVLAProcessor
from qwen_vla.output_files import write_json
from qwen_vla.training.output_folder import STATE_FILE
from qwen_vla.training.progress.log import read_log
from qwen_vla.training.recipe import RecipeError
from qwen_vla.training.reinforcement import run, trainer
from qwen_vla.training.reinforcement.recipe import ReinforcementRecipe

SCRIPT = Path(walk_process.__file__)


@pytest.fixture
def recipe(checkpoint, tmp_path, monkeypatch):
    """Two updates of five episodes in three simulators: minibatches and simulators that two processes cannot halve."""
    monkeypatch.setattr(trainer, "parallel_envs", walk_process.walks)
    start = tmp_path / "start"
    model = Policy.from_pretrained(checkpoint, accelerate="off").model
    processor = QwenVLAProcessor.from_pretrained(checkpoint)
    processor.embodiments = {n: replace(e, camera_tags=()) for n, e in processor.embodiments.items()}
    model.save_pretrained(start)
    processor.save_pretrained(start)
    write_json(start / "training.json", {"data": []})
    fields = {"stage": "rl", "name": "walk", "output": tmp_path / "one", "init_from": start, "suite": "widowx_pick"}
    sizes = {"steps": 3, "episodes": 5, "environments": 3, "save_every": 1, "validation": {"every": 1, "episodes": 5}}
    # Small steps: Adam's first ones turn rounding errors of tiny gradients into whole steps.
    return ReinforcementRecipe.model_validate(fields | sizes | {"ppo": {"actor_lr": 1e-5, "minibatch": 4, "epochs": 2}})


def launch(recipe, folder, processes, steps, stopping_scene=None) -> subprocess.CompletedProcess:
    """Train in that many processes; the one that starts the stopping scene gets SIGTERM there, it alone."""
    file = folder / "recipe.json"
    file.write_text(recipe.model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    arguments = [SCRIPT, file, str(steps), *([] if stopping_scene is None else [str(stopping_scene)])]
    ended = subprocess.run([*command, *arguments], timeout=500, capture_output=True, text=True)
    assert f"by {processes} process(es)" in ended.stderr, ended.stderr[-3000:]
    return ended


def alone(recipe, steps):
    """The same in this process."""
    trainer.train(recipe, max_steps=steps)
    return recipe


def moved(output, start) -> torch.Tensor:
    """How far every weight of the model in the output has moved."""
    before, after = (QwenVLAModel.from_pretrained(folder).state_dict() for folder in (start, output / "model"))
    return torch.cat([(after[name] - weight).flatten() for name, weight in before.items()])


def assert_same_run(one, other, updates):
    """Equal up to the order in which numbers were added up: every logged figure, and every weight."""
    rows = [read_log(r.output) for r in (one, other)]
    assert len(rows[0]) == len(rows[1]) == 2 * updates + 1, "validated before the first and after each, and the updates"
    for ours, theirs in zip(*rows, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"time", "seconds/roll_out", "seconds/update"}:
            assert theirs[name] == pytest.approx(ours[name], rel=2e-3, abs=1e-6), name
    assert any(row.get("success") not in (None, 0.0, 1.0) for row in rows[0]), "advantages differ"
    ours, theirs = (moved(r.output, r.init_from) for r in (one, other))
    assert ours.abs().max() > 1e-5
    assert (ours - theirs).norm() < 0.02 * ours.norm()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", [False, True], ids=["DDP", "FSDP"])
def test_two_processes_learn_what_one_learns(recipe, tmp_path, shard):
    two = recipe.model_copy(update={"output": tmp_path / "two", "shard": shard})
    ended = launch(two, tmp_path, 2, steps=2)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_same_run(alone(recipe, steps=2), two, updates=2)
    # And on from there by one process: what two of them saved is whole.
    trainer.train(two)
    assert torch.load(two.output / STATE_FILE, weights_only=True)["step"] == 3


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shard", [False, True], ids=["DDP", "FSDP"])
def test_a_stop_of_one_process_stops_all_at_the_same_step_and_both_resume(recipe, tmp_path, shard):
    two = recipe.model_copy(update={"output": tmp_path / "two", "shard": shard})
    second_process_in_second_update = recipe.first_scene + recipe.episodes + 1
    stopped = launch(two, tmp_path, 2, steps=2, stopping_scene=second_process_in_second_update)
    assert stopped.returncode != 0
    assert "TrainingStopped: stopped at step 1 of 2, all saved" in stopped.stderr, stopped.stderr[-3000:]
    assert torch.load(two.output / STATE_FILE, weights_only=True)["step"] == 1
    resumed = launch(two, tmp_path, 2, steps=2)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert_same_run(alone(recipe, steps=2), two, updates=2)


def test_every_process_needs_an_episode_and_a_simulator(recipe):
    for name in ("episodes", "environments", "validation.episodes"):
        wider = {"episodes": 9, "environments": 9, "validation": {"episodes": 9}}
        narrow = {"validation": {"episodes": 2}} if "." in name else {name: 2}
        changed = ReinforcementRecipe.model_validate({**recipe.model_dump(), **wider, **narrow})
        with pytest.raises(RecipeError, match=f"{name} 2 is less than one for each of 3 processes"):
            run._check_parts(changed, 3)


def test_shards_of_4_bit_weights_are_refused(recipe):
    changes = {"shard": True, "autocast": "bf16", "lora": {"quantize": "nf4"}}
    with pytest.raises(ValueError, match=r"lora.quantize needs whole matrices: shard must be false"):
        ReinforcementRecipe.model_validate({**recipe.model_dump(), **changes})
