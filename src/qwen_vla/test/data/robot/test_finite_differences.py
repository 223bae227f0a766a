# SPDX-License-Identifier: Apache-2.0
"""Actions made from proprioception: applied to the states that they were made of, they lead along the recording."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from embodiment_descriptions.angles import wrapped
from qwen_vla.data.robot.finite_differences import (
    base_velocities,
    moved_poses,
    pose_deltas,
    relative_poses,
)

COUNTS, SEEDS = st.integers(1, 12), st.integers(0, 2**32 - 1)


def random_poses(rng, count):
    return np.concatenate([rng.uniform(-2, 2, (count, 3)), Rotation.random(count, rng=rng).as_quat()], axis=1)


def same_rotation(a, b, atol=1e-7):
    turn = Rotation.from_quat(a).inv() * Rotation.from_quat(b)
    np.testing.assert_allclose(turn.magnitude(), 0, atol=atol)


@given(COUNTS, SEEDS)
@settings(max_examples=50, deadline=None)
def test_pose_deltas_lead_from_row_to_row(count, seed):
    poses = random_poses(np.random.default_rng(seed), count)
    deltas = pose_deltas(poses)
    moved = moved_poses(poses, deltas)
    np.testing.assert_allclose(moved[:-1, :3], poses[1:, :3], atol=1e-9)
    same_rotation(moved[:-1, 3:], poses[1:, 3:])
    np.testing.assert_allclose(deltas[-1], 0, atol=1e-12)
    assert np.linalg.norm(deltas[:, 3:], axis=1).max() <= np.pi + 1e-9


@given(COUNTS, SEEDS)
@settings(max_examples=50, deadline=None)
def test_relative_poses_do_not_depend_on_the_frame_or_the_sign_of_a_quaternion(count, seed):
    rng = np.random.default_rng(seed)
    origins, poses, frame = random_poses(rng, count), random_poses(rng, count), random_poses(rng, 1)[0]

    def seen_from_elsewhere(values):
        turn = Rotation.from_quat(frame[3:])
        place = turn.apply(values[:, :3]) + frame[:3]
        return np.concatenate([place, -(turn * Rotation.from_quat(values[:, 3:])).as_quat()], axis=1)

    here = moved_poses(origins, relative_poses(origins, poses))
    there = moved_poses(origins, relative_poses(seen_from_elsewhere(origins), seen_from_elsewhere(poses)))
    np.testing.assert_allclose(here[:, :3], there[:, :3], atol=1e-8)
    same_rotation(here[:, 3:], there[:, 3:])


def test_a_quarter_turn_about_z_moves_forward_in_the_turned_frame():
    half = np.sqrt(0.5)
    poses = np.array([[0, 0, 0, 0, 0, half, half], [0, 1, 0, 0, 0, 1, 0]])
    np.testing.assert_allclose(pose_deltas(poses)[0], [1, 0, 0, 0, 0, np.pi / 2], atol=1e-12)


@given(COUNTS, st.floats(0.5, 50), SEEDS)
@settings(max_examples=50, deadline=None)
def test_a_base_velocity_kept_up_for_a_period_leads_to_the_next_pose(count, rate, seed):
    rng = np.random.default_rng(seed)
    poses = np.cumsum(rng.uniform(-1, 1, (count, 3)) * [1, 1, rng.choice([1e-9, 1e-4, 2.5])], axis=0)
    velocities = base_velocities(poses, rate)
    assert not velocities[-1].any()
    for pose, following, (vx, vy, wz) in zip(poses, poses[1:], velocities, strict=False):
        step = expm(np.array([[0, -wz, vx], [wz, 0, vy], [0, 0, 0]]) / rate)
        cos, sin = np.cos(pose[2]), np.sin(pose[2])
        reached = np.array([[cos, -sin, pose[0]], [sin, cos, pose[1]], [0, 0, 1]]) @ step
        np.testing.assert_allclose(reached[:2, 2], following[:2], atol=1e-7)
        np.testing.assert_allclose(wrapped(np.arctan2(reached[1, 0], reached[0, 0]) - following[2]), 0, atol=1e-7)
