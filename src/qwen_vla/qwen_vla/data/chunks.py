"""Action chunks from recorded episodes: the next H targets, relative to the end-effector pose at the observation."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def eef_delta_chunks(poses: np.ndarray, actions: np.ndarray, episodes: np.ndarray, horizon: int) -> np.ndarray:
    """`eef_delta` chunks of every frame, (N, horizon, 7): x y z [m], rotation vector [rad], gripper 0…1.

    poses: (N, 7) measured tip poses, actions: (N, 8) commanded tip poses and gripper, both x y z qx qy qz qw in the
    base frame; episodes: (E, 2) frame ranges. Delta i is T_t⁻¹·T*_{t+i}, relative to the chunk's first frame (paper
    §5.2.1).
    Beyond an episode's end its last action is repeated: the demonstrations end at rest.
    """
    index = chunk_indices(episodes, len(poses), horizon)
    origin = Rotation.from_quat(poses[:, 3:7])
    targets = actions[index]  # (N, H, 8)
    flat = targets.reshape(-1, actions.shape[1])
    inverse = Rotation.from_quat(np.repeat(origin.inv().as_quat(), horizon, axis=0))
    offset = flat[:, :3] - np.repeat(poses[:, :3], horizon, axis=0)
    rotation = (inverse * Rotation.from_quat(flat[:, 3:7])).as_rotvec()
    chunks = np.concatenate([inverse.apply(offset), rotation, flat[:, 7:]], axis=1)
    return chunks.reshape(len(poses), horizon, -1).astype(np.float32)


def chunk_indices(episodes: np.ndarray, frames: int, horizon: int) -> np.ndarray:
    """(N, horizon) frame numbers t … t+H−1, held at the last frame of t's episode."""
    last = np.zeros(frames, np.int64)
    for first, end in episodes:
        last[first:end] = end - 1
    return np.minimum(np.arange(frames)[:, None] + np.arange(horizon)[None], last[:, None])
