# SPDX-License-Identifier: Apache-2.0
"""The bimanual tasks: when they are done, and the expert that does them within the gate's limits."""

import numpy as np
import pytest

from embodiment_descriptions import load_robot
from qwen_vla_control.gate.self_collision import SelfCollision
from qwen_vla_sim.aloha.grasping import PITCH
from qwen_vla_sim.aloha.hands import finger_at, hand_pose
from qwen_vla_sim.aloha.suite import AlohaSuite
from qwen_vla_sim.aloha.tasks.cube_transfer import MEETING

ALOHA = load_robot("aloha")
FIRST_SEED = 3_000_000  # never trained on, never evaluated
STARTS = [(seed, False) for seed in range(3)] + [(FIRST_SEED + seed, True) for seed in range(6)]


@pytest.fixture(scope="module")
def suite():
    return AlohaSuite()


@pytest.fixture(scope="module")
def env(suite):
    env = suite.make_env(cameras=False)
    yield env
    env.close()


@pytest.fixture(scope="module")
def demonstrations(suite, env):
    """(instruction, frames, success) from home, and from anywhere."""
    return [suite.demonstrate(env, seed, varied) for seed, varied in STARTS]


def hold_cube(world, side, pitch, roll=0.0):
    """Put scene 0's named cube into a closed hand above the center of the table, and wait."""
    world.reset(0)
    hands, arm = world.hands, ("left", "right").index(side)
    joints = world.joint_positions().copy()
    joints[6 * arm : 6 * arm + 6] = hands.joints(side, hand_pose(side, MEETING, pitch, roll))
    joints[12 + arm] = finger_at(0.04)
    world.place_arm(joints)
    world.hold_thing(world.scene.target, side, np.linalg.inv(hand_pose(side, np.zeros(3), pitch, roll)))
    joints[12 + arm] = finger_at(0.027)
    world.set_joint_target(joints)
    world.step(100)


def test_a_cube_in_the_left_hand_was_handed_over(env):
    hold_cube(env.world, "left", 0.0, -np.pi / 2)
    state = env.world.task_state()
    assert state.success and state.failure == "" and state.metrics["stage"] == 4


def test_a_cube_in_the_right_hand_was_not(env):
    hold_cube(env.world, "right", PITCH)
    state = env.world.task_state()
    assert not state.success and state.failure == "lifted, not handed over" and state.metrics["stage"] == 2


def test_the_cube_that_was_not_named_does_not_count(env):
    hold_cube(env.world, "left", 0.0, -np.pi / 2)
    world = env.world
    named, other = (world.things.names[i] for i in (world.scene.target, world.scene.other))
    position = world.data.body(named).xpos.copy()
    world.things.place(world.data, named, np.array([0.0, -0.1, 0.02]))
    world.things.place(world.data, other, position, world.data.body(named).xquat.copy())
    world.step(50)
    assert not world.task_state().success and world.task_state().failure == "another cube taken"


def test_what_fell_from_the_table_is_lost(env):
    env.world.reset(2)
    name = env.world.things.names[env.world.scene.target]
    env.world.things.place(env.world.data, name, np.array([0.6, 0.0, 0.1]))
    env.world.step(400)
    assert env.world.task_state().failure == "off the table"


def test_the_arms_collide_with_each_other(env):
    world = env.world
    world.reset(0)
    hands, joints = world.hands, world.joint_positions().copy()
    for k, side in enumerate(("left", "right")):
        joints[6 * k : 6 * k + 6] = hands.joints(side, hand_pose(side, np.array([-0.02, 0.0, 0.3]), 0.0))
    world.set_joint_target(joints)
    world.step(1000)
    state = world.situation()
    assert state.left.position[1] - state.right.position[1] > 0.01


def test_the_expert_does_every_task_from_home_and_from_anywhere(demonstrations):
    assert all(success for _, _, success in demonstrations)
    assert max(len(frames["action"]) for _, frames, _ in demonstrations) * ALOHA.period < 8.0


def test_the_experts_motions_pass_the_gate(demonstrations):
    home = np.array([ALOHA.home[name] for name in ALOHA.joint_names])
    gate = SelfCollision(ALOHA.urdf, ALOHA.joint_names, home)
    limits = [ALOHA.limits[name] for name in ALOHA.joint_names]
    for _, frames, _ in demonstrations:
        actions = np.array(frames["action"], float)
        assert gate.check(actions) == []
        arms = actions[:, :12]
        speed = np.abs(np.diff(arms, axis=0)).max() / ALOHA.period
        assert speed < ALOHA.safety.max_joint_speed_fraction * min(limit.velocity for limit in limits[:12])
        assert np.abs(np.diff(arms, n=2, axis=0)).max() / ALOHA.period**2 < ALOHA.safety.max_joint_acceleration / 2
        assert (actions >= [limit.lower - 1e-6 for limit in limits]).all()
        assert (actions <= [limit.upper + 1e-6 for limit in limits]).all()


def test_a_target_that_moves_does_so_until_it_is_touched(suite):
    world = suite.make_world("dynamic")
    world.reset(0)
    drift, start = np.array(world.scene.drift), world.situation().target[:2, 3].copy()
    world.step(250)
    np.testing.assert_allclose(world.situation().target[:2, 3] - start, drift * 0.5, atol=2e-3)
    world.hold_thing(world.scene.target, "right", np.eye(4))
    world.step(1)
    world.things.place(world.data, world.things.names[world.scene.target], np.array([0.07, 0.0, 0.02]))
    world.step(250)
    np.testing.assert_allclose(world.situation().target[:2, 3], [0.07, 0.0], atol=2e-3)
    world.close()


@pytest.mark.slow
def test_the_expert_over_many_scenes(suite, env):
    successes = [suite.demonstrate(env, FIRST_SEED + seed)[2] for seed in range(200)]
    assert np.mean(successes) >= 0.95
