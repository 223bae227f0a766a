# SPDX-License-Identifier: Apache-2.0
"""Every check has its place in every decision: it refuses on its own, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate import ArmGate, BaseGate, gate_of
from qwen_vla_control.gate.arm_gate import HOME_SHARE, LONGEST_HOME
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.motion.command_state import Motion
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.reasons import Reason, Refused

NOW = 10**18  # [ns] of the decisions
HORIZON, EXECUTED = 8, 4
PERIOD = 0.1

# What is narrowed, and how far which joint goes to break it; all other limits are wide.
CASES = [
    (Reason.POSITION_LIMIT, {}, "left_turn", 1.6),
    (Reason.POSITION_LIMIT, {}, "left_turn", -2.1),
    (Reason.POSITION_LIMIT, {}, "right_slide", 0.8),
    (Reason.POSITION_LIMIT, {}, "lift", 0.5),
    (Reason.POSITION_LIMIT, {}, "lift", -0.3),
    (Reason.VELOCITY_LIMIT, {"max_joint_speed_fraction": 0.01}, "left_turn", 1.0),
    (Reason.VELOCITY_LIMIT, {"max_joint_speed_fraction": 0.01}, "right_turn", -1.0),
    (Reason.STEP_JUMP, {"max_step_rad": 0.1}, "left_turn", 1.0),
    (Reason.STEP_JUMP, {"max_step_rad": 0.08}, "lift", -0.19),
    (Reason.OUT_OF_WORKSPACE, {"workspace": {"min": [-2, -2, -1], "max": [0.75, 2, 1]}}, "left_slide", 0.3),
    (Reason.OUT_OF_WORKSPACE, {"workspace": {"min": [-2, -2, -1], "max": [0.75, 2, 1]}}, "right_slide", 0.4),
    (Reason.OUT_OF_WORKSPACE, {"workspace": {"min": [0.3, -2, -1], "max": [2, 2, 1]}}, "left_slide", -0.4),
    (Reason.SELF_COLLISION, {"self_collision": True}, "left_slide", -0.5),
]
EVERY_CASE = pytest.mark.parametrize(("reason", "safety", "joint", "way"), CASES)


def home_of(robot: Embodiment) -> np.ndarray:
    return np.array([robot.home[name] for name in robot.joint_names])


def rows_at(robot: Embodiment, positions: np.ndarray) -> np.ndarray:
    """Channels (horizon, channels) for joint positions (horizon, joints)."""
    rows = robot.layout.of_joints(robot.joint_names, positions)
    for arm, column in enumerate(robot.layout.grippers):
        finger = robot.joint_names.index(robot.arms[arm].gripper.joint)
        rows[:, column] = [robot.gripper_from_joint(position, arm) for position in positions[:, finger]]
    return rows


def chunk_of(robot: Embodiment, positions: np.ndarray, executed: int = EXECUTED) -> Chunk:
    return Chunk.of_rows(robot, rows_at(robot, positions), executed)


def going(robot: Embodiment, joint: str, way: float, steps: int = 2) -> np.ndarray:
    """(horizon, joints): home, and over the last steps one joint goes some way from there."""
    positions = np.tile(home_of(robot), (HORIZON, 1))
    positions[-steps:, robot.joint_names.index(joint)] += way * np.arange(1, steps + 1) / steps
    return positions


def at_home(robot: Embodiment) -> RobotState:
    return RobotState(NOW, home_of(robot), home_of(robot))


def path_of(robot: Embodiment, positions: np.ndarray) -> JointPath:
    return JointPath.through(robot.joint_names, np.vstack([home_of(robot), positions]), PERIOD)


def refused_by(decide, *arguments) -> tuple[Reason, ...]:
    with pytest.raises(Refused) as refused:
        decide(*arguments)
    return refused.value.reasons


# Each check in its place ----------------------------------------------------------------------------------------------


@EVERY_CASE
def test_a_chunk_is_refused_for_its_last_rows_which_would_not_even_be_executed(rig, reason, safety, joint, way):
    robot = rig(**safety)
    assert refused_by(ArmGate(robot).decide, chunk_of(robot, going(robot, joint, way)), at_home(robot)) == (reason,)


@EVERY_CASE
def test_a_chunk_that_takes_over_is_refused_for_itself_although_its_blend_is_fine(rig, reason, safety, joint, way):
    robot = rig(**safety)
    still = path_of(robot, going(robot, joint, 0.0))
    chunk = chunk_of(robot, going(robot, joint, way))
    assert refused_by(ArmGate(robot).blended_path, chunk, at_home(robot), lambda rows: still) == (reason,)


@EVERY_CASE
def test_a_chunk_that_takes_over_is_refused_for_its_blend_although_it_is_fine_itself(rig, reason, safety, joint, way):
    robot = rig(**safety)
    blend, chunk = path_of(robot, going(robot, joint, way)), chunk_of(robot, going(robot, joint, 0.0))
    assert refused_by(ArmGate(robot).blended_path, chunk, at_home(robot), lambda rows: blend) == (reason,)


@EVERY_CASE
def test_a_path_that_is_to_be_executed_as_it_is_is_refused(rig, reason, safety, joint, way):
    robot = rig(**safety)
    assert refused_by(ArmGate(robot).check, path_of(robot, going(robot, joint, way))) == (reason,)


@EVERY_CASE
def test_half_the_way_is_allowed_everywhere(rig, reason, safety, joint, way):
    robot = rig(**safety)
    slowly = going(robot, joint, 0.5 * way * {Reason.VELOCITY_LIMIT: 0.1, Reason.STEP_JUMP: 0.3}.get(reason, 1.0))
    gate, chunk, path = ArmGate(robot), chunk_of(robot, slowly), path_of(robot, slowly)
    assert gate.decide(chunk, at_home(robot)).path.steps == EXECUTED
    assert gate.blended_path(chunk, at_home(robot), lambda rows: path) is path
    gate.check(path)


@pytest.mark.parametrize(("place", "expected"), [(2, (Reason.ACCELERATION_LIMIT,)), (6, None)])
def test_accelerations_matter_where_they_are_executed(rig, place, expected):
    robot = rig(max_joint_acceleration=5.0)
    gate, positions = ArmGate(robot), going(robot, "left_turn", 0.0)
    positions[place, 1] += 0.2
    chunk = chunk_of(robot, positions)
    if expected:
        assert refused_by(gate.decide, chunk, at_home(robot)) == expected
        assert refused_by(gate.blended_path, chunk, at_home(robot), lambda rows: path_of(robot, rows)) == expected
        assert refused_by(gate.check, path_of(robot, positions)) == expected
    else:
        still = path_of(robot, going(robot, "left_turn", 0.0))
        for path in (
            gate.decide(chunk, at_home(robot)).path,
            gate.blended_path(chunk, at_home(robot), lambda _: still),
        ):
            assert (path.peak_accelerations() <= 5.0 + 1e-3).all()


def test_a_blend_that_would_end_abruptly_slows_down_on_its_way(rig):
    robot = rig(max_joint_acceleration=5.0)
    steadily = going(robot, "left_turn", 0.4, steps=HORIZON)
    blend = replace(path_of(robot, steadily), velocities=np.diff(steadily[:2], axis=0).repeat(HORIZON + 1, 0) / PERIOD)
    assert blend.first(HORIZON).peak_accelerations()[-1, 1] > 9.0
    path = ArmGate(robot).blended_path(chunk_of(robot, steadily), at_home(robot), lambda rows: blend)
    assert (path.peak_accelerations() <= 5.0 + 1e-3).all() and not path.velocities[-1].any()
    assert 0.35 < path.positions[-1, 1] <= 0.4


@pytest.mark.parametrize("decide", ["decide", "blended_path"])
def test_what_a_chunk_says_about_itself_is_checked_first(rig, decide):
    robot = rig()
    chunk = replace(chunk_of(robot, going(robot, "lift", 0.5)), embodiment="another")
    blend = [lambda rows: pytest.fail("is not to be asked")] if decide == "blended_path" else []
    assert refused_by(getattr(ArmGate(robot), decide), chunk, at_home(robot), *blend) == (Reason.WRONG_EMBODIMENT,)


@pytest.mark.parametrize("gentle", [{}, {"max_joint_acceleration": 50.0}])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("joint", ["left_slide", "left_turn", "right_slide", "right_turn", "lift"])
def test_a_robot_that_is_not_where_a_chunk_begins_is_refused_on_either_side(rig, joint, sign, gentle):
    robot = rig(max_start_jump_rad=0.1, **gentle)
    gate, chunk, measured = ArmGate(robot), chunk_of(robot, going(robot, joint, 0.0)), home_of(robot)
    still = replace(path_of(robot, going(robot, joint, 0.0)), velocities=np.zeros((HORIZON + 1, 7)))
    for distance, expected in ((0.099, None), (0.101, (Reason.START_JUMP,))):
        measured[robot.joint_names.index(joint)] = robot.home[joint] + sign * distance
        state = RobotState(NOW, home_of(robot), measured.copy())
        if expected:
            assert refused_by(gate.decide, chunk, state) == expected
            assert refused_by(gate.blended_path, chunk, state, lambda rows: still) == expected
        else:
            path = gate.decide(chunk, state).path
            np.testing.assert_array_equal(path.positions[0], measured)
            assert not path.velocities[0].any()
            gate.blended_path(chunk, state, lambda rows: still)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_chunk_that_takes_over_must_begin_where_it_was_observed_although_the_robot_has_come_near(rig, sign):
    robot = rig(max_start_jump_rad=0.1)
    chunk, observed = chunk_of(robot, going(robot, "lift", 0.0)), home_of(robot)
    still = path_of(robot, going(robot, "lift", 0.0))
    observed[1] += sign * 0.101
    state = RobotState(NOW, observed, home_of(robot))
    assert refused_by(ArmGate(robot).blended_path, chunk, state, lambda rows: still) == (Reason.START_JUMP,)


def test_a_robot_that_is_measured_nowhere_is_not_moved(rig):
    robot = rig(workspace={"min": [-2, -2, -1], "max": [2, 2, 1]}, self_collision=True)
    gate, nowhere = ArmGate(robot), np.full(7, np.nan)
    chunk = chunk_of(robot, going(robot, "lift", 0.0))
    assert refused_by(gate.decide, chunk, RobotState(NOW, home_of(robot), nowhere)) == (Reason.NON_FINITE,)
    assert refused_by(gate.home_path, nowhere, 0.5) == (Reason.START_JUMP,)


# Observed and measured ------------------------------------------------------------------------------------------------


def test_deltas_are_relative_to_where_the_arm_was_observed_and_the_path_starts_where_it_is(gate, home, good_chunk):
    measured = home + np.array([0.05, -0.02, 0.03, 0.0, 0.0, 0.1, 0.0])
    there, here = gate.decide(good_chunk, RobotState(NOW, home, home)), RobotState(NOW, home, measured)
    path = gate.decide(good_chunk, here).path
    np.testing.assert_array_equal(path.positions[0], measured)
    np.testing.assert_allclose(path.positions[1:], there.path.positions[1:], atol=1e-9)


@pytest.mark.parametrize("gentle", [{}, {"max_joint_acceleration": 500.0}])
def test_a_robot_that_moves_goes_on_at_its_speed(rig, gentle):
    robot = rig(**gentle)
    coming = np.linspace(home_of(robot) - 0.05, home_of(robot), 6)
    motion = Motion(JointPath.through(robot.joint_names, coming, PERIOD), NOW - 250_000_000, None)
    where, speed = motion.commanded(NOW)
    assert (speed > 0.05).all()
    path = ArmGate(robot).decide(chunk_of(robot, going(robot, "lift", 0.0)), RobotState(NOW, where, where, motion)).path
    np.testing.assert_allclose(path.velocities[0], speed)


def test_what_is_executed_begins_at_the_decision_and_is_as_long_as_the_chunk_says(rig):
    robot = rig()
    for executed in (1, 4, HORIZON):
        timed = ArmGate(robot).decide(chunk_of(robot, going(robot, "lift", 0.2), executed), at_home(robot))
        assert (timed.start_ns, timed.execution_horizon, timed.path.steps) == (NOW, executed, executed)
        assert timed.path.period == PERIOD and not timed.path.velocities[-1].any()


def test_the_gate_of_a_robot_is_that_of_what_its_chunks_move(rig):
    assert isinstance(gate_of(rig()), ArmGate) and isinstance(gate_of(load_robot("mobile_base")), BaseGate)


# Grippers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("told", "start"), [(1.0, 0.0), (0.0, 1.0)])
def test_each_gripper_follows_as_fast_as_it_may_from_where_it_was_observed(rig, told, start):
    robot = rig(max_joint_speed_fraction=0.02)
    gate, observed = ArmGate(robot), home_of(robot)
    rows = rows_at(robot, np.tile(observed, (HORIZON, 1)))
    rows[:, robot.layout.grippers] = told
    begin, end = ([robot.gripper_to_joint(share, arm) for arm in (0, 1)] for share in (start, told))
    observed[4:6] = begin
    reach = 0.5 * 0.02 * np.array([6.0, 3.0]) * PERIOD  # half of what the finger may do in a step
    way = np.minimum(np.arange(1, HORIZON + 1)[:, None] * reach, np.abs(np.subtract(end, begin)))
    found = gate.rows_of(Chunk.of_rows(robot, rows, EXECUTED), observed)
    np.testing.assert_allclose(found[:, 4:6], begin + np.sign(np.subtract(end, begin)) * way, atol=1e-7)
    assert gate.decide(Chunk.of_rows(robot, rows, EXECUTED), RobotState(NOW, observed, observed)).path.steps == EXECUTED


# Home -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(
    ("safety", "fastest"),
    [({"max_joint_speed_fraction": 0.01}, [0.8, 0.7, 0.5, 0.4]), ({"max_step_rad": 0.05}, 4 * [HOME_SHARE * 0.5])],
)
def test_the_way_home_is_as_fast_as_was_asked_for_and_no_faster(rig, safety, fastest, share):
    robot = rig(**safety)
    path = ArmGate(robot).home_path(home_of(robot) + [0.6, -1.0, -1.4, 0.9, 0.0, 0.0, 0.0], share)
    np.testing.assert_allclose(path.positions[-1], home_of(robot), atol=1e-12)
    used = (path.peak_speeds()[:, :4] / fastest).max()
    assert 0.9 * share < used <= 1.001 * share


def test_the_way_home_stays_below_the_acceleration_that_is_allowed(rig):
    robot = rig(max_joint_acceleration=2.0)
    path = ArmGate(robot).home_path(home_of(robot) + [0.6, -1.0, -1.4, 0.9, 0.0, 0.0, 0.1], 1.0)
    assert 0.9 * HOME_SHARE * 2.0 < path.peak_accelerations().max() <= 1.02 * HOME_SHARE * 2.0


@pytest.mark.parametrize(("seconds", "refused"), [(LONGEST_HOME - 1.0, False), (LONGEST_HOME + 1.0, True)])
def test_a_way_home_that_takes_for_ever_is_refused(rig, seconds, refused):
    robot, way = rig(max_joint_speed_fraction=0.01), np.array([0.0, 1.4, 0.0, 0.0, 0.0, 0.0, 0.0])
    gate, share = ArmGate(robot), 1.4 / 0.7 / seconds
    if refused:
        with pytest.raises(Refused, match="the motion home takes at least 121 s \\(limit 120 s\\)") as found:
            gate.home_path(home_of(robot) + way, share)
        assert found.value.reasons == (Reason.START_JUMP,)
    else:
        assert gate.home_path(home_of(robot) + way, share).steps > seconds / PERIOD


@pytest.mark.parametrize(
    ("safety", "start", "reason"),
    [
        ({"self_collision": True}, [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], Reason.SELF_COLLISION),
        (
            {"workspace": {"min": [-2, -2, -1], "max": [0.61, 2, 1]}},
            [0.08, -1.5, 0.0, 0.0, 0.0, 0.0, 0.0],
            Reason.OUT_OF_WORKSPACE,
        ),
    ],
)
def test_what_is_in_the_way_home_refuses_it(rig, safety, start, reason):
    robot = rig(**safety)
    assert refused_by(ArmGate(robot).home_path, home_of(robot) + start, 0.5) == (reason,)
    assert ArmGate(rig()).home_path(home_of(robot) + start, 0.5).steps > 1, "nothing else is in the way"
