"""Evaluation: its arithmetic, what it shows to the policy and how it judges, and seeds that prove nothing."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla import ActionChunk
from qwen_vla.evaluation.episode import MAX_REFUSALS, run_episode
from qwen_vla.evaluation.in_process import refuse_trained_seeds
from qwen_vla.evaluation.intervals import wilson_interval
from qwen_vla.evaluation.summary import EpisodeRow, summarize
from qwen_vla.suites import load_suite


def test_wilson_interval_of_a_published_example():
    low, high = wilson_interval(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert low == pytest.approx(0.2553, abs=5e-5) and high == pytest.approx(0.3662, abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_rate(case):
    successes, trials = case
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0


def row(seed, success):
    return EpisodeRow(seed, "lift the red cube", "red cube", success, 3, 0, 4.8, 0.02, "success", 50.0)


def test_summary_counts_and_keeps_every_row():
    summary = summarize("widowx_pick", 7000, [row(7000, True), row(7001, False)], blind=False)
    assert (summary["episodes"], summary["successes"], summary["success_rate"]) == (2, 1, 0.5)
    assert [r["seed"] for r in summary["rows"]] == [7000, 7001]
    assert json.loads(json.dumps(summary)) == summary


def test_seeds_of_the_training_data_are_refused(tmp_path):
    (tmp_path / "training.json").write_text(json.dumps({"data": [{"seeds": [100, 200]}]}))
    refuse_trained_seeds(tmp_path, 200, 50)
    with pytest.raises(ValueError, match="overlap with the training data"):
        refuse_trained_seeds(tmp_path, 190, 20)


class ConstantPolicy:
    """The simplest policy there is: always the same delta of the gripper. It keeps what it was shown."""

    def __init__(self, delta):
        self.delta, self.shown = delta, []

    def infer(self, observation, seed=None):
        self.shown.append(observation)
        data = np.tile(np.float32([*self.delta, 0, 0, 0, 1]), (16, 1))
        names = ("x", "y", "z", "rx", "ry", "rz", "gripper")
        latency = {"total": 12.0}
        return ActionChunk(data, names, 0.2, "eef_delta", "widowx", observation.instruction, 0, latency, 8)


@pytest.fixture(scope="module")
def suite():
    return load_suite("widowx_pick")


@pytest.fixture(scope="module")
def env(suite):
    env = suite.make_env()
    yield env
    env.close()


def play(suite, env, policy, seed=7000, **conditions):
    return run_episode(suite, env, policy, seed, **conditions)


def test_a_policy_that_stays_where_it_is_reaches_the_step_limit(suite, env):
    policy = ConstantPolicy((0, 0, 0))
    row = play(suite, env, policy)
    assert (row.success, row.ended, row.refused) == (False, "step limit", 0)
    assert row.chunks == len(policy.shown) == suite.max_steps / 8, "eight steps of every chunk are executed"
    assert row.seconds == pytest.approx(suite.max_steps * 0.2) and row.latency_ms_p50 == 12.0
    assert row.target.split()[0] in row.instruction.split() and policy.shown[0].instruction == row.instruction
    assert all(image.shape == (240, 320, 3) and image.any() for image in policy.shown[0].images.values())


def test_chunks_out_of_reach_end_the_episode(suite, env):
    row = play(suite, env, ConstantPolicy((5.0, 0, 0)))
    assert (row.success, row.ended, row.refused, row.chunks) == (False, "refused too often", MAX_REFUSALS, MAX_REFUSALS)


def test_blind_shows_black_images_and_nothing_else_changes(suite, env):
    policy = ConstantPolicy((5.0, 0, 0))
    row = play(suite, env, policy, blind=True)
    assert set(policy.shown[0].images) == {"ego", "cam_wrist"}
    assert all(image.shape == (240, 320, 3) and not image.any() for o in policy.shown for image in o.images.values())
    assert row.instruction == play(suite, env, ConstantPolicy((5.0, 0, 0))).instruction


@pytest.mark.parametrize("seed", range(7000, 7003))
def test_shuffled_instructions_name_another_cube_but_the_first_one_is_judged(suite, env, seed):
    true = play(suite, env, ConstantPolicy((5.0, 0, 0)), seed)
    policy = ConstantPolicy((5.0, 0, 0))
    row = play(suite, env, policy, seed, shuffle_instructions=True)
    named = true.target.removesuffix(" cube")
    others = {cube.colour for cube in env.world.scene.cubes} - {named}
    assert row.target == true.target and row.distance == true.distance
    assert {policy.shown[0].instruction.replace(other, named) for other in others} >= {true.instruction}
    assert named not in policy.shown[0].instruction.split()
