# SPDX-License-Identifier: Apache-2.0
"""What is commanded begins where the controllers start from, and only where the joints are near there."""

from __future__ import annotations

import numpy as np
import pytest

from qwen_vla_control.gate import ArmGate, Reference, Refused, RobotState
from qwen_vla_control.gate.joint_rules import REFERENCE_NEAR, check_reference
from qwen_vla_control.motion.command_state import Motion
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.reasons import Reason

NOW = 10**18


def reference(positions: np.ndarray) -> Reference:
    return Reference(positions, ("arm_controller/controller_state",) * len(positions))


def off(gate: ArmGate, home: np.ndarray, joint: str, by: float) -> np.ndarray:
    return home + by * (np.array(gate.joints) == joint)


def test_the_path_begins_at_the_reference_and_goes_where_the_chunk_says(gate, home, good_chunk):
    plain = gate.decide(good_chunk, RobotState(NOW, home, home)).path
    start = off(gate, home, "waist", 0.05)
    path = gate.decide(good_chunk, RobotState(NOW, home, home, reference=reference(start))).path
    assert np.array_equal(path.positions[0], start)
    assert np.allclose(path.positions[1:], plain.positions[1:])


@pytest.mark.parametrize("joint", ["waist", "wrist_rotate"])
def test_a_joint_that_was_moved_is_named_with_both_values_and_the_remedy(gate, home, good_chunk, joint):
    start = off(gate, home, joint, 0.2)
    with pytest.raises(Refused) as refused:
        gate.decide(good_chunk, RobotState(NOW, home, home, reference=reference(start)))
    assert Reason.REFERENCE_MISMATCH in refused.value.reasons
    column, text = gate.joints.index(joint), str(refused.value)
    assert f"joint '{joint}': its controller starts from {start[column]:.4f} (arm_controller/controller_state)" in text
    assert f"measured at {home[column]:.4f}, 0.2000 away (limit {REFERENCE_NEAR:.4f})" in text
    assert "~/resynchronize" in text


def test_a_joint_that_moves_may_lag_behind_farther_than_one_at_rest(gate, home):
    start = reference(off(gate, home, "elbow", 0.2))
    assert check_reference(start, home, gate.motion) and not check_reference(start, home, gate.motion, at_rest=False)
    assert check_reference(reference(off(gate, home, "elbow", 0.4)), home, gate.motion, at_rest=False)


def test_a_gripper_that_holds_something_keeps_pressing_and_is_no_mismatch(gate, home, good_chunk):
    """Commanded closed, stopped by what it holds; the chunk keeps it closed."""
    finger = gate.joints.index("left_finger")
    closed = gate.motion.lower[finger]
    good_chunk.rows[:, 6] = 0.0
    measured = home.copy()
    measured[finger] = closed + 0.01
    start = home.copy()
    start[finger] = closed
    path = gate.decide(good_chunk, RobotState(NOW, measured, measured, reference=reference(start))).path
    assert np.allclose(path.positions[:, finger], closed)


def test_a_false_measurement_does_not_shift_what_is_commanded(gate, home, good_chunk):
    """The arm stands at home, and is measured beside it: the speed of what it is told stays within its limits."""
    measured = off(gate, home, "elbow", 0.09)
    path = gate.decide(good_chunk, RobotState(NOW, measured, measured, reference=reference(home))).path
    assert np.array_equal(path.positions[0], home)
    assert (path.peak_speeds().max(axis=0) <= gate.motion.speed + 1e-6).all()


def test_while_it_moves_it_begins_where_it_is_commanded_to_be(gate, home, good_chunk):
    goal = off(gate, home, "waist", 0.2)
    motion = Motion(JointPath.through(gate.joints, np.linspace(home, goal, 6), 0.2), NOW, None)
    now = NOW + 500_000_000
    commanded = motion.commanded(now)[0]
    state = RobotState(now, commanded, commanded, motion, reference=reference(commanded))
    assert np.array_equal(gate.decide(good_chunk, state).path.positions[0], commanded)
