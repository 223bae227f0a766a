# SPDX-License-Identifier: Apache-2.0
"""Every channel moves its own joint, every row counts, and what no joint can do is refused by its name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embodiment_descriptions import ControlMode, Kinematics, load_robot, pose_from_delta
from qwen_vla_control.gate.chunk_to_joints import GRIPPER_OVERSHOOT, ChunkToJoints
from qwen_vla_control.reasons import Reason, Refused

ROWS = arrays(float, (5, 7), elements=st.floats(0.0, 1.0))


@given(ROWS)
def test_each_channel_of_joint_positions_is_the_position_of_its_joint_in_every_row(rig, rows):
    robot, own = rig(), dict(zip(rig().channel_names, rows.T, strict=True))
    to_joints = ChunkToJoints(robot)
    found = dict(zip(to_joints.joints, to_joints.path(rows, np.full(7, 9.0)).T, strict=True))
    assert to_joints.joints == robot.joint_names
    for joint in ("left_slide", "left_turn", "right_slide", "right_turn", "lift"):
        np.testing.assert_array_equal(found[joint], own[joint])
    np.testing.assert_allclose(found["left_finger"], 0.04 * own["left_gripper"], atol=1e-12)
    np.testing.assert_allclose(found["right_finger"], 0.03 - 0.04 * own["right_gripper"], atol=1e-12)


@pytest.mark.parametrize("arm", ["left", "right"])
@pytest.mark.parametrize("row", [0, 4])
@pytest.mark.parametrize(("end", "outward"), [(0.0, -1.0), (1.0, 1.0)])
def test_a_gripper_a_little_beyond_an_end_means_that_end_and_more_is_refused(rig, arm, row, end, outward):
    robot, rows = rig(), np.full((5, 7), 0.5)
    channel, finger = robot.channel_names.index(f"{arm}_gripper"), robot.joint_names.index(f"{arm}_finger")
    to_joints = ChunkToJoints(robot)
    rows[row, channel] = end
    at_the_end = to_joints.path(rows, np.zeros(7))
    rows[row, channel] = end + outward * (GRIPPER_OVERSHOOT - 1e-6)
    np.testing.assert_array_equal(to_joints.path(rows, np.zeros(7)), at_the_end)
    assert at_the_end[row, finger] == pytest.approx(robot.gripper_to_joint(end, ("left", "right").index(arm)))
    rows[row, channel] = end + outward * (GRIPPER_OVERSHOOT + 1e-6)
    with pytest.raises(Refused, match=f"gripper '{arm}_finger' at step {row}: ") as refused:
        to_joints.path(rows, np.zeros(7))
    assert refused.value.reasons == (Reason.POSITION_LIMIT,)


def test_the_tips_follow_their_own_deltas_from_where_they_were_observed():
    robot = load_robot("aloha").model_copy(update={"control_mode": ControlMode.EEF_DELTA})
    to_joints, opening = ChunkToJoints(robot), np.full((4, 1), 0.5)
    observed = np.array([robot.home[name] for name in robot.joint_names])
    observed[[0, 6]] += 0.1, -0.2
    ends = [0.02, -0.01, 0.03, 0.0, 0.05, 0.02], [-0.03, 0.02, -0.01, 0.0, -0.04, 0.03]
    left, right = (np.linspace(0.25, 1.0, 4)[:, None] * end for end in ends)
    rows = np.hstack([left, opening, right, opening])
    tips = to_joints.poses(to_joints.path(rows, observed))
    for arm, deltas in enumerate((left, right)):
        origin = Kinematics(robot, arm=arm).forward(observed[6 * arm : 6 * arm + 6])
        np.testing.assert_allclose(tips[arm], pose_from_delta(origin, deltas), atol=2e-4)
    np.testing.assert_array_equal(to_joints.positions(observed)[:, 0], to_joints.poses(observed)[:, 0, :3, 3])


@pytest.mark.parametrize(("robot", "columns", "who"), [("aloha", 0, "arm 'left'"), ("aloha", 7, "arm 'right'")])
def test_an_arm_that_cannot_follow_is_named(robot, columns, who):
    robot = load_robot(robot).model_copy(update={"control_mode": ControlMode.EEF_DELTA})
    rows = np.full((4, 14), 0.0)
    rows[2, columns] = 3.0
    with pytest.raises(Refused, match=f"^{who}: ") as refused:
        ChunkToJoints(robot).path(rows, np.array([robot.home[name] for name in robot.joint_names]))
    assert refused.value.reasons == (Reason.UNREACHABLE,)


@pytest.mark.parametrize("mode", [ControlMode.BASE_WAYPOINTS, ControlMode.BASE_VELOCITY])
def test_chunks_of_a_base_are_no_joint_positions(mode):
    robot = load_robot("mobile_base").model_copy(update={"control_mode": mode})
    with pytest.raises(ValueError, match=f"'{mode}', which has no joint path; use joint_position and eef_"):
        ChunkToJoints(robot)


def test_no_delta_of_a_tip_moves_a_torso(rig):
    with pytest.raises(ValueError, match="'rig' has a waist, which no eef_delta channel moves"):
        ChunkToJoints(rig().model_copy(update={"control_mode": ControlMode.EEF_DELTA}))


@pytest.mark.parametrize(("limit", "outward"), [("lower", -1.0), ("upper", 1.0)])
def test_a_joint_that_was_observed_beyond_a_limit_is_led_no_farther_out_than_where_the_motion_begins(limit, outward):
    robot = load_robot("widowx")
    to_joints, wrist = ChunkToJoints(robot), robot.joint_names.index("wrist_angle")
    start = np.array([robot.home[name] for name in robot.joint_names])
    start[wrist] = getattr(robot.limits["wrist_angle"], limit)
    observed = start.copy()
    observed[wrist] += 0.02 * outward
    still = np.tile([0.0] * 6 + [0.5], (3, 1))
    np.testing.assert_allclose(to_joints.path(still, observed)[:, wrist], observed[wrist], atol=1e-3)
    np.testing.assert_allclose(to_joints.path(still, observed, start)[:, wrist], start[wrist], atol=1e-12)
