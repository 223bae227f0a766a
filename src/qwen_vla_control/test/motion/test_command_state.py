"""Where the robot is commanded to hold."""

from __future__ import annotations

import numpy as np
import pytest

from qwen_vla_control.motion.command_state import CommandState, Motion
from qwen_vla_control.motion.joint_path import JointPath

JOINTS = ("shoulder", "finger")
START = 10**18
S = 10**9


@pytest.fixture
def commanded():
    return CommandState(keep=np.array([False, True]), near=0.1)


def motion_to(*goal) -> Motion:
    rows = np.linspace([0.0, 0.03], goal, 5)
    return Motion(JointPath.through(JOINTS, rows, 0.2), START, None)


def test_during_a_motion_it_is_where_the_motion_is_by_now(commanded):
    motion = motion_to(0.8, 0.015)
    commanded.begin(motion)
    held = commanded.hold_positions(START + S // 2, measured=np.array([0.3, 0.02]))
    assert np.allclose(held, motion.path.at(0.5)[0], atol=1e-9) and 0.2 < held[0] < 0.6
    assert commanded.hold(held) is motion and commanded.motion is None
    # A second hold does not move the robot any more.
    assert np.array_equal(commanded.hold_positions(START + 3 * S, measured=held + 0.01), held)


def test_during_a_motion_the_joint_states_may_be_unknown(commanded):
    commanded.begin(motion_to(0.8, 0.015))
    assert commanded.hold_positions(START + S // 2, measured=None) is not None


def test_after_a_motion_it_is_its_end_while_the_robot_is_there(commanded):
    commanded.begin(motion_to(0.8, 0.015))
    commanded.end()
    assert np.array_equal(commanded.hold_positions(START + 9 * S, np.array([0.75, 0.02])), [0.8, 0.015])


def test_a_robot_that_somebody_moved_is_held_where_it_is_but_keeps_its_grip(commanded):
    commanded.begin(motion_to(0.8, 0.015))
    commanded.end()
    assert np.array_equal(commanded.hold_positions(START + 9 * S, np.array([0.2, 0.025])), [0.2, 0.015])


def test_before_any_command_it_is_where_the_robot_is_measured(commanded):
    assert np.array_equal(commanded.hold_positions(START, np.array([0.2, 0.02])), [0.2, 0.02])


def test_nothing_known_is_nothing_commanded(commanded):
    assert commanded.hold_positions(START, measured=None) is None
    commanded.begin(motion_to(0.8, 0.015))
    commanded.end()
    assert commanded.hold_positions(START + 9 * S, measured=None) is None


def test_a_motion_is_over_at_its_last_row():
    motion = motion_to(0.8, 0.015)
    assert not motion.is_over(START + round(0.79 * S)) and motion.is_over(START + round(0.81 * S))
    assert not motion.commanded(START + S)[1].any()


def test_it_is_over_exactly_at_its_end_and_follows_its_path_until_then():
    motion = motion_to(0.8, 0.015)
    assert motion.is_over(START + 8 * S // 10) and not motion.is_over(START + 8 * S // 10 - 1000)
    for tenths in range(8):
        for told, own in zip(motion.commanded(START + tenths * S // 10), motion.path.at(tenths / 10), strict=True):
            np.testing.assert_allclose(told, own, atol=1e-7)


@pytest.mark.parametrize("joint", [0, 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_joint_that_somebody_moved_is_enough_to_hold_the_arm_where_it_is(joint, sign):
    commanded = CommandState(keep=np.array([False, False, True]), near=0.1)
    last = np.array([0.5, -0.5, 0.02])
    commanded.hold(last)
    measured = last + [0.05, 0.05, -0.01]
    measured[joint] = last[joint] + sign * 0.1
    assert commanded.hold_positions(START, np.round(measured, 9)).tolist() == last.tolist(), "near enough"
    measured[joint] = last[joint] + sign * 0.101
    assert commanded.hold_positions(START, measured).tolist() == [*measured[:2], 0.02]


def test_what_is_held_does_not_change_with_what_was_given(commanded):
    given = np.array([0.2, 0.02])
    assert commanded.hold(given) is None
    given += 1.0
    assert commanded.hold_positions(START, np.array([0.2, 0.02])).tolist() == [0.2, 0.02]
    motion = motion_to(0.8, 0.015)
    commanded.begin(motion)
    assert commanded.end() is motion and commanded.end() is None
    motion.path.positions[:] = 9.0
    assert commanded.hold_positions(START, np.array([0.8, 0.02])).tolist() == [0.8, 0.015]
