# SPDX-License-Identifier: Apache-2.0
"""Roll-outs in the real suite: what a chunk does there, and an update of the shipped checkpoint."""

import numpy as np
import pytest
import torch

from embodiment_descriptions import resource_path
from qwen_vla import Policy
from qwen_vla.evaluation.episode import MAX_REFUSALS
from qwen_vla.suites import load_suite
from qwen_vla.training.progress.log import read_log
from qwen_vla.training.recipe_files import load_recipe
from qwen_vla.training.reinforcement import train
from qwen_vla.training.reinforcement.chunk_env import ChunkEnv

EXECUTED = 3


@pytest.fixture(scope="module")
def env():
    env = ChunkEnv(load_suite("widowx_pick"), (16, 7), EXECUTED)
    yield env
    env.close()


def constant(*tip) -> np.ndarray:
    """A chunk whose every step is the same displacement of the tip [m], gripper open."""
    return np.tile(np.float32([*tip, 0, 0, 0, 1]), (16, 1))


def test_a_chunk_moves_the_arm_for_its_executed_steps_and_ends_with_a_fresh_look(env):
    before, info = env.reset(seed=3_000_000)
    assert "cube" in info["instruction"] or "block" in info["instruction"]
    after, reward, terminated, truncated, info = env.step(constant(0, 0, -0.03))
    assert env.env.steps == EXECUTED and (reward, terminated, truncated, info["refused"]) == (0, False, False, False)
    assert np.abs(after["joints"] - before["joints"]).max() > 0.02
    looked = env.env.render()
    assert np.array_equal(after["images"]["ego"], looked) and not np.array_equal(before["images"]["ego"], looked)


def test_a_refused_chunk_moves_nothing_takes_its_time_and_too_many_end_the_episode(env):
    before, _ = env.reset(seed=3_000_001)
    for number in range(1, MAX_REFUSALS + 1):
        after, reward, terminated, truncated, info = env.step(constant(5, 0, 0))
        assert (reward, terminated, info["refused"]) == (0.0, False, True) and truncated == (number == MAX_REFUSALS)
        assert env.env.steps == number * EXECUTED
        assert info["reasons"] == "UNREACHABLE"
    assert np.abs(after["joints"] - before["joints"]).max() < 0.01


def test_no_chunk_does_nothing(env):
    before, _ = env.reset(seed=3_000_002)
    after, reward, terminated, truncated, _ = env.step(np.full((16, 7), np.nan, np.float32))
    assert after is before and env.env.steps == 0 and not (reward or terminated or truncated)


def test_the_shipped_recipe_trains_the_shipped_checkpoint_in_parallel_simulators(tmp_path, monkeypatch):
    monkeypatch.chdir(resource_path("checkpoints/tiny").parents[1])
    recipe = load_recipe(resource_path("config/training/rl_tiny.yaml"))
    sizes = {"episodes": 2, "environments": 2, "validation": None, "output": tmp_path / "run"}
    folder = train(recipe.model_copy(update=sizes), max_steps=1)
    (row,) = read_log(tmp_path / "run")
    assert row["step"] == 1 and 0 <= row["success"] <= 1 and 1 <= row["chunks"] <= 10 and np.isfinite(row["kl"])
    moved = Policy.from_pretrained(folder, embodiment="widowx").model.state_dict()
    before = Policy.from_pretrained(recipe.init_from, embodiment="widowx").model.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in moved.items())
