"""Poses of a base and the increments between them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla_control.motion.base_path import accumulated, increments, moved


@given(st.integers(0, 99), st.sampled_from([(), (3,), (2, 3)]))
def test_increments_add_up_to_the_poses(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    start, steps = rng.normal(size=3), rng.uniform(-1, 1, (*shape, 5, 3))
    poses = accumulated(start, steps)
    whole = np.concatenate([np.broadcast_to(start, poses[..., :1, :].shape), poses], axis=-2)
    np.testing.assert_allclose(increments(whole), steps, atol=1e-9)
    pose = start
    for step, reached in zip(steps.reshape(-1, 5, 3)[0], poses.reshape(-1, 5, 3)[0], strict=True):
        pose = moved(pose, step)
        np.testing.assert_allclose(reached, pose, atol=1e-12)
