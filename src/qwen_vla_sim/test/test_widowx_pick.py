"""The scripted expert picks the named cube from wherever it is asked to, and its recordings are well formed."""

import gymnasium
import numpy as np
import pytest

from qwen_vla_sim.widowx.suite import WidowXPickSuite


@pytest.fixture(scope="module")
def suite():
    return WidowXPickSuite()


def success_rate(suite, seeds, monkeypatch):
    monkeypatch.setattr(suite, "_record", lambda *arguments: None)  # labels need the cameras; only the outcome counts
    env = suite.make_env(cameras=False)
    return np.mean([suite.demonstrate(env, seed)[2] for seed in seeds])


def test_expert_succeeds(suite, monkeypatch):
    assert success_rate(suite, range(9000, 9010), monkeypatch) >= 0.9


@pytest.mark.slow
def test_expert_succeeds_in_98_percent_of_200_scenes(suite, monkeypatch):
    assert success_rate(suite, range(9000, 9200), monkeypatch) >= 0.98


def test_a_recording_has_every_feature_in_its_declared_shape(suite):
    env = suite.make_env()
    task, frames, success = suite.demonstrate(env, 9300)
    env.close()
    assert success and task == env.world.instruction
    length = len(frames["action"])
    assert length > 5
    for name, (dtype, shape, _) in suite.features().items():
        rows = np.asarray(frames[name])
        assert rows.shape in {(length, *shape), (length,)}, name
        assert rows.dtype == (np.uint8 if dtype == "image" else rows.dtype)
    assert np.linalg.norm(frames["action"][:, 3:7], axis=1) == pytest.approx(1.0, abs=1e-5)
    assert frames["action"][-1, 7] == 0.0, "the last action keeps the gripper closed"


def test_the_same_seed_gives_the_same_recording(suite):
    env = suite.make_env()
    first, again = (suite.snapshot(env, 9301)[1] for _ in range(2))
    env.close()
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])


def test_environment_follows_the_gymnasium_interface(suite):
    env = suite.make_env()
    observation, info = env.reset(seed=9302)
    assert env.observation_space.contains(observation)
    assert isinstance(env, gymnasium.Env)
    observation, reward, terminated, truncated, info = env.step(observation["joints"])
    assert env.observation_space.contains(observation)
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert set(observation["images"]) == {"ego", "cam_wrist"}
    env.close()


def test_naming_another_cube_changes_only_the_colour(suite):
    env = suite.make_env(cameras=False)
    env.reset(seed=9303)
    other = suite.other_instruction(env, 9303)
    scene = env.world.scene
    assert scene.named.colour not in other.split()
    assert any(cube.colour in other.split() for cube in scene.things)


def test_a_chunk_that_leads_into_the_table_is_refused(suite):
    observation = {"joints": suite.tool.home}
    down = np.zeros((16, 7))
    down[:, 0] = np.linspace(0.01, 0.16, 16)  # the tool's x axis points down
    assert suite.plan(down, observation).shape == (16, 7)
    down[:, 0] = np.linspace(0.01, 0.21, 16)  # home is 0.20 m above the table
    with pytest.raises(ValueError, match="outside the workspace"):
        suite.plan(down, observation)
    down[:, 0], down[:, 1] = 0.0, 0.25
    with pytest.raises(ValueError, match="speed limit"):
        suite.plan(down, observation)
