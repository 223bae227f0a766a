# SPDX-License-Identifier: Apache-2.0
"""Paths under an acceleration limit: how they start and end, and that the gate accepts them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.arm_gate import ArmGate
from qwen_vla_control.gate.joint_rules import MotionRules, check_motion
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.motion.joint_path import JointPath, rest_to_rest
from qwen_vla_control.reasons import Reason, Refused

NOW = 10**18  # [ns] of the decisions
PERIOD = 0.02
LIMIT = np.array([20.0, 20.0])
RULES = MotionRules(
    joints=("a", "b"),
    lower=np.full(2, -9.0),
    upper=np.full(2, 9.0),
    speed=np.full(2, 3.0),
    start_jump=np.full(2, 9.0),
    step=np.full(2, 9.0),
    acceleration=LIMIT,
)


def wave(amplitude: float, frequency: float, rows: int = 50) -> np.ndarray:
    times = PERIOD * np.arange(1, rows + 1)
    return np.stack([amplitude * np.sin(frequency * times), np.zeros(rows)], axis=1)


@given(st.floats(0.01, 0.4), st.floats(0.5, 5.0), st.integers(1, 40), st.floats(-0.1, 0.1))
@settings(max_examples=60)
def test_a_chunk_within_its_limits_is_executed_within_them_from_rest_to_rest(amplitude, frequency, steps, offset):
    rows = wave(amplitude, frequency)
    start = np.array([offset, 0.0])
    path = JointPath.blended_in(RULES.joints, rows, PERIOD, start, np.zeros(2), 0.9 * LIMIT)
    executed = path.decelerated(steps, LIMIT)
    assert np.allclose(executed.positions[0], start) and not executed.velocities[[0, -1]].any()
    assert (executed.peak_accelerations() <= LIMIT * 1.01).all()
    # What was asked for is what is done once the offset is gone.
    assert np.allclose(path.positions[-1], rows[-1])


@given(st.floats(0.05, 0.5), st.floats(0.5, 3.0))
@settings(max_examples=30)
def test_deceleration_stays_on_the_path(amplitude, frequency):
    rows = wave(amplitude, frequency)
    path = JointPath.blended_in(RULES.joints, rows, PERIOD, np.zeros(2), np.zeros(2), LIMIT)
    executed = path.decelerated(20, LIMIT)
    assert np.allclose(executed.positions[:21], path.positions[:21]) or executed.steps >= 50
    assert (executed.positions >= path.positions.min(axis=0) - 1e-9).all()
    assert (executed.positions <= path.positions.max(axis=0) + 1e-9).all()


def test_a_path_that_needs_more_acceleration_than_allowed_is_refused_and_says_where():
    zigzag = np.zeros((10, 2))
    zigzag[1::2, 1] = 0.02
    (violation,) = check_motion(JointPath.through(RULES.joints, zigzag, PERIOD), RULES)
    assert violation.reason is Reason.ACCELERATION_LIMIT and "'b'" in violation.message
    assert check_motion(JointPath.through(RULES.joints, zigzag, 10 * PERIOD), RULES) == []


@given(st.floats(0.05, 2.0), st.floats(0.5, 20.0))
def test_rest_to_rest_respects_the_acceleration(way, limit):
    path = rest_to_rest(("a", "b"), np.zeros(2), np.array([way, 0.0]), np.full(2, 3.0), PERIOD, np.full(2, limit))
    assert (path.peak_accelerations() <= 1.05 * limit).all()


# A robot of 14 channels, absolute joint positions ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def aloha() -> Embodiment:
    return load_robot("aloha")


@pytest.fixture(scope="module")
def gate(aloha) -> ArmGate:
    return ArmGate(aloha)


@pytest.fixture(scope="module")
def home(aloha, gate) -> np.ndarray:
    return np.array([aloha.home[name] for name in gate.joints])


def rows_at(aloha: Embodiment, gripper: float = 0.0) -> np.ndarray:
    """The home pose as a chunk: (50, 14) in the order of the channels."""
    row = []
    for arm in aloha.arms:
        row += [*(aloha.home[joint] for joint in arm.joints), gripper]
    return np.tile(row, (50, 1))


def chunk_of(aloha: Embodiment, rows: np.ndarray) -> Chunk:
    return Chunk(
        chunk_id=1,
        stamp_ns=10**18,
        frame_id=aloha.base_frame,
        embodiment=aloha.name,
        control_mode="joint_position",
        channel_names=tuple(aloha.channel_names),
        instruction="pour the beads",
        horizon=50,
        execution_horizon=25,
        period=aloha.period,
        data=np.asarray(rows, np.float32).reshape(-1),
    )


def test_channels_arm_by_arm_become_joints_with_the_grippers_at_the_end(aloha, gate, home):
    rows = rows_at(aloha)
    rows[:, 6] = np.linspace(0.0, 1.0, 50)  # left_gripper
    rows[:, 13] = 0.5  # right_gripper
    rows[:, 7] += np.linspace(0.0, 0.2, 50)  # follower_right/waist
    executed = gate.decide(chunk_of(aloha, rows), RobotState(NOW, home, home)).path
    joint = dict(zip(gate.joints, executed.positions[-1] - home, strict=True))
    assert joint["follower_right/waist"] > 0.05 and joint["follower_left/waist"] == pytest.approx(0.0, abs=1e-6)
    assert joint["follower_left/left_finger"] > 0.015
    assert joint["follower_right/left_finger"] == pytest.approx(0.018, abs=1e-4)
    # Commanded half open at once, it moves as fast as it may.
    assert executed.peak_speeds()[:, -1].max() <= aloha.limits["follower_right/left_finger"].velocity


def test_a_start_some_way_off_is_approached_gently(aloha, gate, home):
    measured = home.copy()
    measured[1] += 0.1
    executed = gate.decide(chunk_of(aloha, rows_at(aloha)), RobotState(NOW, home, measured)).path
    assert (executed.peak_accelerations() <= gate.motion.acceleration + 1e-3).all()
    assert np.allclose(executed.positions[-1], home, atol=0.01)


@pytest.mark.parametrize(
    ("joint", "value", "reason"),
    [
        (1, 0.9, Reason.START_JUMP),
        (0, float("nan"), Reason.NON_FINITE),
        (6, 1.3, Reason.POSITION_LIMIT),
    ],
)
def test_what_is_wrong_with_one_channel_refuses_both_arms(aloha, gate, home, joint, value, reason):
    rows = rows_at(aloha)
    rows[:, joint] += value
    with pytest.raises(Refused) as refused:
        gate.decide(chunk_of(aloha, rows), RobotState(NOW, home, home))
    assert reason in refused.value.reasons


def test_channels_of_the_arms_swapped_are_refused(aloha, gate, home):
    chunk = chunk_of(aloha, rows_at(aloha))
    swapped = replace(chunk, channel_names=chunk.channel_names[7:] + chunk.channel_names[:7])
    with pytest.raises(Refused) as refused:
        gate.decide(swapped, RobotState(NOW, home, home))
    assert refused.value.reasons == (Reason.WRONG_JOINTS,)


def test_a_joint_at_its_limit_may_move_away_from_it(aloha, gate, home):
    """The sleep pose of this arm is its shoulder's lower limit; servos report it a little beyond."""
    measured = home.copy()
    measured[1] = aloha.limits["follower_left/shoulder"].lower - 0.003
    rows = rows_at(aloha)
    rows[:, 1] = measured[1] + 0.2 * (1 - np.cos(np.linspace(0, 1.5, 50)))
    executed = gate.decide(chunk_of(aloha, rows), RobotState(NOW, measured, measured)).path
    assert executed.positions[-1, 1] > aloha.limits["follower_left/shoulder"].lower
    rows[:, 1] = measured[1] - 0.2 * (1 - np.cos(np.linspace(0, 1.5, 50)))
    with pytest.raises(Refused) as refused:
        gate.decide(chunk_of(aloha, rows), RobotState(NOW, measured, measured))
    assert Reason.POSITION_LIMIT in refused.value.reasons
