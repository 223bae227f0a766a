# SPDX-License-Identifier: Apache-2.0
"""A policy plays first and the expert goes on from where that ended; the same for the same seed."""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from embodiment_descriptions import resource_path
from qwen_vla.data.collect import collect
from qwen_vla.data.collection import Collection
from qwen_vla.data.formats.lerobot import LeRobotReader
from qwen_vla.data.robot.intervention import PolicyLead
from qwen_vla.suites import load_suite
from qwen_vla_control.reasons import Reason

TINY = resource_path("checkpoints/tiny")
SUITE = "widowx"


@pytest.fixture(scope="module")
def suite():
    return load_suite(SUITE)


@pytest.fixture(scope="module")
def env(suite):
    env = suite.make_env()
    yield env
    env.close()


@pytest.fixture(scope="module")
def lead(suite):
    return PolicyLead(suite, TINY)


def test_the_seed_decides_how_long_and_how_it_plays(env, lead):
    ends = []
    for seed in (1_500_000, 1_500_001, 1_500_000):
        observation, info = lead.play(seed, env, *env.reset(seed=1_500_000))
        ends.append((env.steps, observation["joints"]))
        assert 0 < env.steps <= 0.7 * env.max_steps
        assert observation["images"] or info["success"]
    assert ends[0][0] == ends[2][0] and (ends[0][1] == ends[2][1]).all()
    assert np.abs(ends[0][1] - ends[1][1]).max() > 0.01


def test_it_counts_why_chunks_of_the_policy_were_refused(suite, env, lead, monkeypatch):
    infer = lead._policy.infer
    monkeypatch.setattr(lead._policy, "infer", lambda seen, seed: replace(infer(seen, seed), embodiment="another"))
    monkeypatch.setattr(lead, "refusals", Counter())
    lead.play(1_500_000, env, *env.reset(seed=1_500_000))
    chunks = env.steps / lead._policy.embodiment.execution_horizon
    assert lead.refusals == {"WRONG_EMBODIMENT": chunks} and chunks > 0


def test_the_expert_begins_where_the_policy_ended(suite, env, lead):
    ended = {}

    def noted(seed, *begin):
        observation, info = lead.play(seed, *begin)
        ended["joints"] = observation["joints"].copy()
        return observation, info

    for seed in range(1_500_000, 1_500_010):  # some scenes the policy does by itself
        _, frames, success = suite.demonstrate(env, seed, lead=partial(noted, seed))
        if success:
            break
    assert success and (frames["observation.state"][0] == ended["joints"]).all()


@pytest.mark.parametrize("name", ["widowx", "aloha", "mobile_base"])
def test_when_the_policy_has_done_it_there_is_nothing_to_show(name):
    suite = load_suite(name)
    env = suite.make_env(cameras=False)
    _, frames, success = suite.demonstrate(env, 1, lead=lambda _env, seen, info: (seen, info | {"success": True}))
    assert frames == {} and not success
    env.close()


def test_takeovers_are_a_data_set_that_says_who_played(tmp_path):
    options = Collection(SUITE, tmp_path / "data", 2, 1_500_000, takeover_from=TINY)
    summary = collect(options)
    assert summary["episodes"] >= 1 and set(summary["refusals"]) <= set(Reason.__members__)
    reader = LeRobotReader(tmp_path / "data")
    home = list(load_suite(SUITE).embodiment.home.values())
    starts = np.stack([reader.frames["observation.state"][first] for first, _ in reader.episodes])
    assert np.abs(starts - home).max(axis=1).min() > 0.01
    with pytest.raises(ValueError, match="takeover_from"):  # not mixed with demonstrations from the usual starts
        collect(Collection(SUITE, tmp_path / "data", 2, 1_500_000))


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="snapshot"):
        collect(Collection(SUITE, tmp_path / "data", 2, kind="snapshots", takeover_from=TINY))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        collect(Collection(SUITE, tmp_path / "data", 2, takeover_from=tmp_path / "nowhere"))
    assert not (tmp_path / "data").exists()
