# SPDX-License-Identifier: Apache-2.0
"""The current motion and the last commanded position."""

from __future__ import annotations

import numpy as np

from qwen_vla_control.motion.command_state import CommandState, Motion
from qwen_vla_control.motion.joint_path import JointPath

JOINTS = ("shoulder", "finger")
START = 10**18
S = 10**9


def motion_to(*goal) -> Motion:
    rows = np.linspace([0.0, 0.03], goal, 5)
    return Motion(JointPath.through(JOINTS, rows, 0.2), START, None)


def test_during_a_motion_the_robot_is_commanded_to_be_where_the_motion_is_by_now():
    motion = motion_to(0.8, 0.015)
    positions, velocities = motion.commanded(START + S // 2)
    assert np.allclose(positions, motion.path.at(0.5)[0], atol=1e-9) and 0.2 < positions[0] < 0.6
    assert velocities[0] > 0


def test_after_a_motion_it_stands_at_its_end():
    commanded, motion = CommandState(), motion_to(0.8, 0.015)
    assert commanded.last is None
    commanded.begin(motion)
    assert commanded.end() is motion and commanded.motion is None
    assert np.array_equal(commanded.last, [0.8, 0.015])


def test_a_robot_that_was_told_to_hold_stands_there():
    commanded, motion = CommandState(), motion_to(0.8, 0.015)
    commanded.begin(motion)
    held = motion.commanded(START + S // 2)[0]
    assert commanded.stand(held) is motion and np.array_equal(commanded.last, held)
    assert commanded.stand(None) is None and commanded.last is None


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


def test_what_is_held_does_not_change_with_what_was_given():
    commanded, given = CommandState(), np.array([0.2, 0.02])
    assert commanded.stand(given) is None
    given += 1.0
    assert commanded.last.tolist() == [0.2, 0.02]
    motion = motion_to(0.8, 0.015)
    commanded.begin(motion)
    assert commanded.end() is motion and commanded.end() is None
    motion.path.positions[:] = 9.0
    assert commanded.last.tolist() == [0.8, 0.015]
