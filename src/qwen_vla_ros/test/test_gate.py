"""The gate: anything that is wrong is refused whole; whatever passes respects every limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qwen_vla_ros.chunk_decision import ChunkDecision
from qwen_vla_ros.gate import (
    Chunk,
    MotionRules,
    Reason,
    Refused,
    check_age,
    check_form,
    check_motion,
    check_workspace,
)
from qwen_vla_ros.joint_path import JointPath

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
PERIOD = 0.2
fixtures_are_read_only = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def reasons(violations) -> set[Reason]:
    return {violation.reason for violation in violations}


def path(points, velocity=None) -> JointPath:
    return JointPath.through(JOINTS, np.asarray(points, float), PERIOD, velocity)


def still(rows: int = 5) -> np.ndarray:
    return np.tile([0.0, 0.0, 0.25], (rows, 1))


# What the chunk says about itself -------------------------------------------------------------------------------------


def test_a_good_chunk_has_a_good_form(decision, good_chunk):
    assert check_form(good_chunk, decision.form) == []


@given(index=st.integers(0, 111), value=st.sampled_from([np.nan, np.inf, -np.inf]))
@fixtures_are_read_only
def test_one_value_that_is_not_finite_is_refused_wherever_it_is(decision, good_chunk, index, value):
    data = good_chunk.data.copy()
    data[index] = value
    assert reasons(check_form(replace(good_chunk, data=data), decision.form)) == {Reason.NON_FINITE}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"embodiment": "aloha"}, Reason.WRONG_EMBODIMENT),
        ({"embodiment": ""}, Reason.WRONG_EMBODIMENT),
        ({"frame_id": "world"}, Reason.WRONG_EMBODIMENT),
        ({"control_mode": "joint_position"}, Reason.WRONG_CONTROL_MODE),
        ({"channel_names": ("y", "x", "z", "rx", "ry", "rz", "gripper")}, Reason.WRONG_JOINTS),
        ({"channel_names": ("x", "y", "z", "rx", "ry", "rz")}, Reason.WRONG_JOINTS),
        ({"horizon": 15}, Reason.WRONG_SHAPE),
        ({"horizon": 0}, Reason.WRONG_SHAPE),
        ({"horizon": 17}, Reason.WRONG_SHAPE),
        ({"execution_horizon": 0}, Reason.WRONG_SHAPE),
        ({"execution_horizon": 17}, Reason.WRONG_SHAPE),
        ({"period": 0.1}, Reason.WRONG_SHAPE),
        ({"period": 0.0}, Reason.WRONG_SHAPE),
        ({"period": float("nan")}, Reason.WRONG_SHAPE),
        ({"data": np.zeros(111, np.float32)}, Reason.WRONG_SHAPE),
        ({"data": np.zeros(0, np.float32)}, Reason.WRONG_SHAPE),
    ],
)
def test_a_wrong_form_is_refused_for_its_reason(decision, good_chunk, change, reason):
    assert reason in reasons(check_form(replace(good_chunk, **change), decision.form))


@pytest.mark.parametrize(("age", "fine"), [(0.0, True), (0.9, True), (1.1, False), (-0.05, True), (-0.2, False)])
def test_the_age_of_the_observation(age, fine):
    now = 10**18
    violations = check_age(now - int(age * 1e9), now, max_age=1.0, max_future=0.1)
    assert reasons(violations) == (set() if fine else {Reason.STALE})


def test_an_unset_stamp_is_stale():
    assert reasons(check_age(0, 5, max_age=1.0, max_future=0.1)) == {Reason.STALE}


# What the joints would do ---------------------------------------------------------------------------------------------


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


# The whole decision ---------------------------------------------------------------------------------------------------


def with_rows(chunk, rows):
    return replace(chunk, data=np.asarray(rows, np.float32).reshape(-1))


def test_a_good_chunk_becomes_its_first_steps_ending_at_rest(decision, good_chunk, home):
    executed = decision.path_of(good_chunk, home, home)
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
def test_a_single_bad_row_refuses_the_whole_chunk(decision, good_chunk, home, rows, reason):
    data = good_chunk.rows.copy()
    data[rows["row"], rows["column"]] = rows["value"]
    with pytest.raises(Refused) as refused:
        decision.path_of(with_rows(good_chunk, data), home, home)
    assert reason in refused.value.reasons


def test_a_gripper_value_a_little_beyond_its_range_means_its_end(decision, good_chunk, home):
    data = good_chunk.rows.copy()
    data[:, 6] = 1.04
    assert np.allclose(decision.path_of(with_rows(good_chunk, data), home, home).positions[:, -1], 0.037)


def test_through_the_table_is_refused(decision, good_chunk, home):
    data = good_chunk.rows.copy()
    data[:, 0] = np.linspace(0.02, 0.25, 16)  # the tool points down, 0.20 m above the table
    with pytest.raises(Refused) as refused:
        decision.path_of(with_rows(good_chunk, data), home, home)
    assert Reason.OUT_OF_WORKSPACE in refused.value.reasons


def test_a_chunk_anchored_where_the_arm_no_longer_is_is_refused(decision, good_chunk, home):
    measured = home.copy()
    measured[0] += 0.5
    with pytest.raises(Refused) as refused:
        decision.path_of(good_chunk, home, measured)
    assert Reason.START_JUMP in refused.value.reasons


def test_home_motion_passes_the_gate_and_arrives(decision, home):
    start = home + np.array([0.6, -0.4, 0.3, 0.2, 0.1, -0.5, -0.01])
    motion = decision.home_path(start, 0.25)
    assert np.allclose(motion.positions[-1], home)
    assert (motion.peak_speeds() <= 0.26 * decision.motion.speed).all()


# Joints that turn without end ----------------------------------------------------------------------------------------

WRIST = "wrist_rotate"


@pytest.fixture(scope="module")
def endless(turning):
    return ChunkDecision(turning)


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
    """Onwards over the half turn, told within -pi .. pi as most data sets do it."""
    angles = sign * (3.0 + 0.05 * np.arange(1, 17))
    chunk = chunk_at(turning, good_chunk, np.arctan2(np.sin(angles), np.cos(angles)))
    measured = turned(turning, sign * 3.0 + 2 * np.pi * turns)
    path = endless.path_of(chunk, measured, measured)
    wrist = path.positions[:, endless.joints.index(WRIST)]
    np.testing.assert_allclose(wrist[1:], angles[:8] + 2 * np.pi * turns, atol=1e-5)


def test_a_continuous_joint_must_not_jump_either(turning, endless, good_chunk):
    angles = 3.0 + 0.05 * np.arange(1, 17)
    measured = turned(turning, 1.0)
    with pytest.raises(Refused) as refused:
        endless.path_of(chunk_at(turning, good_chunk, angles), measured, measured)
    assert Reason.START_JUMP in refused.value.reasons


@pytest.mark.parametrize("turns", [-1, 0, 2])
def test_a_continuous_joint_goes_home_the_short_way(turning, endless, turns):
    path = endless.home_path(turned(turning, 2 * np.pi * turns + 0.5), 0.25)
    wrist = path.positions[:, endless.joints.index(WRIST)]
    np.testing.assert_allclose([wrist[0], wrist[-1]], 2 * np.pi * turns + np.array([0.5, turning.home[WRIST]]))
