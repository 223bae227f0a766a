"""Action chunks: the next targets seen from the end effector's pose at the observation."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from embodiment_descriptions import pose_from_delta
from qwen_vla.data.chunks import chunk_indices, eef_delta_chunks


def random_poses(rng, count):
    return np.concatenate([rng.uniform(-1, 1, (count, 3)), Rotation.random(count, rng=rng).as_quat()], axis=1)


def matrix(pose):
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = Rotation.from_quat(pose[3:7]).as_matrix(), pose[:3]
    return result


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 8), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_applying_a_delta_to_the_observed_pose_gives_the_target(lengths, horizon, seed):
    rng = np.random.default_rng(seed)
    ends = np.cumsum(lengths)
    episodes = np.stack([ends - lengths, ends], axis=1)
    poses = random_poses(rng, ends[-1])
    actions = np.concatenate([random_poses(rng, ends[-1]), rng.uniform(0, 1, (ends[-1], 1))], axis=1)
    chunks = eef_delta_chunks(poses, actions, episodes, horizon)
    assert chunks.shape == (ends[-1], horizon, 7)
    frame, step = rng.integers(ends[-1]), rng.integers(horizon)
    future = chunk_indices(episodes, ends[-1], horizon)[frame, step]
    reached = pose_from_delta(matrix(poses[frame]), chunks[frame, step, :6].astype(float))
    np.testing.assert_allclose(reached, matrix(actions[future]), atol=1e-5)
    assert chunks[frame, step, 6] == np.float32(actions[future, 7])


def test_chunks_end_with_their_episode_and_hold_its_last_action():
    episodes = np.array([[0, 3], [3, 5]])
    np.testing.assert_array_equal(
        chunk_indices(episodes, 5, 4), [[0, 1, 2, 2], [1, 2, 2, 2], [2, 2, 2, 2], [3, 4, 4, 4], [4, 4, 4, 4]]
    )
