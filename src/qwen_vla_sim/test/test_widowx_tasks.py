# SPDX-License-Identifier: Apache-2.0
"""The tabletop tasks in MuJoCo: when they are done, what the expert does, and what a recording contains."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from embodiment_descriptions import delta_from_poses
from qwen_vla_control.chunk import Chunk
from qwen_vla_sim.widowx.suite import WidowXPickSuite, WidowXSuite
from qwen_vla_sim.widowx.things import COLORS, KINDS

TASKS = WidowXSuite.rotation
PLACE_SEEDS = range(4)  # one scene of each task in which something is brought somewhere
SPOON, CARROT, STACK, EGGPLANT = PLACE_SEEDS


@pytest.fixture(scope="module")
def suite():
    return WidowXSuite()


@pytest.fixture(scope="module")
def world(suite):
    world = suite.make_world()
    yield world
    world.close()


@pytest.fixture(scope="module")
def env(suite):
    env = suite.make_env()
    yield env
    env.close()


@pytest.fixture(scope="module")
def blind_env(suite):
    env = suite.make_env(cameras=False)
    yield env
    env.close()


def settle(world, seconds=0.6):
    for _ in range(round(seconds / world.timestep / 5)):
        world.step(5)  # as the controllers do: the world updates its history between two steps


def put(world, place, thing=None):
    """Place a thing (default: the target) with its origin at x, y, z [m], and let it come to rest."""
    thing = world.scene.things[world.scene.target if thing is None else thing]
    address = world.model.joint(f"{thing.kind}_{thing.slot}").qposadr[0]
    world.data.qpos[address : address + 7] = [*place, *Rotation.from_euler("z", 0.1).as_quat(scalar_first=True)]
    mujoco.mj_forward(world.model, world.data)
    settle(world)


def on_goal(world, offset=(0, 0)):
    """Position of the target's origin at rest on the goal, moved sideways by `offset` [m]."""
    goal, named = world.scene.things[world.scene.goal], world.scene.named
    x, y, z = world.thing_positions()[world.scene.goal]
    return np.array([x + offset[0], y + offset[1], z - goal.design.rest + goal.design.top + named.design.rest + 0.001])


@pytest.mark.parametrize("shift", [None, "instance"])
def test_things_lie_still_where_the_scene_says(suite, shift):
    world = suite.make_world(shift)
    for seed in range(10):
        world.reset(seed)
        settle(world)
        places = np.array([(thing.x, thing.y, thing.design.rest) for thing in world.scene.things])
        np.testing.assert_allclose(world.thing_positions(), places, atol=2e-3)
        assert world.task_state().success is False


@pytest.mark.parametrize("seed", PLACE_SEEDS)
def test_what_rests_on_its_goal_is_done(world, seed):
    world.reset(seed)
    put(world, on_goal(world))
    state = world.task_state()
    assert state.success and state.failure == "" and state.metrics["gap"] < 0.015
    assert state.task == TASKS[seed] and state.target == world.scene.named.name


@pytest.mark.parametrize("seed", PLACE_SEEDS)
def test_what_lies_beside_its_goal_is_not_done(world, seed):
    world.reset(seed)
    out = 0.11 if seed != STACK else 0.06
    x, y, _ = on_goal(world, (0, -out if world.thing_positions()[world.scene.goal][1] > 0 else out))
    for other in world.scene.others:
        if other != world.scene.goal:
            put(world, (0.1, 0.3, 0.03), other)  # out of the way
    put(world, (x, y, world.scene.named.design.rest + 0.03))
    state = world.task_state()
    assert not state.success and state.failure == "dropped beside the goal", "it was in the air"


@pytest.mark.parametrize("seed", PLACE_SEEDS)
def test_another_thing_on_the_goal_is_not_the_one_named(world, seed):
    world.reset(seed)
    other = next(i for i in world.scene.others if i != world.scene.goal)
    place = on_goal(world)
    place[2] += world.scene.things[other].design.rest - world.scene.named.design.rest + 0.03
    put(world, place, other)
    state = world.task_state()
    assert not state.success and state.failure == "another thing lifted"
    situation = world.situation()
    as_if_named = replace(situation, scene=replace(situation.scene, target=other))
    assert world.scene.task.judge(as_if_named).success


@pytest.mark.parametrize("seed", PLACE_SEEDS)
def test_what_is_still_in_the_gripper_is_not_done(world, seed):
    world.reset(seed)
    task, rng = world.scene.task, np.random.default_rng(0)
    start = task.start(world, rng)
    while not start.holding:
        start = task.start(world, rng)
    world.put_into_gripper(start.joints)
    state = world.task_state()
    assert not state.success and state.failure == "held, not placed"
    assert state.metrics["grasped"] and state.metrics["lift"] > 0.03
    settle(world, 1.0)
    assert world.task_state().metrics["grasped"], "and it does not slip out"


def test_a_cube_beside_a_cube_is_no_stack(world):
    world.reset(STACK)
    x, y, _ = on_goal(world)
    put(world, (x, y + 0.045, 0.021))
    assert not world.task_state().success
    assert not world.scene.task.rests(world.situation())


def test_an_untouched_scene_tells_how_close_the_gripper_came(world, suite):
    world.reset(SPOON)
    assert world.task_state().failure == "not reached"
    tip = world.grip_points()[world.scene.target] + [0, 0, 0.02]
    world.place_arm(np.append(suite.tool.kinematics.inverse(_down(suite, tip), suite.tool.home[:6]), 0.037))
    settle(world, 0.1)
    assert world.task_state().failure == "not grasped"


def expert_step(env):
    return env.world.scene.task.expert(env.world.situation())


def _down(suite, tip):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = suite.tool.orientation, tip
    return pose


def successes(suite, env, seeds, monkeypatch):
    """Task name and success of the expert in each scene."""
    monkeypatch.setattr(suite, "_record", lambda *arguments: None)  # labels need the cameras; only the outcome counts
    found = []
    for seed in seeds:
        success = suite.demonstrate(env, seed)[2]
        found.append((env.world.scene.task.name, success))
    return found


def test_the_expert_does_every_task(suite, blind_env, monkeypatch):
    found = successes(suite, blind_env, range(3_000_000, 3_000_010), monkeypatch)
    assert {task for task, _ in found} == set(TASKS)
    assert np.mean([success for _, success in found]) >= 0.9


@pytest.mark.slow
def test_the_expert_succeeds_in_95_percent_of_200_scenes_and_in_90_of_every_task(suite, blind_env, monkeypatch):
    found = successes(suite, blind_env, range(3_000_000, 3_000_200), monkeypatch)
    assert np.mean([success for _, success in found]) >= 0.95
    for name in TASKS:
        assert np.mean([success for task, success in found if task == name]) >= 0.9, name


@pytest.mark.parametrize("shift", ["instance", "position", "dynamic"])
def test_the_expert_handles_the_shifts_that_affect_it(suite, shift, monkeypatch):
    env = suite.make_env(cameras=False, shift=shift)
    assert np.mean([success for _, success in successes(suite, env, range(5), monkeypatch)]) >= 0.8


@pytest.mark.parametrize("seed", PLACE_SEEDS)
def test_the_expert_picks_up_again_what_was_dropped(suite, blind_env, seed):
    """The fingers open halfway; the expert only gets the resulting situation."""
    observation, info = blind_env.reset(seed=seed)
    joints, dropped = observation["joints"].astype(float), False
    for _ in range(70):
        if not dropped and info["metrics"]["lift"] > 0.05:
            joints[-1], dropped = 0.037, True
        else:
            joints = suite.tool.joints_for(expert_step(blind_env), joints)
        observation, _, success, _, info = blind_env.step(joints)
        if success:
            break
    assert dropped and success


def test_chunks_of_the_expert_are_within_the_robots_limits(suite, blind_env, monkeypatch):
    """As a trained policy would predict them: the next 16 targets, relative to the current tip pose."""
    rows = []
    monkeypatch.setattr(
        suite,
        "_record",
        lambda frames, env, observation, step: rows.append((observation, env.world.tip_pose(), step)),
    )
    for seed in PLACE_SEEDS:
        rows.clear()
        suite.demonstrate(blind_env, seed)
        for i, (observation, tip, _) in enumerate(rows):
            ahead = [rows[min(k, len(rows) - 1)][2] for k in range(i, i + 16)]
            poses = np.stack([_down(suite, step.position) for step in ahead])
            chunk = np.column_stack([delta_from_poses(tip, poses), [step.gripper for step in ahead]])
            assert suite.plan(Chunk.of_rows(suite.embodiment, chunk, 8), observation).shape == (8, 7)


def test_a_moving_target_goes_back_and_forth_until_the_gripper_is_there(suite):
    world = suite.make_world("dynamic")
    world.reset(0)
    target, scene = world.scene.target, world.scene
    start, seen = world.thing_positions(), []
    for _ in range(40):
        settle(world, 0.2)
        seen.append(world.thing_positions() - start)
    moved = np.array(seen)[:, target, :2] @ np.array(scene.drift) / np.linalg.norm(scene.drift)
    assert moved.max() == pytest.approx(np.linalg.norm(scene.drift), abs=4e-3) and moved[-1] < moved.max() - 0.01
    others = [i for i in range(len(scene.things)) if i != target]
    np.testing.assert_allclose(np.array(seen)[:, others], 0, atol=2e-3)
    tip = world.grip_points()[target] + [0, 0, 0.03]
    world.place_arm(np.append(suite.tool.kinematics.inverse(_down(suite, tip), suite.tool.home[:6]), 0.037))
    there = world.thing_positions()[target]
    settle(world, 1.0)
    np.testing.assert_allclose(world.thing_positions()[target], there, atol=2e-3)


def test_a_recording_has_every_feature_and_labels_what_the_images_show(suite, env):
    instruction, frames, success = suite.demonstrate(env, 3_000_002)
    scene, info = env.world.scene, suite.extra_info()
    assert success and instruction == scene.instruction and scene.task.name == "stack_cube"
    for name, (_, shape, _) in suite.features().items():
        rows = np.asarray(frames[name])
        assert rows.shape in {(len(frames["action"]), *shape), (len(frames["action"]),)}, name
    named = [info["names"][index] for index in frames["annotation.objects"][0] if index >= 0]
    assert named == [thing.name for thing in scene.things]
    assert named[frames["annotation.object"][0]] == scene.named.name
    assert info["tasks"][frames["annotation.task"][0]] == "stack_cube"
    points = frames["annotation.points"][0].reshape(len(info["cameras"]), len(info["points"]), 3)
    picture = frames["observation.images.ego"][0].astype(float)
    for thing, (u, v, depth) in zip(scene.things, points[0], strict=False):
        if thing.kind == "cube":
            pixel = picture[int(v * picture.shape[0]), int(u * picture.shape[1])]
            assert depth > 0.4 and np.corrcoef(pixel, COLORS[thing.color])[0, 1] > 0.9, thing.name
    assert not points[:, len(scene.things) : -1].any(), "what is not there is nowhere"


def test_a_snapshot_is_one_frame_of_a_recording(suite, env):
    _, frames, success = suite.snapshot(env, 3)
    assert success and all(len(rows) == 1 for rows in frames.values())
    again = suite.snapshot(env, 3)[1]
    for name, rows in frames.items():
        np.testing.assert_array_equal(rows, again[name])


def test_another_instruction_names_another_thing_of_the_scene(suite, blind_env):
    for seed in range(10):
        blind_env.reset(seed=seed)
        scene, other = blind_env.world.scene, suite.other_instruction(blind_env, seed)
        assert other != scene.instruction
        assert any(thing.name.split()[0] in other.split() for thing in scene.things if thing != scene.named)


@pytest.mark.parametrize("shift", [None, "background", "colour"])
def test_every_kind_of_thing_is_visible(suite, shift):
    world = suite.make_world(shift)
    seen = set()
    for seed in range(5):
        world.reset(seed)
        whole = world.render("ego").astype(int)
        for thing, number in zip(world.scene.things, world._used, strict=True):
            body = world._body_ids[number]
            geoms = slice(
                world.model.body_geomadr[body], world.model.body_geomadr[body] + world.model.body_geomnum[body]
            )
            colors = world.model.geom_rgba[geoms].copy()
            world.model.geom_rgba[geoms, 3] = 0
            changed = np.abs(world.render("ego").astype(int) - whole).max(axis=-1) > 12
            world.model.geom_rgba[geoms] = colors
            assert changed.sum() > 150, f"{thing.name}: {changed.sum()} of 76800 pixels"
            seen.add(thing.kind)
    world.close()
    assert seen == set(KINDS)


def test_unknown_tasks_and_shifts_are_refused(suite):
    with pytest.raises(ValueError, match="suite widowx has no task 'fly'; it has: spoon_on_towel, carrot_on_plate"):
        suite.make_env(cameras=False, task="fly")
    with pytest.raises(ValueError, match="suite widowx_pick has no shift 'colour'; it offers: none"):
        WidowXPickSuite().make_env(cameras=False, shift="colour")


def test_what_begins_beside_its_goal_is_brought_there(suite, blind_env):
    """Some demonstrations begin where an earlier attempt fell short."""
    begun = 0
    for seed in (SPOON, CARROT, STACK):
        blind_env.reset(seed=seed)
        world = blind_env.world
        starts = (world.scene.task.start(world, np.random.default_rng(i)) for i in range(100))
        start = next(start for start in starts if start.target)
        observation, info = blind_env.reset(seed=seed, options=start.options)
        assert not info["success"] and info["metrics"]["gap"] < 0.13
        np.testing.assert_allclose(
            blind_env.world.thing_positions()[blind_env.world.scene.target][:2], start.target[:2], atol=0.012
        )
        joints = observation["joints"].astype(float)
        for _ in range(50):
            joints = suite.tool.joints_for(expert_step(blind_env), joints)
            observation, _, success, _, _ = blind_env.step(joints)
            if success:
                begun += 1
                break
    assert begun == 3
