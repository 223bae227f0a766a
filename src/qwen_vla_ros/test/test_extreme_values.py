"""A chunk of the right form may hold any numbers: the gate answers at once, and what is drawn can be drawn."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_msgs.msg import ActionChunk
from qwen_vla_ros.base_decision import BaseDecision
from qwen_vla_ros.chunk_decision import ChunkDecision
from qwen_vla_ros.chunk_geometry import FARTHEST, CannotDraw, ChunkGeometry, RobotPose
from qwen_vla_ros.chunk_messages import LARGEST_CHUNK, Ledger, checked_instruction
from qwen_vla_ros.gate import Chunk, ChunkRules, Reason, Refused, Violation
from qwen_vla_ros.robot_state import JointStates, Odometry

S = 10**9
ROBOTS = ("widowx", "aloha", "mobile_base")
LONGEST = 2.0  # [s] hundred times what a decision takes: one that does not end is meant
VALUES = st.sampled_from([0.0, 1e-45, 0.01, 1.0, math.pi, -100.0, 1e6, -1e19, 1e30, 3.4e38, -3.4e38])
CHANGES = st.lists(st.tuples(st.integers(0, 49), st.integers(0, 13), VALUES), max_size=12)


def home_of(robot: Embodiment, joints: tuple[str, ...]) -> np.ndarray:
    return np.array([robot.home[name] for name in joints]) if joints else np.zeros(3)


def chunk_of(robot: Embodiment, changes: list) -> Chunk:
    rules = ChunkRules.of(robot)
    rows = np.zeros((rules.max_horizon, len(rules.channel_names)), np.float32)
    for step, channel, value in changes:
        rows[step % len(rows) :, channel % rows.shape[1]] = value
    return Chunk(
        chunk_id=1,
        stamp_ns=S,
        frame_id=rules.base_frame,
        embodiment=rules.embodiment,
        control_mode=rules.control_mode,
        channel_names=rules.channel_names,
        instruction="go",
        horizon=len(rows),
        execution_horizon=len(rows) // 2,
        period=rules.period,
        data=rows.reshape(-1),
    )


@pytest.fixture(scope="module", params=ROBOTS)
def robot(request) -> Embodiment:
    return load_robot(request.param)


@pytest.fixture(scope="module")
def decision(robot) -> ChunkDecision | BaseDecision:
    return ChunkDecision(robot) if robot.arms else BaseDecision(robot, lambda: "odom")


@settings(max_examples=50)
@given(changes=CHANGES)
def test_the_gate_accepts_or_refuses_in_time(robot, decision, changes):
    here, began = home_of(robot, decision.joints), time.monotonic()
    try:
        path = decision.path_of(chunk_of(robot, changes), here, here)
    except Refused as refused:
        assert refused.violations
    else:
        assert np.isfinite(path.positions).all() and np.abs(path.positions).max() < 100.0
    assert time.monotonic() - began < LONGEST


@settings(max_examples=50)
@given(changes=CHANGES)
def test_what_is_drawn_is_near_enough_to_be_drawn(robot, changes):
    start = RobotPose(dict(robot.home), None if robot.arms else np.eye(4), "odom")
    try:
        ways = ChunkGeometry(robot).ways(chunk_of(robot, changes), start)
    except CannotDraw:
        return
    assert all((np.abs(way.poses) <= FARTHEST).all() for way in ways)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e300])
def test_a_joint_state_that_can_be_no_position_is_a_fault(value):
    robot = load_robot("widowx")
    states = JointStates(robot, robot.joint_names, ["/joint_states"], 0.5)
    states.push(0, S, list(robot.home), [*list(robot.home.values())[:-1], value], 0)
    assert list(robot.home)[-1] in states.fault(S, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_an_odometry_that_can_be_no_pose_is_a_fault(value):
    from geometry_msgs.msg import Point, Pose, Quaternion

    odometry = Odometry("/odom", 0.5)
    odometry.push(S, "odom", Pose(position=Point(x=value), orientation=Quaternion(w=1.0)), 0)
    assert "is none" in odometry.fault(S, 0)


def test_a_home_that_is_for_ever_away_is_not_gone_to():
    robot = load_robot("widowx")
    decision = ChunkDecision(robot)
    with pytest.raises(Refused, match="the way home takes") as refused:
        decision.home_path(np.full(len(decision.joints), 9999.0), 0.25)
    assert refused.value.reasons == (Reason.START_JUMP,)


def test_the_largest_chunk_that_the_message_allows_is_taken():
    from rclpy.serialization import serialize_message

    largest = ActionChunk(
        embodiment="e" * 64,
        control_mode="c" * 32,
        channel_names=["n" * 64] * 128,
        instruction="i" * 2048,
        data=[1.0] * 16384,
    )
    largest.header.frame_id = "base_link" * 10
    assert len(serialize_message(largest)) < LARGEST_CHUNK


def test_a_report_fits_its_message_and_can_be_shown_whatever_the_chunk_said():
    robot = load_robot("widowx")
    chunk = chunk_of(robot, [])
    hostile = Chunk(**{**chunk.__dict__, "instruction": "\x1b[2J" * 100_000})
    violations = (Violation(Reason.WRONG_EMBODIMENT, "for '\x1b[31m\n" + "大" * 100_000),)
    report = Ledger("base_link").refuse(hostile, violations, S, 1.0)
    assert report.message.isprintable() and len(report.message.encode()) <= 4096
    assert report.instruction.isprintable() and len(report.instruction.encode()) <= 2048


@pytest.mark.parametrize("text", ["", "  ", "x" * 501, "pick\x1b[31m", "pick\nplace"])
def test_what_is_no_sentence_is_no_instruction(text):
    with pytest.raises(ValueError, match="instruction"):
        checked_instruction(text)
