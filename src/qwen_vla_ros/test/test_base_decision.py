"""What a mobile base may be told, and how it follows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodiment_descriptions import ControlMode, Embodiment, load_robot
from embodiment_descriptions.base_follower import BaseFollower
from embodiment_descriptions.base_path import BasePath, accumulated, integrated, moved, seen_from
from embodiment_descriptions.config import BaseLimits
from qwen_vla.policy import ActionChunk as PredictedChunk
from qwen_vla_ros.base_decision import BaseDecision, steps_behind
from qwen_vla_ros.chunk_messages import chunk_from_message, message_from_prediction
from qwen_vla_ros.gate import Chunk, Reason, Refused

ANGLE = st.floats(-3.0, 3.0)
POSE = st.tuples(st.floats(-5, 5), st.floats(-5, 5), ANGLE).map(np.array)
LIMITS = BaseLimits(max_linear=0.5, max_angular=1.5, max_linear_acceleration=0.6, max_angular_acceleration=2.0)
TICK = 20_000_000  # [ns]


@pytest.fixture(scope="module")
def robot() -> Embodiment:
    return load_robot("mobile_base")


@pytest.fixture(scope="module")
def decision(robot) -> BaseDecision:
    return BaseDecision(robot, lambda: "odom")


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


# Geometry -------------------------------------------------------------------------------------------------------------


@given(POSE, POSE)
def test_seen_from_is_the_inverse_of_moved(pose, offset):
    back = seen_from(pose, moved(pose, offset))
    assert np.allclose(back, offset, atol=1e-9)


@given(POSE, st.floats(-1, 1), st.floats(-1, 1), st.floats(-2, 2))
def test_integration_is_the_exact_arc(pose, vx, vy, w):
    (coarse,) = integrated(pose, np.array([[vx, vy, w]]), 0.5)
    fine = integrated(pose, np.tile([vx, vy, w], (500, 1)), 0.001)[-1]
    assert np.allclose(coarse, fine, atol=1e-9)


# The gate -------------------------------------------------------------------------------------------------------------


@given(POSE, st.floats(0.0, 0.25))
def test_waypoints_are_relative_to_the_base_at_the_observation(robot, decision, anchor, speed):
    path = decision.path_of(chunk_of(robot, ahead(speed)), anchor, anchor)
    assert path.frame == "odom" and path.steps == 4
    assert np.allclose(seen_from(anchor, path.positions[-1]), [2.0 * speed, 0.0, 0.0], atol=1e-6)


def test_what_a_policy_predicts_is_driven_so(robot, decision):
    """Ahead, a turn to the left on the spot, ahead: all waypoints are seen from the base at the observation."""
    steps = np.array([[0.1, 0, 0], [0, 0, 0.5], [0, 0, 0.5], [0, 0, 0.5], [0.1, 0, 0]])
    poses = accumulated(np.zeros(3), steps).astype(np.float32)
    predicted = PredictedChunk(
        poses, tuple(robot.channel_names), robot.period, robot.control_mode, robot.name, "go", 10**18, {"total": 1.0}, 5
    )
    chunk = chunk_from_message(message_from_prediction(predicted, 1, robot.base_frame, 0))
    path = decision.path_of(chunk, np.zeros(3), np.zeros(3))
    end = [0.1 + 0.1 * np.cos(1.5), 0.1 * np.sin(1.5), 1.5]
    np.testing.assert_allclose(path.positions[-1], end, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"speed": 0.5}, Reason.START_JUMP),
        ({"row": 5, "column": 0, "value": 3.0}, Reason.VELOCITY_LIMIT),
        ({"row": 5, "column": 2, "value": 2.5}, Reason.VELOCITY_LIMIT),
        ({"row": 7, "column": 1, "value": float("nan")}, Reason.NON_FINITE),
    ],
)
def test_a_single_bad_waypoint_refuses_the_whole_chunk(robot, decision, change, reason):
    rows = ahead(change.get("speed", 0.2))
    if "row" in change:
        rows[change["row"], change["column"]] = change["value"]
    with pytest.raises(Refused) as refused:
        decision.path_of(chunk_of(robot, rows), np.zeros(3), np.zeros(3))
    assert reason in refused.value.reasons


def test_waypoints_that_the_base_has_passed_are_left_out(robot, decision):
    measured = np.array([0.23, 0.0, 0.0])  # waypoints every 0.1 m
    path = decision.path_of(chunk_of(robot, ahead(0.2)), np.zeros(3), measured, np.array([0.2, 0.0, 0.0]))
    assert np.allclose(path.positions[:, 0], [0.23, 0.3, 0.4]) and (np.diff(path.positions[:, 0]) > 0).all()
    assert steps_behind(moved(np.zeros(3), ahead(0.2)), np.zeros(3)) == 0
    assert steps_behind(moved(np.zeros(3), ahead(0.2)), np.array([5.0, 0.0, 0.0])) == 7


def test_a_heading_beyond_pi_is_no_turn_the_long_way():
    path = BasePath.through("odom", np.array([[0, 0, 3.1], [0, 0, -3.1], [0, 0, -3.0]]), 0.5)
    assert np.abs(np.diff(path.positions[:, 2])).max() < 0.2


def test_velocities_are_driven_from_where_the_base_is_and_not_sideways(robot):
    by_velocity = robot.model_copy(update={"control_mode": ControlMode.BASE_VELOCITY})
    decision = BaseDecision(by_velocity, lambda: "odom")
    rows = np.tile([0.2, 0.0, 0.5], (8, 1))
    path = decision.path_of(chunk_of(by_velocity, rows), np.zeros(3), np.array([1.0, 0.0, 0.0]))
    assert path.positions[0, 0] == 1.0 and path.positions[-1, 2] == pytest.approx(1.0)
    rows[3, 1] = 0.1
    with pytest.raises(Refused) as refused:
        decision.path_of(chunk_of(by_velocity, rows), np.zeros(3), np.zeros(3))
    assert refused.value.reasons == (Reason.UNREACHABLE,)


def test_other_channels_and_frames_are_refused(robot, decision):
    chunk = chunk_of(robot, ahead(0.1))
    for change in ({"frame_id": "map"}, {"control_mode": "base_velocity"}, {"embodiment": "widowx"}):
        with pytest.raises(Refused):
            decision.path_of(replace(chunk, **change), np.zeros(3), np.zeros(3))


# Following ------------------------------------------------------------------------------------------------------------


def drive(path: BasePath, start: np.ndarray, seconds: float, omnidirectional: bool = False):
    """Let an ideal base follow a path; returns its poses and the commands, one row per tick."""
    follower = BaseFollower(LIMITS, omnidirectional)
    pose, poses, commands = start.copy(), [], []
    for tick in range(int(seconds / 0.02)):
        command = follower.velocity(path, 0, tick * TICK, pose)
        (pose,) = integrated(pose, command[None], 0.02)
        poses.append(pose)
        commands.append(command)
    return np.array(poses), np.array(commands)


def arc(speed: float, turn: float, rows: int = 8) -> np.ndarray:
    velocities = np.tile([speed, 0.0, turn], (rows, 1))
    return np.vstack([np.zeros(3), integrated(np.zeros(3), velocities, 0.5)])


@given(st.floats(-1.0, 1.0), st.floats(-0.4, 0.4), st.floats(-0.2, 0.2), st.floats(-0.4, 0.4), st.booleans())
@settings(max_examples=40)
def test_no_limit_is_ever_exceeded_wherever_the_base_is(turn, speed, aside, skew, omnidirectional):
    path = BasePath.through("odom", arc(speed, turn), 0.5)
    _, commands = drive(path, np.array([0.0, aside, skew]), 5.0, omnidirectional)
    assert (np.hypot(commands[:, 0], commands[:, 1]) <= LIMITS.max_linear + 1e-9).all()
    assert (np.abs(commands[:, 2]) <= LIMITS.max_angular + 1e-9).all()
    changes = np.diff(np.vstack([np.zeros(3), commands]), axis=0)
    steps = np.array([0.1, *np.full(len(changes) - 1, 0.02)])  # the first may take the longest step
    assert (np.hypot(changes[:, 0], changes[:, 1]) <= LIMITS.max_linear_acceleration * steps + 1e-9).all()
    assert (np.abs(changes[:, 2]) <= LIMITS.max_angular_acceleration * steps + 1e-9).all()


@pytest.mark.parametrize(("speed", "turn"), [(0.3, 0.0), (0.3, 0.4), (-0.2, 0.2), (0.0, 0.8)])
def test_it_arrives_where_the_path_ends(speed, turn):
    path = BasePath.through("odom", arc(speed, turn), 0.5)
    poses, commands = drive(path, np.array([0.0, 0.03, -0.05]), 7.0)
    off = seen_from(path.positions[-1], poses[-1])
    assert np.hypot(*off[:2]) < 0.06 and abs(off[2]) < 0.1
    assert np.abs(commands[-1]).max() < 0.02


def test_a_base_with_wheels_is_never_told_to_move_sideways():
    path = BasePath.through("odom", np.array([[0, 0, 0], [0.1, 0.2, 0], [0.2, 0.4, 0]], float), 0.5)
    assert not drive(path, np.zeros(3), 2.0)[1][:, 1].any()
    poses, _ = drive(path, np.zeros(3), 4.0, omnidirectional=True)
    assert np.allclose(poses[-1], [0.2, 0.4, 0.0], atol=0.02)
