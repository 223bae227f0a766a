# SPDX-License-Identifier: Apache-2.0
"""The gate: anything that is wrong is refused whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.arm_gate import HOME_MARGIN, ArmGate
from qwen_vla_control.gate.joint_rules import grown
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.reasons import Reason, Refused

NOW = 10**18  # [ns] of the decisions

# The whole gate ---------------------------------------------------------------------------------------------------


def with_rows(chunk, rows):
    return replace(chunk, data=np.asarray(rows, np.float32).reshape(-1))


def test_a_good_chunk_becomes_its_first_steps_ending_at_rest(gate, good_chunk, home):
    executed = gate.decide(good_chunk, RobotState(NOW, home, home)).path
    assert executed.steps == 8 and (executed.velocities[-1] == 0).all()
    assert np.allclose(executed.positions[0], home)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"row": 5, "column": 1, "value": 3.0}, Reason.UNREACHABLE),
        ({"row": 0, "column": 1, "value": 0.12}, Reason.START_JUMP),
        ({"row": 15, "column": 1, "value": 0.2}, Reason.STEP_JUMP),  # in the part that would not even be executed
        ({"row": 3, "column": 6, "value": 1.5}, Reason.POSITION_LIMIT),
        ({"row": 3, "column": 6, "value": -0.5}, Reason.POSITION_LIMIT),
    ],
)
def test_a_single_bad_row_refuses_the_whole_chunk(gate, good_chunk, home, rows, reason):
    data = good_chunk.rows.copy()
    data[rows["row"], rows["column"]] = rows["value"]
    with pytest.raises(Refused) as refused:
        gate.decide(with_rows(good_chunk, data), RobotState(NOW, home, home))
    assert reason in refused.value.reasons


def test_a_gripper_value_a_little_beyond_its_range_means_its_end(gate, good_chunk, home):
    data = good_chunk.rows.copy()
    data[:, 6] = 1.04
    assert np.allclose(
        gate.decide(with_rows(good_chunk, data), RobotState(NOW, home, home)).path.positions[:, -1], 0.037
    )


def test_through_the_table_is_refused(gate, good_chunk, home):
    data = good_chunk.rows.copy()
    data[:, 0] = np.linspace(0.02, 0.25, 16)  # the tool points down, 0.20 m above the table
    with pytest.raises(Refused) as refused:
        gate.decide(with_rows(good_chunk, data), RobotState(NOW, home, home))
    assert Reason.OUT_OF_WORKSPACE in refused.value.reasons


def test_a_chunk_anchored_where_the_arm_no_longer_is_is_refused(gate, good_chunk, home):
    measured = home.copy()
    measured[0] += 0.5
    with pytest.raises(Refused) as refused:
        gate.decide(good_chunk, RobotState(NOW, home, measured))
    assert Reason.START_JUMP in refused.value.reasons


def test_home_motion_passes_the_gate_and_arrives(gate, home):
    start = home + np.array([0.6, -0.4, 0.3, 0.2, 0.1, -0.5, -0.01])
    motion = gate.home_path(start, 0.25)
    assert np.allclose(motion.positions[-1], home)
    assert (motion.peak_speeds() <= 0.26 * gate.motion.speed).all()


# The manufacturer's sleep pose of the WidowX: folded, the tip at the edge of the workspace. Joints in the order of the
# gate, fingers half open.
SLEEP = np.array([0.0, -1.80, 1.55, 0.0, 0.8, 0.0, 0.025])


@given(offset=arrays(float, 7, elements=st.floats(-0.02, 0.02)), finger=st.floats(0.015, 0.037))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_the_way_home_out_of_the_sleep_pose_passes_the_gate(gate, home, offset, finger):
    measured = SLEEP + offset
    measured[-1] = finger
    motion = gate.home_path(measured, 0.25)
    np.testing.assert_allclose(motion.positions[[0, -1]], [measured, home])
    assert (motion.peak_speeds() <= 0.26 * gate.motion.speed).all()


@given(start=arrays(float, 7, elements=st.floats(-1.5, 1.5)), finger=st.floats(0.015, 0.037))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
def test_no_way_home_leads_below_the_table_or_far_out(gate, widowx, home, start, finger):
    measured = np.clip(home + start, gate.motion.lower, gate.motion.upper)
    measured[-1] = finger
    try:
        motion = gate.home_path(measured, 0.25)
    except Refused:
        return
    (tip,) = gate.poses(motion.positions)[..., :3, 3]
    box = widowx.safety.workspace
    assert (tip >= np.minimum(box.min, tip[0] - [HOME_MARGIN, HOME_MARGIN, 0.0]) - 1e-5).all()
    assert (tip <= np.maximum(box.max, tip[0] + HOME_MARGIN) + 1e-5).all()
    assert (tip[-1] >= box.min).all() and (tip[-1] <= box.max).all()


def test_a_box_grows_around_a_point_but_not_below_it():
    lower, upper = grown([0.1, -0.3, 0.0], [0.5, 0.3, 0.4], np.array([0.09, 0.0, 0.0]), 0.02)
    np.testing.assert_allclose(lower, [0.07, -0.3, 0.0])
    np.testing.assert_allclose(upper, [0.5, 0.3, 0.4])


# Joints that turn without end ----------------------------------------------------------------------------------------

WRIST = "wrist_rotate"


@pytest.fixture(scope="module")
def endless(turning):
    return ArmGate(turning)


def turned(turning, wrist: float) -> np.ndarray:
    """The home pose, the wrist elsewhere."""
    return np.array([wrist if name == WRIST else turning.home[name] for name in turning.joint_names])


def chunk_at(turning, good_chunk, wrist: np.ndarray) -> Chunk:
    """A chunk that only turns the wrist."""
    rows = turning.layout.of_joints(turning.joint_names, np.stack([turned(turning, angle) for angle in wrist]))
    rows[:, turning.layout.grippers] = turning.gripper_from_joint(turned(turning, 0.0)[-1])
    return replace(
        good_chunk,
        control_mode="joint_position",
        channel_names=turning.channel_names,
        frame_id=turning.base_frame,
        period=turning.period,
        data=rows.astype(np.float32).reshape(-1),
    )


@pytest.mark.parametrize("turns", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_continuous_joint_is_commanded_in_the_turn_that_it_is_measured_in(turning, endless, good_chunk, turns, sign):
    """Onwards over the half turn, reported within -pi .. pi, as in most data sets."""
    angles = sign * (3.0 + 0.05 * np.arange(1, 17))
    chunk = chunk_at(turning, good_chunk, np.arctan2(np.sin(angles), np.cos(angles)))
    measured = turned(turning, sign * 3.0 + 2 * np.pi * turns)
    path = endless.decide(chunk, RobotState(NOW, measured, measured)).path
    wrist = path.positions[:, endless.joints.index(WRIST)]
    np.testing.assert_allclose(wrist[1:], angles[:8] + 2 * np.pi * turns, atol=1e-5)


def test_a_continuous_joint_must_not_jump_either(turning, endless, good_chunk):
    angles = 3.0 + 0.05 * np.arange(1, 17)
    measured = turned(turning, 1.0)
    with pytest.raises(Refused) as refused:
        endless.decide(chunk_at(turning, good_chunk, angles), RobotState(NOW, measured, measured))
    assert Reason.START_JUMP in refused.value.reasons


@pytest.mark.parametrize("turns", [-1, 0, 2])
def test_a_continuous_joint_goes_home_the_short_way(turning, endless, turns):
    path = endless.home_path(turned(turning, 2 * np.pi * turns + 0.5), 0.25)
    wrist = path.positions[:, endless.joints.index(WRIST)]
    np.testing.assert_allclose([wrist[0], wrist[-1]], 2 * np.pi * turns + np.array([0.5, turning.home[WRIST]]))
