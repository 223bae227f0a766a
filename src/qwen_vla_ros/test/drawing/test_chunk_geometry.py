# SPDX-License-Identifier: Apache-2.0
"""Predicted paths: every robot of the suite, every control mode, against independent computations."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.spatial.transform import Rotation

from embodiment_descriptions import ControlMode, Embodiment, load_robot, pose_from_delta
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.observation.robot_pose import RobotPose
from qwen_vla_ros.drawing.chunk_geometry import (
    BASE,
    FARTHEST,
    CannotDraw,
    ChunkGeometry,
    arc,
    offending_steps,
    planar_pose,
)
from qwen_vla_ros.drawing.ghost_robot import GhostRobot
from qwen_vla_ros.drawing.robot_shapes import RobotShapes

ROBOTS = ("widowx", "aloha", "mobile_base")
S = 10**9
EXTREMES = (0.0, 1e-45, 0.01, 1.0, np.pi, -100.0, 1e6, -1e19, 1e30, 3.4e38, -3.4e38)
robot_named = cache(load_robot)


def chunk_of(embodiment: Embodiment, rows: np.ndarray) -> Chunk:
    """A chunk with these rows, observed at 5 s."""
    rows = np.asarray(rows, np.float32)
    return Chunk(
        chunk_id=1,
        stamp_ns=5 * S,
        frame_id=embodiment.base_frame,
        embodiment=embodiment.name,
        control_mode=embodiment.control_mode,
        channel_names=tuple(embodiment.channel_names),
        instruction="go",
        horizon=len(rows),
        execution_horizon=len(rows),
        period=embodiment.period,
        data=rows.reshape(-1),
    )


def at_home(embodiment: Embodiment) -> RobotPose:
    """The robot at home; a base at 1, 2 and rotated."""
    if embodiment.base:
        return RobotPose(dict(embodiment.home), planar_pose(1.0, 2.0, 0.5), "odom")
    return RobotPose(dict(embodiment.home))


def tips_by_shapes(embodiment: Embodiment, pose: RobotPose) -> list[np.ndarray]:
    """End-effector poses in their arms' base links, by the kinematics of the whole robot."""
    links = RobotShapes(embodiment.urdf).link_poses(pose.joints)
    return [np.linalg.inv(links[arm.base_link]) @ links[arm.tip_link] for arm in embodiment.arms]


def test_joint_positions_go_through_the_kinematics_of_every_arm():
    aloha = robot_named("aloha")
    home = [aloha.home[name] for arm in aloha.arms for name in (*arm.joints, arm.gripper.joint)]
    rows = np.tile(home, (50, 1))
    rows[:, [6, 13]] = 1.0, 0.0  # grippers: left open, right closed
    rows[:, 1] += np.linspace(0.0, 0.4, 50)  # left shoulder
    geometry, start = ChunkGeometry(aloha), at_home(aloha)
    chunk = chunk_of(aloha, rows)
    left, right = geometry.paths(chunk, start)
    assert (left.name, left.frame) == ("left", "follower_left/base_link")
    assert (right.name, right.frame) == ("right", "follower_right/base_link")
    assert left.poses.shape == right.poses.shape == (51, 4, 4)
    assert np.allclose(right.poses, right.poses[0], atol=1e-6)
    places = geometry.poses(chunk, start)
    assert len(places) == 51
    for step in (0, 25, 50):
        for path, tip in zip((left, right), tips_by_shapes(aloha, places[step]), strict=True):
            assert np.allclose(path.poses[step], tip, atol=1e-6)
    assert places[-1].joints["follower_left/left_finger"] == pytest.approx(0.057)
    assert places[-1].joints["follower_right/left_finger"] == pytest.approx(0.021)


def test_end_effector_deltas_are_relative_to_the_observation(widowx):
    rows = np.zeros((16, 7))
    rows[:, 2] = -0.004 * np.arange(1, 17)
    rows[:, 5] = 0.03 * np.arange(1, 17)
    geometry, start = ChunkGeometry(widowx), at_home(widowx)
    (path,) = geometry.paths(chunk_of(widowx, rows), start, steps=8)
    assert path.poses.shape == (9, 4, 4)
    tip = tips_by_shapes(widowx, start)[0]
    assert np.allclose(path.poses[0], tip, atol=1e-9)
    assert np.allclose(path.poses[8], pose_from_delta(tip, rows[7, :6]), atol=1e-6)
    places = geometry.poses(chunk_of(widowx, rows), start)
    assert np.allclose(tips_by_shapes(widowx, places[16])[0], pose_from_delta(tip, rows[15, :6]), atol=1e-4)


def test_what_is_out_of_reach_is_drawn_but_not_followed(widowx):
    rows = np.zeros((16, 7))
    rows[8:, 0] = 2.0  # [m]
    geometry, start = ChunkGeometry(widowx), at_home(widowx)
    (path,) = geometry.paths(chunk_of(widowx, rows), start)
    assert len(path.poses) == 17
    assert len(geometry.poses(chunk_of(widowx, rows), start)) == 9  # the start and the first eight steps


def test_waypoints_are_relative_to_the_base_pose_at_the_observation():
    base = robot_named("mobile_base")
    rows = np.array([[0.1 * k, 0.02 * k, 0.1 * k] for k in range(1, 9)])
    geometry, start = ChunkGeometry(base), at_home(base)
    (path,) = geometry.paths(chunk_of(base, rows), start)
    assert (path.name, path.frame) == (BASE, "odom")
    rotation = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    assert np.allclose(path.poses[1:, :2, 3], [1.0, 2.0] + rows[:, :2] @ rotation.T, atol=1e-6)
    headings = Rotation.from_matrix(path.poses[:, :3, :3]).as_rotvec()[:, 2]
    assert np.allclose(headings, [0.5, *(0.5 + rows[:, 2])], atol=1e-6)
    assert np.allclose(geometry.poses(chunk_of(base, rows), start)[-1].base, path.poses[-1])


def test_without_odometry_the_path_of_the_base_is_drawn_in_its_own_frame():
    base = robot_named("mobile_base")
    (path,) = ChunkGeometry(base).paths(chunk_of(base, np.ones((8, 3))), RobotPose({}))
    assert path.frame == base.base_frame and np.allclose(path.poses[0], np.eye(4))


def test_velocities_are_integrated():
    base = robot_named("mobile_base").model_copy(update={"control_mode": ControlMode.BASE_VELOCITY})
    rows = np.array([[0.2, 0.0, 0.5], [0.1, 0.05, -1.0], [0.2, 0.0, 0.0]])
    (path,) = ChunkGeometry(base).paths(chunk_of(base, rows), at_home(base))

    def motion(_time, state, vx, vy, wz):
        c, s = np.cos(state[2]), np.sin(state[2])
        return [c * vx - s * vy, s * vx + c * vy, wz]

    state = [1.0, 2.0, 0.5]
    for row, pose in zip(rows, path.poses[1:], strict=True):
        state = solve_ivp(motion, (0.0, base.period), state, args=tuple(row), rtol=1e-9, atol=1e-12).y[:, -1]
        assert np.allclose(pose, planar_pose(*state), atol=1e-6)


@pytest.mark.parametrize("theta", [0.0, 1e-12, -1e-7, 3.0, -2.0])
def test_an_arc_and_its_way_back_end_where_they_began(theta):
    step = np.array([0.3, -0.1, theta])
    assert np.allclose(arc(step) @ arc(-step), np.eye(4), atol=1e-9)


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize(
    "changes",
    [
        {"embodiment": "other"},
        {"control_mode": "other"},
        {"channel_names": ("a",)},
        {"horizon": 7},
        {"horizon": 0},
        {"period": float("nan")},
        {"data": np.array([], np.float32)},
    ],
)
def test_a_chunk_that_does_not_match_the_robot_is_not_drawn(robot, changes):
    embodiment = robot_named(robot)
    good = chunk_of(embodiment, np.zeros((8, len(embodiment.channel_names))))
    with pytest.raises(CannotDraw):
        ChunkGeometry(embodiment).paths(replace(good, **changes), at_home(embodiment))


@pytest.mark.parametrize("robot", ROBOTS)
def test_values_that_are_not_finite_are_not_drawn(robot):
    embodiment = robot_named(robot)
    rows = np.zeros((8, len(embodiment.channel_names)))
    rows[3, 1] = np.inf
    with pytest.raises(CannotDraw, match="finite"):
        ChunkGeometry(embodiment).paths(chunk_of(embodiment, rows), at_home(embodiment))


@settings(max_examples=50, deadline=None)
@given(
    robot=st.sampled_from(ROBOTS),
    changes=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 30), st.sampled_from(EXTREMES)), max_size=12),
)
def test_what_is_drawn_is_within_what_viewers_can_show(robot, changes):
    embodiment = robot_named(robot)
    rows = np.zeros((8, len(embodiment.channel_names)), np.float32)
    for step, channel, value in changes:
        rows[step:, channel % rows.shape[1]] = value
    try:
        paths = ChunkGeometry(embodiment).paths(chunk_of(embodiment, rows), at_home(embodiment))
    except CannotDraw:
        return
    assert all((np.abs(path.poses) <= FARTHEST).all() for path in paths)


def test_a_missing_joint_is_named(widowx):
    start = RobotPose({name: 0.0 for name in widowx.home if name != "elbow"})
    with pytest.raises(CannotDraw, match="elbow"):
        ChunkGeometry(widowx).paths(chunk_of(widowx, np.zeros((16, 7))), start)


def test_offending_steps_are_found_in_the_message_of_a_refusal():
    words = (
        "joint 'elbow' at step 9: motion 0.6 over the limit 0.5 (and 2 more); step 12: 'tip' cannot reach; at step 99"
    )
    assert offending_steps(words, 16) == [9, 12]
    assert offending_steps("the observation is 3.0 s old", 16) == []


def test_the_ghost_shows_its_target_and_then_returns():
    base = robot_named("mobile_base")
    ghost, here = GhostRobot(base), at_home(base)
    there = RobotPose({}, planar_pose(3.0, 1.0, 0.0), "odom")
    assert ghost.pose(here, 0.0) is here
    ghost.follow(there, until=10.0)
    assert ghost.pose(here, 9.0).base[0, 3] == 3.0 and ghost.pose(here, 11.0) is here
    ghost.rest()
    assert ghost.pose(here, 9.0) is here


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_ghosts_transforms_are_those_of_its_links(robot):
    embodiment = robot_named(robot)
    pose = at_home(embodiment)
    transforms = GhostRobot(embodiment).transforms(pose, Time(sec=1, nanosec=2))
    shapes = RobotShapes(embodiment.urdf)
    assert [t.child_frame_id for t in transforms] == [f"ghost/{link}" for link in shapes.links]
    assert {t.header.frame_id for t in transforms} == {"odom" if embodiment.base else shapes.root}
    root = np.eye(4) if pose.base is None else pose.base
    links = shapes.link_poses(pose.joints)
    for link, transform in zip(shapes.links, transforms, strict=True):
        t, q = transform.transform.translation, transform.transform.rotation
        expected = root @ links[link]  # of a base: the child link of odometry is the root
        assert np.allclose([t.x, t.y, t.z], expected[:3, 3])
        assert np.allclose(Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), expected[:3, :3])
