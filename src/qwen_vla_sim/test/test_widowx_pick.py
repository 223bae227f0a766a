# SPDX-License-Identifier: Apache-2.0
"""The scripted expert picks the named cube from any start, and its recordings are well formed."""

import gymnasium
import numpy as np
import pytest

from qwen_vla_control.chunk import Chunk
from qwen_vla_control.reasons import Reason, Refused
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


def test_naming_another_cube_changes_only_the_color(suite):
    env = suite.make_env(cameras=False)
    env.reset(seed=9303)
    other = suite.other_instruction(env, 9303)
    scene = env.world.scene
    assert scene.named.color not in other.split()
    assert any(cube.color in other.split() for cube in scene.things)


def planned(suite, rows):
    """The actions of a chunk at home, of which the first eight rows are executed."""
    return suite.plan(Chunk.of_rows(suite.embodiment, rows, 8), {"joints": suite.tool.home})


def test_a_chunk_is_executed_for_its_execution_horizon_and_the_gripper_follows_as_fast_as_it_can(suite):
    rows = np.zeros((16, 7))
    rows[:, 0] = np.linspace(0.01, 0.16, 16)  # the tool's x axis points down
    actions = planned(suite, rows)
    assert actions.shape == (8, 7)
    tip = suite.tool.kinematics.forward(actions[-1, :6])
    np.testing.assert_allclose(tip[:3, 3], suite.tool.home_pose[:3, 3] - [0, 0, rows[7, 0]], atol=1e-3)
    finger = suite.embodiment.joint_names[-1]
    fastest = suite.embodiment.limits[finger].velocity * suite.embodiment.period
    assert np.abs(np.diff([suite.tool.home[-1], *actions[:, 6]])).max() <= fastest


def test_a_chunk_that_leads_into_the_table_or_is_too_fast_is_refused(suite):
    rows = np.zeros((16, 7))
    rows[:, 0] = np.linspace(0.01, 0.21, 16)  # home is 0.20 m above the table
    with pytest.raises(Refused) as refused:
        planned(suite, rows)
    assert refused.value.reasons == (Reason.OUT_OF_WORKSPACE,)
    rows[:, 0], rows[:, 1] = 0.0, 0.25
    with pytest.raises(Refused) as refused:
        planned(suite, rows)
    assert {Reason.VELOCITY_LIMIT, Reason.START_JUMP} <= set(refused.value.reasons)


def test_a_chunk_in_which_the_arm_would_touch_itself_is_refused(suite):
    start, turn = suite.tool.home.copy(), np.zeros((16, 7))
    start[1:3] = -1.5, 1.5  # shoulder and elbow: the gripper is folded back to the base
    turn[:, 3] = np.linspace(0.03, 0.45, 16)
    with pytest.raises(Refused) as refused:
        suite.plan(Chunk.of_rows(suite.embodiment, turn, 8), {"joints": start})
    assert refused.value.reasons == (Reason.SELF_COLLISION,)


def test_holding_keeps_the_fingers_closed_on_what_they_hold(suite):
    env = suite.make_env(cameras=False)
    observation, _ = env.reset(seed=9304)
    command = suite.tool.home.copy()
    command[-1] = suite.embodiment.arms[0].gripper.closed
    observation = env.step(command)[0]
    np.testing.assert_allclose(suite.hold(observation), command, atol=1e-6)
