# SPDX-License-Identifier: Apache-2.0
"""What a mobile base may be reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodiment_descriptions import ControlMode, Embodiment, load_robot
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate.base_gate import BaseGate, steps_behind
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.motion.base_path import BasePath, integrated, moved, seen_from
from qwen_vla_control.motion.command_state import Motion
from qwen_vla_control.reasons import Reason, Refused

NOW = 10**18  # [ns] of the decisions
ANGLE = st.floats(-3.0, 3.0)
POSE = st.tuples(st.floats(-5, 5), st.floats(-5, 5), ANGLE).map(np.array)


@pytest.fixture(scope="module")
def robot() -> Embodiment:
    return load_robot("mobile_base")


@pytest.fixture(scope="module")
def gate(robot) -> BaseGate:
    return BaseGate(robot)


def chunk_of(robot: Embodiment, rows: np.ndarray, steps: int = 4) -> Chunk:
    return Chunk(
        chunk_id=1,
        stamp_ns=10**18,
        frame_id=robot.base_frame,
        embodiment=robot.name,
        control_mode=robot.control_mode,
        channel_names=tuple(robot.channel_names),
        instruction="go to the door",
        horizon=len(rows),
        execution_horizon=steps,
        period=robot.period,
        data=np.asarray(rows, np.float32).reshape(-1),
    )


def ahead(speed: float, rows: int = 8) -> np.ndarray:
    return np.stack([speed * 0.5 * np.arange(1, rows + 1), np.zeros(rows), np.zeros(rows)], axis=1)


# The gate -------------------------------------------------------------------------------------------------------------


@given(POSE, st.floats(0.0, 0.25))
def test_waypoints_are_relative_to_the_base_at_the_observation(robot, gate, anchor, speed):
    path = gate.decide(chunk_of(robot, ahead(speed)), RobotState(NOW, anchor, anchor, frame="odom")).path
    assert path.frame == "odom" and path.steps == 4
    assert np.allclose(seen_from(anchor, path.positions[-1]), [2.0 * speed, 0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"speed": 0.5}, Reason.START_JUMP),
        ({"row": 5, "column": 0, "value": 3.0}, Reason.VELOCITY_LIMIT),
        ({"row": 5, "column": 2, "value": 2.5}, Reason.VELOCITY_LIMIT),
        ({"row": 7, "column": 1, "value": float("nan")}, Reason.NON_FINITE),
    ],
)
def test_a_single_bad_waypoint_refuses_the_whole_chunk(robot, gate, change, reason):
    rows = ahead(change.get("speed", 0.2))
    if "row" in change:
        rows[change["row"], change["column"]] = change["value"]
    with pytest.raises(Refused) as refused:
        gate.decide(chunk_of(robot, rows), RobotState(NOW, np.zeros(3), np.zeros(3), frame="odom"))
    assert reason in refused.value.reasons


def test_waypoints_that_the_base_has_passed_are_left_out(robot, gate):
    measured = np.array([0.23, 0.0, 0.0])  # waypoints every 0.1 m
    row = measured - [0.1, 0.0, 0.0]
    motion = Motion(
        BasePath.through("odom", [row, measured, measured + [0.1, 0, 0]], 0.5, [0.2, 0, 0]), NOW - 5 * 10**8, None
    )
    state = RobotState(NOW, np.zeros(3), measured, motion, "odom")
    path = gate.decide(chunk_of(robot, ahead(0.2)), state).path
    assert np.allclose(path.positions[:, 0], [0.23, 0.3, 0.4]) and (np.diff(path.positions[:, 0]) > 0).all()
    assert steps_behind(moved(np.zeros(3), ahead(0.2)), np.zeros(3)) == 0
    assert steps_behind(moved(np.zeros(3), ahead(0.2)), np.array([5.0, 0.0, 0.0])) == 7


def test_velocities_are_driven_from_where_the_base_is_and_not_sideways(robot):
    by_velocity = robot.model_copy(update={"control_mode": ControlMode.BASE_VELOCITY})
    gate = BaseGate(by_velocity)
    rows = np.tile([0.2, 0.0, 0.5], (8, 1))
    path = gate.decide(
        chunk_of(by_velocity, rows), RobotState(NOW, np.zeros(3), np.array([1.0, 0.0, 0.0]), frame="odom")
    ).path
    assert path.positions[0, 0] == 1.0 and path.positions[-1, 2] == pytest.approx(1.0)
    rows[3, 1] = 0.1
    with pytest.raises(Refused) as refused:
        gate.decide(chunk_of(by_velocity, rows), RobotState(NOW, np.zeros(3), np.zeros(3), frame="odom"))
    assert refused.value.reasons == (Reason.UNREACHABLE,)


def test_other_channels_and_frames_are_refused(robot, gate):
    chunk = chunk_of(robot, ahead(0.1))
    for change in ({"frame_id": "map"}, {"control_mode": "base_velocity"}, {"embodiment": "widowx"}):
        with pytest.raises(Refused):
            gate.decide(replace(chunk, **change), RobotState(NOW, np.zeros(3), np.zeros(3), frame="odom"))


def refused_by(decide, *arguments) -> tuple[Reason, ...]:
    with pytest.raises(Refused) as refused:
        decide(*arguments)
    return refused.value.reasons


def at(pose, observed=None, motion=None) -> RobotState:
    pose = np.asarray(pose, float)
    return RobotState(NOW, pose if observed is None else np.asarray(observed, float), pose, motion, "odom")


def test_waypoints_are_seen_from_the_observation_and_the_path_starts_where_the_base_is(robot, gate):
    observed, measured = np.array([1.0, 2.0, np.pi / 2]), np.array([1.01, 2.02, np.pi / 2 + 0.05])
    timed = gate.decide(chunk_of(robot, ahead(0.2)), at(measured, observed))
    np.testing.assert_array_equal(timed.path.positions[0], measured)
    np.testing.assert_allclose(timed.path.positions[1:], moved(observed, ahead(0.2)[:4]), atol=1e-6)
    assert (timed.start_ns, timed.execution_horizon, timed.path.frame) == (NOW, 4, "odom")
    assert not timed.path.velocities[-1].any() and timed.path.period == robot.period


def test_a_base_that_drives_goes_on_at_its_speed(robot, gate):
    motion = Motion(BasePath.through("odom", [[-0.1, 0, 0], [0, 0, 0], [0.1, 0, 0]], 0.5), NOW - 5 * 10**8, None)
    path = gate.decide(chunk_of(robot, ahead(0.2)), at(np.zeros(3), motion=motion)).path
    np.testing.assert_allclose(path.velocities[0], motion.commanded(NOW)[1])
    assert path.velocities[0, 0] > 0.1
    assert not gate.decide(chunk_of(robot, ahead(0.2)), at(np.zeros(3))).path.velocities[0].any()


@pytest.mark.parametrize(("where", "steps"), [(0.05, 4), (0.15, 3), (0.25, 2), (0.35, 1), (0.55, 1)])
def test_what_was_passed_counts_as_executed_and_one_step_always_remains(robot, gate, where, steps):
    timed = gate.decide(chunk_of(robot, ahead(0.2)), at([where, 0.0, 0.0], np.zeros(3)))
    assert timed.path.steps == timed.execution_horizon == steps
    assert timed.path.positions[1, 0] == pytest.approx(0.1 * np.ceil(10 * where))


@pytest.mark.parametrize("where", ["observed", "measured"])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_odometry_that_is_no_number_moves_no_base(robot, gate, where, column):
    poses = {"observed": np.zeros(3), "measured": np.zeros(3)}
    poses[where][column] = np.nan
    assert refused_by(gate.decide, chunk_of(robot, ahead(0.2)), RobotState(NOW, **poses, frame="odom")) == (
        Reason.NON_FINITE,
    )


def test_a_base_has_no_home_and_no_joints(gate):
    assert gate.joints == () and refused_by(gate.home_path, np.zeros(3), 0.5) == (Reason.WRONG_CONTROL_MODE,)


@pytest.mark.parametrize("lacking", ["base", "safety"])
def test_what_cannot_drive_or_has_no_limits_has_no_gate(robot, lacking):
    without = {"base": None} if lacking == "base" else {"safety": robot.safety.model_copy(update={"base": None})}
    with pytest.raises(ValueError, match="'mobile_base' has no base, or no `safety.base`"):
        BaseGate(robot.model_copy(update=without))


# Which waypoints a base has passed ------------------------------------------------------------------------------------

LINE = np.array([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0]])


@pytest.mark.parametrize("aside", [-0.5, 0.0, 0.5])
@pytest.mark.parametrize("degrees", [0, 53, 90, 180, 270])
@pytest.mark.parametrize(
    ("along", "passed"), [(-1.0, 0), (0.0, 0), (0.109, 0), (0.111, 1), (0.209, 1), (0.211, 2), (0.311, 2), (9.0, 2)]
)
def test_a_waypoint_is_passed_a_little_beyond_it_however_far_aside_and_the_last_remains(along, aside, degrees, passed):
    poses = moved(np.array([1.0, -2.0, np.radians(degrees)]), np.column_stack([LINE, np.zeros(3)]))
    (measured,) = moved(np.array([1.0, -2.0, np.radians(degrees)]), np.array([[along, aside, 0.0]]))
    assert steps_behind(poses, measured) == passed


@pytest.mark.parametrize(("length", "passed"), [(0.009, 0), (0.011, 2)])
def test_steps_that_have_no_direction_are_not_passed(length, passed):
    poses = np.array([[0.0, 0.0, 0.0], [length, 0.0, 0.0], [2 * length, 0.0, 0.0]])
    assert steps_behind(poses, np.array([1.0, 0.0, 0.0])) == passed


# Velocities -----------------------------------------------------------------------------------------------------------


def by_velocity(robot: Embodiment, kind: str = "differential") -> Embodiment:
    base = robot.base.model_copy(update={"kind": kind})
    return robot.model_copy(update={"control_mode": ControlMode.BASE_VELOCITY, "base": base})


def test_velocities_are_driven_from_where_the_base_is_whatever_was_observed(robot):
    turning = by_velocity(robot)
    rows, measured = np.tile([0.2, 0.0, 0.5], (8, 1)), np.array([1.0, -1.0, 2.0])
    timed = BaseGate(turning).decide(chunk_of(turning, rows), at(measured, np.array([9.0, 9.0, 0.0])))
    np.testing.assert_array_equal(timed.path.positions[0], measured)
    np.testing.assert_allclose(timed.path.positions[1:], integrated(measured, rows[:4], robot.period), atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("row", [0, 7])
def test_only_an_omnidirectional_base_may_drive_sideways(robot, row, sign):
    rows = np.tile([0.2, 0.0, 0.0], (8, 1))
    rows[row, 1] = sign * 0.1
    wheels, anywhere = by_velocity(robot), by_velocity(robot, "omnidirectional")
    with pytest.raises(Refused, match=r"vy 0\.100 m/s") as refused:
        BaseGate(wheels).decide(chunk_of(wheels, rows), at(np.zeros(3)))
    assert refused.value.reasons == (Reason.UNREACHABLE,)
    assert BaseGate(anywhere).decide(chunk_of(anywhere, rows), at(np.zeros(3))).path.steps == 4
    rows[row, 1] = sign * 0.9e-3 * robot.safety.base.max_linear  # as good as nothing
    assert BaseGate(wheels).decide(chunk_of(wheels, rows), at(np.zeros(3))).path.steps == 4
