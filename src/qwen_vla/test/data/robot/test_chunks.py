# SPDX-License-Identifier: Apache-2.0
"""Action chunks: the next targets seen from the end effector's pose at the observation, or as they are."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from embodiment_descriptions import ActionLayout, ControlMode, pose_from_delta
from qwen_vla.data.robot.chunks import AbsoluteTargets, PoseTargets, episode_ends

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**32 - 1)


def ranges(lengths):
    ends = np.cumsum(lengths)
    return np.stack([ends - lengths, ends], axis=1)


def random_poses(rng, *shape):
    quaternions = Rotation.random(int(np.prod(shape)), rng=rng).as_quat().reshape(*shape, 4)
    return np.concatenate([rng.uniform(-1, 1, (*shape, 3)), quaternions], axis=-1)


def matrix(pose):
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = Rotation.from_quat(pose[3:7]).as_matrix(), pose[:3]
    return result


@given(LENGTHS, st.integers(1, 8), st.sampled_from([(True,), (False,), (True, True), (False, True)]), SEEDS)
@settings(max_examples=50, deadline=None)
def test_applying_a_delta_to_the_observed_pose_gives_the_target(lengths, horizon, has_gripper, seed):
    rng = np.random.default_rng(seed)
    ends = episode_ends(ranges(lengths))
    count, arms = len(ends), len(has_gripper)
    measured, commanded = random_poses(rng, count, arms), random_poses(rng, count, arms)
    grippers = rng.uniform(0, 1, (count, arms))
    targets = PoseTargets(measured, commanded, grippers, ends, has_gripper)
    row, step = rng.integers(count), rng.integers(horizon)
    (chunk,) = targets.chunks(np.array([row]), horizon)
    assert chunk.shape == (horizon, sum(6 + gripper for gripper in has_gripper))
    future, at = min(row + step, ends[row] - 1), 0
    for arm, gripper in enumerate(has_gripper):
        reached = pose_from_delta(matrix(measured[row, arm]), chunk[step, at : at + 6])
        np.testing.assert_allclose(reached, matrix(commanded[future, arm]), atol=1e-9)
        at += 6
        if gripper:
            assert chunk[step, at] == grippers[future, arm]
            at += 1


def test_chunks_hold_the_last_target_of_their_episode_or_rest():
    ends = episode_ends(np.array([[0, 3], [3, 5]]))
    values, layout = np.arange(1.0, 6.0)[:, None], ActionLayout.parse(ControlMode.JOINT_POSITION, ["elbow"])
    held = AbsoluteTargets(values, ends, layout).chunks(np.arange(5), 4)[..., 0]
    np.testing.assert_array_equal(held, [[1, 2, 3, 3], [2, 3, 3, 3], [3, 3, 3, 3], [4, 5, 5, 5], [5, 5, 5, 5]])
    rests = AbsoluteTargets(values, ends, layout, rests=True).chunks(np.arange(5), 4)[..., 0]
    np.testing.assert_array_equal(rests, [[1, 2, 3, 0], [2, 3, 0, 0], [3, 0, 0, 0], [4, 5, 0, 0], [5, 0, 0, 0]])


def test_chunks_of_a_continuous_joint_do_not_jump_at_the_half_turn():
    """A roll that turns on at a steady 0.1 rad a row, recorded within -pi .. pi, beside an elbow that does so, too."""
    angle = np.linspace(2.5, 4.5, 21)
    values = np.stack([np.arctan2(np.sin(angle), np.cos(angle)), angle], axis=1)
    layout = ActionLayout.parse(ControlMode.JOINT_POSITION, ["roll", "elbow"], {"roll": True, "elbow": False})
    relative = AbsoluteTargets(values, np.full(21, 21), layout, measured=values, relative=True)
    chunks = relative.chunks(np.arange(21), 30)
    np.testing.assert_allclose(chunks[..., 0], chunks[..., 1], atol=1e-12)
    np.testing.assert_allclose(chunks[0, :21, 0], angle - 2.5, atol=1e-12)
    for measured in (values, None):  # starts where the joint is measured, or commanded
        chunks = AbsoluteTargets(values, np.full(21, 21), layout, measured=measured).chunks(np.arange(21), 30)
        np.testing.assert_allclose(chunks[:, 0, 0], values[:, 0], atol=1e-12)
        assert np.abs(np.diff(chunks[..., 0], axis=1)).max() < 0.11


@given(LENGTHS, st.integers(1, 8), SEEDS)
@settings(max_examples=30, deadline=None)
def test_chunks_of_many_rows_are_those_of_each_row(lengths, horizon, seed):
    rng = np.random.default_rng(seed)
    ends = episode_ends(ranges(lengths))
    poses = random_poses(rng, len(ends), 1)
    targets = PoseTargets(poses, poses[::-1].copy(), rng.uniform(0, 1, (len(ends), 1)), ends)
    together = targets.chunks(np.arange(len(ends)), horizon)
    for row in range(len(ends)):
        np.testing.assert_allclose(together[row], targets.chunks(np.array([row]), horizon)[0], atol=1e-12)
