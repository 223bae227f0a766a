# SPDX-License-Identifier: Apache-2.0
"""The suite of the base: its expert, what it records, and which chunks it refuses."""

import numpy as np
import pytest

from qwen_vla_control.chunk import Chunk
from qwen_vla_control.motion.base_path import accumulated
from qwen_vla_control.reasons import Reason, Refused
from qwen_vla_sim.mobile_base.driving import SEARCH, SPEED, TURN, plan
from qwen_vla_sim.mobile_base.scene import in_hall
from qwen_vla_sim.mobile_base.situation import Drive, Situation
from qwen_vla_sim.mobile_base.starts import OFF_WALL, any_start, disturbed_start
from qwen_vla_sim.mobile_base.suite import EXECUTED, NAMES, POINTS, MobileBaseSuite

SHORT = 9  # seed: go to a thing nearby


@pytest.fixture(scope="module")
def suite():
    return MobileBaseSuite()


@pytest.fixture(scope="module")
def env(suite):
    env = suite.make_env()
    yield env
    env.close()


def shown(scene, pose, in_view):
    """The expert's waypoints at a pose of a scene."""
    places = np.array([(thing.x, thing.y) for thing in scene.things])
    situation = Situation(scene, np.array(pose), in_view, Drive(scene, np.array(scene.start), places))
    return plan(scene, situation.pose, scene.task.expert(situation), 8, 0.5)


def chunk_of(suite, steps):
    """Waypoints, each relative to the one before, of which the first ones are driven."""
    return Chunk.of_rows(suite.embodiment, accumulated(np.zeros(3), steps), EXECUTED)


def drive(suite, env, observation, steps):
    """Drive the first of some waypoints, each relative to the one before."""
    for action in suite.plan(chunk_of(suite, steps), observation):
        observation, _, success, _, info = env.step(action)
    return observation, info


def test_waypoints_are_driven_one_after_another(suite, env):
    """Forward, a rotation in place, forward: in the odometry and in the world."""
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
    "row, column, value, reason",
    [
        (0, 0, 0.14, Reason.START_JUMP),
        (5, 0, -0.2, Reason.VELOCITY_LIMIT),
        (2, 2, 0.95, Reason.VELOCITY_LIMIT),
        (7, 1, np.nan, Reason.NON_FINITE),
    ],
)
def test_a_chunk_beyond_the_limits_is_refused_whole(suite, env, row, column, value, reason):
    observation, _ = env.reset(seed=SHORT)
    steps = np.tile([0.1, 0.0, 0.0], (8, 1))
    suite.plan(chunk_of(suite, steps), observation)
    steps[row, column] = value
    with pytest.raises(Refused) as refused:
        suite.plan(chunk_of(suite, steps), observation)
    assert refused.value.reasons == (reason,)


def test_the_base_comes_to_rest_at_the_last_executed_waypoint(suite, env):
    observation, _ = env.reset(seed=SHORT)
    actions = suite.plan(chunk_of(suite, np.tile([0.1, 0.0, 0.0], (8, 1))), observation)
    assert actions.shape == (EXECUTED, 6) and not actions[-1, 3:].any()
    assert np.hypot(*actions[:-1, 3:5].T).min() > 0.1


def test_to_hold_is_to_stay(suite, env):
    observation, info = env.reset(seed=SHORT)
    before = info["true_pose"]
    for _ in range(3):
        observation, _, _, _, info = env.step(suite.hold(observation))
    np.testing.assert_allclose(info["true_pose"], before, atol=1e-3)


def test_the_expert_rotates_to_the_left_until_its_goal_is_in_view(suite):
    scene = suite.scene(SHORT)
    blind = shown(scene, scene.start, lambda index: False)
    assert blind.phase == "search"
    np.testing.assert_allclose(blind.rows, np.tile([0, 0, SEARCH / 2], (8, 1)))
    thing = scene.things[scene.target]
    heading = np.arctan2(thing.y - scene.start[1], thing.x - scene.start[0])
    seeing = shown(scene, [*scene.start[:2], heading], lambda index: index == scene.target)
    assert seeing.phase == "drive" and seeing.goal == scene.target
    assert seeing.rows[:4, 0].min() > 0.05


def test_the_expert_keeps_well_below_the_limits(suite):
    rng = np.random.default_rng(0)
    for seed in range(9):
        scene = suite.scene(seed)
        for _ in range(5):
            start = disturbed_start(scene, rng, scene.task.leads_through_door)
            rows = shown(scene, start, lambda index: True).rows
            assert np.hypot(rows[:, 0], rows[:, 1]).max() <= SPEED / 2 + 1e-6
            assert np.abs(rows[:, 2]).max() <= max(SEARCH, TURN) / 2 + 1e-6


def test_the_current_leg_depends_on_the_space_of_the_base(suite):
    scene = suite.scene(2)
    assert shown(scene, [-1.0, scene.door, 0.0], lambda index: True).goal is None
    assert shown(scene, [1.0, scene.door, 0.0], lambda index: False).goal == scene.target
    assert shown(suite.scene(1), [0.8, scene.door, 1.0], lambda index: False).phase == "stop"


@pytest.mark.parametrize("seed", [SHORT, 1, 2])
def test_a_demonstration_succeeds_and_can_be_learned_from(suite, env, seed):
    sentence, frames, success = suite.demonstrate(env, seed)
    assert success and sentence == suite.scene(seed).instruction
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
    # What is labeled is what was driven: rows of the plan are increments of the odometry.
    pose = frames["observation.odometry"].astype(float)
    way = np.hypot(*np.diff(pose[:, :2], axis=0).T)
    np.testing.assert_allclose(way, np.hypot(*frames["action"][:-1, :2].T), atol=0.035)
    assert np.allclose(frames["action"][fresh[-1] :], 0.0)  # at the end it observes, and is at rest


def test_labels_give_the_current_goal_and_where_it_is(suite, env):
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


def test_at_disturbed_starts_the_expert_can_find_its_goal(suite):
    rng = np.random.default_rng(0)
    for seed in range(12):
        scene = suite.scene(seed)
        starts = np.array([disturbed_start(scene, rng, scene.task.leads_through_door) for _ in range(12)])
        if scene.task.name == "go_to_object":
            assert ((starts[:, 0] > 0) == in_hall(scene.things[scene.target])).all()
        rims = [np.hypot(*(starts[:, :2] - (t.x, t.y)).T) - t.form.radius for t in scene.things]
        assert np.min(rims) >= OFF_WALL


def test_snapshots_show_both_spaces_from_anywhere(suite, env):
    frames = [suite.snapshot(env, seed)[1] for seed in range(12)]
    assert all(len(found["action"]) == 1 and found["annotation.fresh"][0, 0] == 1 for found in frames)
    starts = np.array([any_start(suite.scene(3), np.random.default_rng(i)) for i in range(40)])
    assert (starts[:, 0] > 0).any() and (starts[:, 0] < 0).any()
    seen = sum((found["annotation.points"].reshape(-1, 3)[:, 2] > 0).sum() for found in frames)
    assert seen > 0


def test_another_instruction_does_not_lead_to_the_target(suite, env):
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
        situation = env.world.situation()
        rows = plan(situation.scene, situation.pose, situation.scene.task.expert(situation), 8, 0.5).rows
        observation, info = drive(suite, env, observation, rows)
    assert info["success"]
    moved = np.linalg.norm(env.world.things() - before, axis=1)
    assert moved[target] > 0.05 and np.delete(moved, target).max() < 1e-9
