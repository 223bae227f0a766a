# SPDX-License-Identifier: Apache-2.0
"""The policy without a model holds every robot's position, or replays a file."""

from __future__ import annotations

import numpy as np
import pytest

from embodiment_descriptions import ControlMode, load_robot
from qwen_vla.policies import Observation, open_policy, warm_up


def seen(state=None) -> Observation:
    return Observation({}, "stay", 7, state)


def test_an_arm_in_end_effector_deltas_stays_with_the_gripper_as_it_is():
    robot = load_robot("widowx")
    policy = open_policy("mock://hold", robot)
    positions = dict(robot.home) | {robot.arms[0].gripper.joint: robot.gripper_to_joint(0.25)}
    chunk = policy.infer(seen(np.array([positions[name] for name in policy.state_names])))
    np.testing.assert_allclose(chunk.data, np.tile([0, 0, 0, 0, 0, 0, 0.25], (robot.chunk_size, 1)), atol=1e-6)
    assert (chunk.stamp_ns, chunk.instruction, chunk.embodiment) == (7, "stay", "widowx")
    assert chunk.execution_horizon == robot.chunk_size // 2 and chunk.period == robot.period


def test_two_arms_in_joint_positions_stay_each_with_its_gripper():
    robot = load_robot("aloha")
    policy = open_policy("mock://hold", robot)
    positions = {name: 0.01 * number for number, name in enumerate(robot.joint_names)}
    for number, arm in enumerate(robot.arms):
        positions[arm.gripper.joint] = robot.gripper_to_joint(0.3 + 0.4 * number, number)
    row = policy.infer(seen(np.array([positions[name] for name in policy.state_names]))).data[-1]
    by_channel = dict(zip(robot.channel_names, row, strict=True))
    for channel in robot.layout.channels:
        if channel.joint:
            assert by_channel[channel.name] == pytest.approx(positions[channel.joint])
    openings = [row[column] for column in robot.layout.grippers]
    assert openings == pytest.approx([0.3, 0.7], abs=1e-6)


def test_a_base_stays_where_it_is_and_needs_no_state():
    robot = load_robot("mobile_base")
    policy = open_policy("mock://hold", robot)
    assert policy.state_names == () and policy.infer(seen()).control_mode is ControlMode.BASE_WAYPOINTS
    assert not policy.infer(seen()).data.any() and warm_up(policy) >= 0


@pytest.mark.parametrize("state", [None, np.zeros(3)])
def test_without_a_whole_state_an_arm_is_not_held(state):
    with pytest.raises(ValueError, match="the state must be 7 numbers"):
        open_policy("mock://hold", load_robot("widowx")).infer(seen(state))


def test_recorded_chunks_are_said_one_after_the_other_or_by_the_seed(tmp_path):
    robot = load_robot("mobile_base")
    chunks = np.arange(3 * robot.chunk_size * 3, dtype=np.float32).reshape(3, robot.chunk_size, 3)
    np.save(tmp_path / "chunks.npy", chunks)
    policy = open_policy(f"mock://{tmp_path}/chunks.npy", robot)
    said = [policy.infer(seen()).data for _ in range(4)]
    np.testing.assert_array_equal(said, chunks[[0, 1, 2, 0]])
    np.testing.assert_array_equal(policy.infer(seen(), seed=5).data, chunks[2])
    with pytest.raises(
        ValueError, match=r"does not fit 'widowx': chunks: the file has \(8, 3\) .* the robot \(16, 7\)"
    ):
        open_policy(f"mock://{tmp_path}/chunks.npy", load_robot("widowx"))


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (np.zeros((8, 3)), r"must contain numbers \[N, horizon, channels\], got float64 \(8, 3\)"),
        (np.zeros((0, 8, 3)), r"got float64 \(0, 8, 3\)"),
        (np.full((1, 8, 3), "x"), "must contain numbers"),
        (np.full((1, 8, 3), np.nan), "non-finite"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, chunks, message):
    np.save(tmp_path / "chunks.npy", chunks)
    with pytest.raises(ValueError, match=message):
        open_policy(f"mock://{tmp_path}/chunks.npy", load_robot("mobile_base"))


@pytest.mark.parametrize("address", ["", "still", "chunks.csv"])
def test_an_address_that_means_nothing_is_refused_with_those_that_do(address):
    with pytest.raises(ValueError, match=r"give mock://hold, or the \.npy file"):
        open_policy(f"mock://{address}", load_robot("widowx"))


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere.npy"):
        open_policy("mock://nowhere.npy", load_robot("widowx"))
