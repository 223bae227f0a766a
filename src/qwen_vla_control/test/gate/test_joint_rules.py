# SPDX-License-Identifier: Apache-2.0
"""What the joints may do: each limit counts, for every joint, in every row and direction, and between the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qwen_vla_control.gate.joint_rules import MotionRules, check_motion, check_start, check_workspace, grown
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.reasons import Reason

JOINTS = ("a", "b", "c")
RULES = MotionRules(
    joints=JOINTS,
    lower=np.array([-1.0, -2.0, 0.0]),
    upper=np.array([1.0, 2.0, 0.5]),
    speed=np.array([3.0, 2.0, 1.0]),
    start_jump=np.array([0.3, 0.3, 0.2]),
    step=np.array([0.4, 0.3, 0.2]),
    acceleration=np.full(3, np.inf),
)
WIDE = replace(
    RULES,
    **dict.fromkeys(("upper", "speed", "start_jump", "step", "acceleration"), np.full(3, 99.0)),
    lower=np.full(3, -99.0),
)
PERIOD = 0.2
BOTH_WAYS = pytest.mark.parametrize("sign", [-1, 1])
EVERY_JOINT = pytest.mark.parametrize("joint", [0, 1, 2])


def reasons(violations) -> set[Reason]:
    return {violation.reason for violation in violations}


def path(points, velocity=None) -> JointPath:
    return JointPath.through(JOINTS, np.asarray(points, float), PERIOD, velocity)


def still(rows: int = 5) -> np.ndarray:
    return np.tile([0.0, 0.0, 0.25], (rows, 1))


# Where the limits come from -------------------------------------------------------------------------------------------


def test_limits_are_those_of_the_urdf_narrowed_by_the_yaml_and_grippers_may_jump(rig):
    safety = {"max_start_jump_rad": 0.3, "max_step_rad": 0.4, "max_joint_acceleration": 5.0}
    rules = MotionRules.of(rig(max_joint_speed_fraction=0.5, **safety))
    assert rules.joints == (
        *("left_slide", "left_turn", "right_slide", "right_turn", "left_finger", "right_finger", "lift"),
    )
    assert rules.lower.tolist() == [-1.2, -2.0, -1.2, -2.0, -0.01, -0.01, 0.0]
    assert rules.upper.tolist() == [1.2, 1.5, 1.1, 1.5, 0.05, 0.05, 0.6]
    assert rules.speed.tolist() == [40.0, 35.0, 25.0, 20.0, 3.0, 1.5, 45.0]
    jump = np.array([1.0, 1.0, 1.0, 1.0, np.inf, np.inf, 1.0])
    np.testing.assert_allclose(rules.start_jump, 0.3 * jump)
    np.testing.assert_allclose(rules.step, 0.4 * jump)
    np.testing.assert_allclose(rules.acceleration, 5.0 * jump)


def test_without_a_limit_of_acceleration_there_is_none(rig):
    assert np.isinf(MotionRules.of(rig()).acceleration).all()


# Each limit alone -----------------------------------------------------------------------------------------------------


def moved(joint: int, row: int, way: float, rows: int = 6) -> np.ndarray:
    """Standing still, but from one row on some way off."""
    points = np.zeros((rows, 3))
    points[row:, joint] = way
    return points


@BOTH_WAYS
@EVERY_JOINT
@pytest.mark.parametrize(("row", "reason"), [(1, Reason.START_JUMP), (2, Reason.STEP_JUMP), (5, Reason.STEP_JUMP)])
def test_a_joint_may_go_as_far_as_its_limit_in_a_step_and_no_farther(joint, row, sign, reason):
    limits = np.array([0.3, 0.4, 0.5])
    rules = replace(WIDE, **{"start_jump" if row == 1 else "step": limits})
    assert check_motion(path(moved(joint, row, sign * limits[joint])), rules) == []
    (violation,) = check_motion(path(moved(joint, row, sign * (limits[joint] + 1e-5))), rules)
    assert violation.reason is reason and f"'{JOINTS[joint]}' at step {row - 1}" in violation.message


@BOTH_WAYS
@EVERY_JOINT
def test_where_a_robot_is_counts_as_the_start_for_every_joint_and_on_either_side(joint, sign):
    rules, measured = replace(WIDE, start_jump=np.array([0.3, 0.4, 0.5])), np.array([0.5, -0.5, 0.25])
    first = measured.copy()
    first[joint] += sign * rules.start_jump[joint]
    assert check_start(first, measured, rules) == []
    first[joint] += sign * 1e-5
    (violation,) = check_start(first, measured, rules)
    assert violation.reason is Reason.START_JUMP and f"'{JOINTS[joint]}' at step 0" in violation.message


@BOTH_WAYS
@EVERY_JOINT
@pytest.mark.parametrize("row", [1, 2, 5])
def test_a_joint_may_be_as_fast_as_its_limit_between_rows_and_no_faster(joint, row, sign):
    speed = np.array([1.0, 2.0, 3.0])
    mean = speed[joint] / 1.5  # of a step that begins and ends at rest
    rules = replace(WIDE, speed=speed)
    assert check_motion(path(moved(joint, row, sign * mean * PERIOD)), rules) == []
    (violation,) = check_motion(path(moved(joint, row, sign * (mean + 1e-5) * PERIOD)), rules)
    assert violation.reason is Reason.VELOCITY_LIMIT and f"'{JOINTS[joint]}' at step {row - 1}" in violation.message


@BOTH_WAYS
@EVERY_JOINT
@pytest.mark.parametrize("row", [1, 2, 5])
def test_a_joint_may_accelerate_as_hard_as_its_limit_and_no_harder(joint, row, sign):
    acceleration = np.array([5.0, 6.0, 7.0])
    way = acceleration[joint] * PERIOD**2 / 6.0  # from rest to rest
    rules = replace(WIDE, acceleration=acceleration)
    assert check_motion(path(moved(joint, row, sign * way)), rules) == []
    (violation,) = check_motion(path(moved(joint, row, sign * way * 1.001)), rules)
    assert violation.reason is Reason.ACCELERATION_LIMIT
    assert f"'{JOINTS[joint]}' at step {row - 1}" in violation.message


@BOTH_WAYS
@EVERY_JOINT
@pytest.mark.parametrize("row", [1, 2, 5])
def test_a_joint_may_go_to_its_limit_and_no_farther(joint, row, sign):
    rules = replace(WIDE, lower=np.array([-0.1, -0.2, -0.3]), upper=np.array([0.4, 0.5, 0.6]))
    limit = (rules.upper if sign > 0 else rules.lower)[joint]
    assert check_motion(path(moved(joint, row, limit)), rules) == []
    (violation,) = check_motion(path(moved(joint, row, limit + sign * 1e-3)), rules)
    assert violation.reason is Reason.POSITION_LIMIT
    words = f"'{JOINTS[joint]}' at step {row - 1}: {limit + sign * 1e-3:.4f} is outside"
    assert words in violation.message and f"{rules.lower[joint]:.4f} .. {rules.upper[joint]:.4f}" in violation.message


@pytest.mark.parametrize("share", [0.9, 1.1])
def test_rounding_of_speeds_and_accelerations_is_no_violation(share):
    """From rest to rest: the peaks of speed and acceleration for a way of 0.2."""
    way, found = path(moved(0, 2, 0.2)), int(share > 1.0)
    for limit, exactly, tolerance in (("speed", 1.5, 1e-6), ("acceleration", 30.0, 1e-3)):
        rules = replace(WIDE, **{limit: np.full(3, exactly - share * tolerance)})
        assert len(check_motion(way, rules)) == found


def test_rounding_is_no_violation():
    exactly = replace(WIDE, start_jump=np.full(3, 0.3), step=np.full(3, 0.3), upper=np.full(3, 0.6))
    assert check_motion(path([[0, 0, 0], [0.3 + 9e-7, 0, 0], [0.6 + 9e-7, 0, 0], [0.6, 0, 0]]), exactly) == []


# Guards ---------------------------------------------------------------------------------------------------------------


def test_a_path_without_a_step_is_refused():
    assert reasons(check_motion(path([[0.0, 0.0, 0.25]]), RULES)) == {Reason.WRONG_SHAPE}


@EVERY_JOINT
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_velocities_alone_that_are_not_finite_are_refused(joint, value):
    spoiled = path(still())
    spoiled.velocities[2, joint] = value
    assert reasons(check_motion(spoiled, RULES)) == {Reason.NON_FINITE}


@EVERY_JOINT
@BOTH_WAYS
def test_the_end_effector_must_not_leave_its_workspace_on_any_side_at_any_step(joint, sign):
    low, high = [-0.1, -0.2, -0.3], [0.4, 0.5, 0.6]
    points = np.zeros((4, 3))
    limit = (high if sign > 0 else low)[joint]
    points[2:, joint] = limit
    assert check_workspace(points, low, high) == []
    points[2:, joint] += sign * 1e-3
    (violation,) = check_workspace(points, low, high)
    assert violation.reason is Reason.OUT_OF_WORKSPACE
    assert f"step 1: {'xyz'[joint]} = {limit + sign * 1e-3:.3f} m is outside the workspace" in violation.message
    assert f"{low[joint]:.3f} .. {high[joint]:.3f} m" in violation.message


def test_an_end_effector_that_came_back_may_not_leave_again():
    points = np.array([[0.5, 0, 0], [0.4, 0, 0], [0.45, 0, 0]])
    assert reasons(check_workspace(points, [-1, -1, -1], [0.4, 1, 1])) == {Reason.OUT_OF_WORKSPACE}
    assert check_workspace(points[::-1][1:], [-1, -1, -1], [0.5, 1, 1]) == []


def test_the_first_of_several_places_is_told_and_how_many_there_are():
    points = np.zeros((6, 3))
    points[2:, 1] = 0.5
    points[4:, 0] = 0.5
    points[5:, 1] = 0.0
    (violation,) = check_motion(path(points), replace(WIDE, step=np.full(3, 0.4)))
    assert "'b' at step 1: motion 0.5000 over the limit 0.4000 (and 2 more)" in violation.message
    (violation,) = check_motion(path(points[:4]), replace(WIDE, step=np.full(3, 0.4)))
    assert violation.message.endswith("over the limit 0.4000")


# All limits together --------------------------------------------------------------------------------------------------


def test_standing_still_is_allowed():
    assert check_motion(path(still()), RULES) == []


@given(row=st.integers(1, 4), joint=st.integers(0, 2), upper=st.booleans(), beyond=st.floats(1e-4, 10.0))
def test_a_single_position_beyond_a_limit_is_refused(row, joint, upper, beyond):
    points = still()
    points[row, joint] = RULES.upper[joint] + beyond if upper else RULES.lower[joint] - beyond
    assert Reason.POSITION_LIMIT in reasons(check_motion(path(points), RULES))


@given(row=st.integers(1, 4), joint=st.integers(0, 2), sign=st.sampled_from([-1, 1]), share=st.floats(1.01, 1.2))
def test_a_single_jump_is_refused(row, joint, sign, share):
    points = still()
    limit = RULES.start_jump if row == 1 else RULES.step
    points[row:, joint] += sign * share * limit[joint]
    expected = Reason.START_JUMP if row == 1 else Reason.STEP_JUMP
    assert expected in reasons(check_motion(path(points), RULES))


@given(joint=st.integers(0, 2), share=st.floats(1.01, 3.0))
def test_a_single_speed_beyond_the_limit_is_refused(joint, share):
    loose = replace(
        RULES, start_jump=np.full(3, 9.0), step=np.full(3, 9.0), lower=np.full(3, -9.0), upper=np.full(3, 9.0)
    )
    points = still(3)
    points[1:, joint] += share * RULES.speed[joint] * PERIOD / 1.5  # from rest to rest the peak is 1.5 times the mean
    assert reasons(check_motion(path(points), loose)) == {Reason.VELOCITY_LIMIT}


@given(row=st.integers(0, 4), joint=st.integers(0, 2), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_path_that_is_not_finite_is_refused(row, joint, value):
    points = still()
    points[row, joint] = value
    with np.errstate(invalid="ignore"):
        assert reasons(check_motion(path(points), RULES)) == {Reason.NON_FINITE}


@given(arrays(float, (6, 3), elements=st.floats(-2.5, 2.5)), st.floats(0.01, 1.0))
@settings(max_examples=150)
def test_whatever_is_accepted_respects_every_limit_at_every_time(points, scale):
    spline = path(still(6) + scale * 0.3 * points)
    if check_motion(spline, RULES):
        return
    start_beyond = np.maximum(np.maximum(spline.positions[0] - RULES.upper, RULES.lower - spline.positions[0]), 0.0)
    for time in np.linspace(0.0, spline.duration, 80):
        position, velocity = spline.at(time)
        assert (position <= RULES.upper + start_beyond + 1e-5).all()
        assert (position >= RULES.lower - start_beyond - 1e-5).all()
        assert (np.abs(velocity) <= RULES.speed + 1e-5).all()
    steps = np.abs(np.diff(spline.positions, axis=0))
    assert (steps[0] <= RULES.start_jump + 1e-5).all() and (steps[1:] <= RULES.step + 1e-5).all()


@given(joint=st.integers(0, 2), upper=st.booleans(), beyond=st.floats(0.0, 0.2), back=st.floats(0.01, 0.12))
def test_a_joint_at_or_over_a_limit_may_move_back_but_not_farther_out(joint, upper, beyond, back):
    limit, sign = (RULES.upper[joint], 1) if upper else (RULES.lower[joint], -1)
    points = still(3)
    points[:, joint] = limit + sign * (beyond - np.array([0.0, back, back]))
    assert check_motion(path(points), RULES) == []
    points[:, joint] = limit + sign * (beyond + np.array([0.0, 0.0, 0.01]))
    assert reasons(check_motion(path(points), RULES)) == {Reason.POSITION_LIMIT}


def test_a_joint_that_came_back_may_not_leave_again():
    points = still(4)
    points[:, 0] = [1.05, 0.95, 0.95, 1.04]
    assert reasons(check_motion(path(points), RULES)) == {Reason.POSITION_LIMIT}


def test_a_replacement_that_would_shoot_over_a_limit_between_two_rows_is_refused():
    points = still(3)
    points[:, 2] = 0.49
    points[:, 0] = 0.9999
    assert check_motion(path(points), RULES) == []
    assert reasons(check_motion(path(points, velocity=np.array([1.0, 0, 0])), RULES)) == {Reason.POSITION_LIMIT}


def test_other_joints_than_the_robots_are_refused():
    other = JointPath.through(("b", "a", "c"), still(), PERIOD)
    assert reasons(check_motion(other, RULES)) == {Reason.WRONG_JOINTS}


def test_the_message_names_joint_step_value_and_limit():
    points = still()
    points[2:, 1] += 0.35
    (violation,) = (v for v in check_motion(path(points), RULES) if v.reason is Reason.STEP_JUMP)
    assert "'b'" in violation.message and "step 1" in violation.message
    assert "0.3500" in violation.message and "0.3000" in violation.message


def test_workspace_lets_come_back_but_not_leave():
    low, high = [0.0, -0.3, 0.0], [0.5, 0.3, 0.4]
    inside, outside, farther = [0.3, 0.0, 0.1], [0.3, 0.0, -0.01], [0.3, 0.0, -0.02]
    assert check_workspace(np.array([inside, inside]), low, high) == []
    assert check_workspace(np.array([outside, inside]), low, high) == []
    assert reasons(check_workspace(np.array([inside, outside]), low, high)) == {Reason.OUT_OF_WORKSPACE}
    assert reasons(check_workspace(np.array([outside, farther]), low, high)) == {Reason.OUT_OF_WORKSPACE}


def test_only_the_first_step_is_held_against_the_start_jump():
    points = still()
    points[2:, 0] = 0.35  # over the start jump of 0.3, within the step of 0.4
    assert check_motion(path(points), RULES) == []


def test_a_path_of_one_step_is_a_path():
    assert check_motion(path(still(2)), RULES) == []
    assert reasons(check_motion(path(still(1)), RULES)) == {Reason.WRONG_SHAPE}


def test_a_grown_workspace_holds_a_point_with_its_margin_beside_and_above_but_not_below():
    lower, upper, margin = [-0.1, -0.2, 0.0], [0.1, 0.2, 0.3], 0.02
    low, high = grown(lower, upper, np.array([0.5, -0.6, 0.7]), margin)
    np.testing.assert_allclose(low, [-0.1, -0.62, 0.0])
    np.testing.assert_allclose(high, [0.52, 0.2, 0.72])
    low, high = grown(lower, upper, np.array([-0.5, 0.6, -0.7]), margin)
    np.testing.assert_allclose(low, [-0.52, -0.2, -0.7])
    np.testing.assert_allclose(high, [0.1, 0.62, 0.3])
