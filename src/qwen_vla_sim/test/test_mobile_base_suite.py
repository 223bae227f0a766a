"""The suite of the base: its expert, what it records, and which chunks it refuses."""

import numpy as np
import pytest

from qwen_vla_sim.mobile_base.expert import SEARCH, SPEED, TURN, Expert
from qwen_vla_sim.mobile_base.scene import in_hall, sample_scene
from qwen_vla_sim.mobile_base.suite import (
    EXECUTED,
    NAMES,
    OFF_WALL,
    POINTS,
    MobileBaseSuite,
    any_start,
    disturbed_start,
)

SHORT = 9  # seed: go to a thing near by


@pytest.fixture(scope="module")
def suite():
    return MobileBaseSuite()


@pytest.fixture(scope="module")
def env(suite):
    env = suite.make_env()
    yield env
    env.close()


def drive(suite, env, observation, rows):
    for action in suite.plan(rows, observation)[:EXECUTED]:
        observation, _, success, _, info = env.step(action)
    return observation, info


def test_waypoints_are_driven_one_from_another(suite, env):
    """Ahead, a turn on the spot, ahead: as the odometry and the world see it."""
    observation, _ = env.reset(seed=SHORT, options={"pose": (-1.4, 0.0, 0.3)})
    rows = np.array(
        [[0.1, 0, 0], [0.1, 0, 0], [0, 0, 0.4], [0, 0, 0.4], [0.1, 0, 0], [0.1, 0, 0], [0, 0, 0], [0, 0, 0]]
    )
    observation, _ = drive(suite, env, observation, rows)
    np.testing.assert_allclose(observation["pose"], [0.2, 0.0, 0.8], atol=0.02)
    observation, info = drive(suite, env, observation, rows[EXECUTED:])
    np.testing.assert_allclose(observation["pose"], [0.2 + 0.2 * np.cos(0.8), 0.2 * np.sin(0.8), 0.8], atol=0.03)
    start, moved = np.array([-1.4, 0.0, 0.3]), observation["pose"].astype(float)
    c, s = np.cos(0.3), np.sin(0.3)
    expected = start + [c * moved[0] - s * moved[1], s * moved[0] + c * moved[1], moved[2]]
    np.testing.assert_allclose(info["true_pose"], expected, atol=0.01)


@pytest.mark.parametrize(
    "row, column, value, why",
    [
        (0, 0, 0.14, r"waypoint 0: the base would drive at 0\.280 m/s, its limit is 0\.26"),
        (5, 0, -0.2, r"waypoint 5: the base would drive at 0\.400 m/s"),
        (2, 2, 0.95, r"waypoint 2: the base would turn at 1\.900 rad/s, its limit is 1\.82"),
        (7, 1, np.nan, "NaN"),
    ],
)
def test_a_chunk_beyond_the_limits_is_refused_whole(suite, env, row, column, value, why):
    observation, _ = env.reset(seed=SHORT)
    rows = np.tile([0.1, 0.0, 0.0], (8, 1))
    suite.plan(rows, observation)
    rows[row, column] = value
    with pytest.raises(ValueError, match=why):
        suite.plan(rows, observation)


def test_to_hold_is_to_stay(suite, env):
    observation, info = env.reset(seed=SHORT)
    before = info["true_pose"]
    for _ in range(3):
        observation, _, _, _, info = env.step(suite.hold(observation))
    np.testing.assert_allclose(info["true_pose"], before, atol=1e-3)


def test_the_expert_turns_to_the_left_until_it_sees_what_it_needs():
    scene = sample_scene(SHORT)
    expert = Expert(scene, 8, 0.5)
    blind = expert.plan(np.array(scene.start), lambda index: False)
    assert blind.phase == "search"
    np.testing.assert_allclose(blind.rows, np.tile([0, 0, SEARCH / 2], (8, 1)))
    thing = scene.things[scene.target]
    heading = np.arctan2(thing.y - scene.start[1], thing.x - scene.start[0])
    seeing = expert.plan(np.array([*scene.start[:2], heading]), lambda index: index == scene.target)
    assert seeing.phase == "drive" and seeing.goal == scene.target
    assert seeing.rows[:4, 0].min() > 0.05


def test_the_expert_keeps_well_below_the_limits():
    rng = np.random.default_rng(0)
    for seed in range(9):
        scene = sample_scene(seed)
        for _ in range(5):
            rows = Expert(scene, 8, 0.5).plan(disturbed_start(scene, rng), lambda index: True).rows
            assert np.hypot(rows[:, 0], rows[:, 1]).max() <= SPEED / 2 + 1e-6
            assert np.abs(rows[:, 2]).max() <= max(SEARCH, TURN) / 2 + 1e-6


def test_of_two_legs_the_room_decides_which_one_it_is():
    scene = sample_scene(2)
    expert = Expert(scene, 8, 0.5)
    assert expert.plan(np.array([-1.0, scene.door, 0.0]), lambda index: True).goal is None
    assert expert.plan(np.array([1.0, scene.door, 0.0]), lambda index: False).goal == scene.target
    leaving = Expert(sample_scene(1), 8, 0.5)
    assert leaving.plan(np.array([0.8, scene.door, 1.0]), lambda index: False).phase == "stop"


@pytest.mark.parametrize("seed", [SHORT, 1, 2])
def test_a_demonstration_succeeds_and_can_be_learned_from(suite, env, seed):
    sentence, frames, success = suite.demonstrate(env, seed)
    assert success and sentence == sample_scene(seed).instruction
    features = suite.features()
    assert set(frames) == set(features)
    count = len(frames["action"])
    for name, (_, shape, _) in features.items():
        assert len(frames[name]) == count
        assert np.asarray(frames[name]).reshape(count, -1).shape[1] == np.prod(shape)
    fresh = np.flatnonzero(frames["annotation.fresh"][:, 0])
    assert fresh[0] == 0 and (np.diff(fresh) % EXECUTED == 0).all()
    images = frames["observation.images.ego"]
    assert len({id(image) for image in images}) <= count // EXECUTED + 1  # repeated, not copied
    # What is labelled is what was driven: rows of the plan are increments of the odometry.
    pose = frames["observation.odometry"].astype(float)
    way = np.hypot(*np.diff(pose[:, :2], axis=0).T)
    np.testing.assert_allclose(way, np.hypot(*frames["action"][:-1, :2].T), atol=0.035)
    assert np.allclose(frames["action"][fresh[-1] :], 0.0)  # in the end it looks, and stands


def test_labels_say_what_is_needed_now_and_where_it_is(suite, env):
    _, frames, success = suite.demonstrate(env, 2, varied_start=False)
    assert success
    info, scene = suite.extra_info(), env.world.scene
    assert info["points"] == list(POINTS) and info["names"] == list(NAMES)
    names = [NAMES[index] for index in frames["annotation.objects"][0]]
    assert names == [thing.name for thing in scene.things] + ["door"]
    wanted = frames["annotation.object"][:, 0]
    assert wanted[0] == len(POINTS) - 1 and wanted[-1] == scene.target
    assert set(frames["annotation.goal"][:, 0]) == {scene.target}
    u, v, depth = frames["annotation.points"][-1].reshape(-1, 3)[scene.target]
    assert 0.2 < u < 0.8 and 0 < depth < 0.7


def test_disturbed_starts_are_where_the_expert_can_find_what_it_needs():
    rng = np.random.default_rng(0)
    for seed in range(12):
        scene = sample_scene(seed)
        starts = np.array([disturbed_start(scene, rng) for _ in range(12)])
        if scene.task == "go_to_object":
            assert ((starts[:, 0] > 0) == in_hall(scene.things[scene.target])).all()
        rims = [np.hypot(*(starts[:, :2] - (t.x, t.y)).T) - t.form.radius for t in scene.things]
        assert np.min(rims) >= OFF_WALL


def test_snapshots_show_both_spaces_from_anywhere(suite, env):
    frames = [suite.snapshot(env, seed)[1] for seed in range(12)]
    assert all(len(found["action"]) == 1 and found["annotation.fresh"][0, 0] == 1 for found in frames)
    starts = np.array([any_start(sample_scene(3), np.random.default_rng(i)) for i in range(40)])
    assert (starts[:, 0] > 0).any() and (starts[:, 0] < 0).any()
    seen = sum((found["annotation.points"].reshape(-1, 3)[:, 2] > 0).sum() for found in frames)
    assert seen > 0


def test_another_sentence_does_not_lead_to_the_target(suite, env):
    for seed in (SHORT, 1, 2):
        env.reset(seed=seed)
        scene, other = env.world.scene, suite.other_instruction(env, seed)
        named = next(thing for thing in scene.things if thing.name in other)
        assert other != scene.instruction
        assert scene.target is None or (named != scene.things[scene.target])
        assert in_hall(named) == (scene.target is not None and in_hall(scene.things[scene.target]))


def test_a_target_that_moves_is_followed(suite):
    env = suite.make_env(cameras=False, shift="dynamic")
    observation, info = env.reset(seed=SHORT)
    before = env.world.things()
    target = env.world.scene.target
    while not info["success"] and env.steps < env.max_steps:
        rows = Expert(env.world.present_scene(), 8, 0.5).plan(env.world.pose, env.world.in_view).rows
        observation, info = drive(suite, env, observation, rows)
    assert info["success"]
    moved = np.linalg.norm(env.world.things() - before, axis=1)
    assert moved[target] > 0.05 and np.delete(moved, target).max() < 1e-9
