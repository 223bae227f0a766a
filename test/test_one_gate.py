# SPDX-License-Identifier: Apache-2.0
"""Every suite judges a chunk as the executor's gate judges the message that would have been sent of it."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla import ActionChunk
from qwen_vla.suites import load_suite
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate import RobotState, gate_of
from qwen_vla_control.motion.base_path import accumulated
from qwen_vla_control.reasons import Reason, Refused
from qwen_vla_ros.ros.chunk_messages import chunk_from_message, message_from_chunk

ROBOTS = ("widowx", "aloha", "mobile_base")
STAMP = 10**18  # [ns] of all observations
SCHEMA = {
    Reason.NON_FINITE,
    Reason.WRONG_SHAPE,
    Reason.WRONG_JOINTS,
    Reason.WRONG_CONTROL_MODE,
    Reason.WRONG_EMBODIMENT,
}
ARM = SCHEMA | {Reason.POSITION_LIMIT, Reason.VELOCITY_LIMIT, Reason.START_JUMP, Reason.SELF_COLLISION}
REASONS = {  # what the chunks below have to bring about, or they would not be around every limit
    "widowx": ARM | {Reason.STEP_JUMP, Reason.UNREACHABLE, Reason.OUT_OF_WORKSPACE},
    "aloha": ARM | {Reason.STEP_JUMP, Reason.ACCELERATION_LIMIT},
    "mobile_base": SCHEMA | {Reason.VELOCITY_LIMIT, Reason.START_JUMP},
}

Rng = np.random.Generator


def ramp(rng: Rng, steps: int, least: int) -> np.ndarray:
    """(steps,) from 0 to 1 within some steps, at least so many, and then 1."""
    return np.minimum(np.arange(1, steps + 1) / rng.integers(least, steps + 1), 1.0)


def deltas(robot: Embodiment, rng: Rng, _where: np.ndarray) -> np.ndarray:
    """Of the tip: along and around some direction, faster and slower, now and then with a jump."""
    rows = np.zeros((robot.chunk_size, 7))
    along, around = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    moves = rng.random() < 0.8
    rows[:, :3] = np.outer(ramp(rng, len(rows), 3), along * moves * rng.uniform(0.0, 0.35))
    rows[:, 3:6] = np.outer(ramp(rng, len(rows), 3), around * rng.uniform(0.0, 1.2))
    if rng.random() < 0.2:
        rows[rng.integers(len(rows)) :, :6] += rng.normal(size=6) * rng.uniform(0.0, 0.15)
    rows[:, 6] = rng.uniform(-0.15, 1.15)
    return rows


def joint_rows(robot: Embodiment, rng: Rng, where: np.ndarray) -> np.ndarray:
    """Of both arms: from beside where they are to some posture, faster and slower, jerking or not."""
    count, arms, period = robot.chunk_size, len(robot.layout.joints), robot.period
    limits = [robot.limits[name] for name in robot.joint_names[:arms]]
    lower, upper = (np.array([getattr(limit, end) for limit in limits]) for end in ("lower", "upper"))
    moved = rng.random(arms) < rng.choice([0.1, 0.5])
    goal = where[:arms] + moved * rng.uniform(-0.05, 1.05) * (rng.choice([lower, upper]) - where[:arms])
    s = ramp(rng, count, 10)
    share = s * s * (3 - 2 * s)
    peak = 1.5 * np.abs(goal - where[:arms]).max() * s[0] / period  # of the fastest joint, in the middle
    speed = rng.uniform(0.1, 1.2) * min(limit.velocity for limit in limits)
    share = share * min(1.0, speed / max(peak, 1e-9))
    offset = moved * rng.normal(size=arms) * rng.choice([0.0, 0.01, 0.2])
    rows = np.zeros((count, arms + len(robot.layout.grippers)))
    rows[:, robot.layout.joints] = where[:arms] + offset + np.outer(share, goal - where[:arms])
    rows[:, robot.layout.joints[0]] += rng.choice([0.0, 0.02]) * rng.random() * (np.arange(count) % 2)
    if rng.random() < 0.1:
        rows[rng.integers(1, count) :, robot.layout.joints[1]] += rng.uniform(0.05, 0.15)
    rows[:, robot.layout.grippers] = rng.uniform(-0.12, 1.12, len(robot.layout.grippers))
    return rows


def waypoints(robot: Embodiment, rng: Rng, _where: np.ndarray) -> np.ndarray:
    """Of a base: ahead, back and around, with speeds of which some are too high."""
    limits, count = robot.safety.base, robot.chunk_size
    speed = rng.uniform(-0.5, 1.1) * limits.max_linear + rng.normal(scale=0.02, size=count)
    turn = rng.uniform(-1.1, 1.1) * limits.max_angular + rng.normal(scale=0.1, size=count)
    return accumulated(np.zeros(3), robot.period * np.column_stack([speed, np.zeros(count), turn]))


ROWS = {"widowx": deltas, "aloha": joint_rows, "mobile_base": waypoints}


def spoiled(chunk: Chunk, rng: Rng) -> Chunk:
    """Something that a chunk says about itself is wrong."""
    data = chunk.data.copy()
    data[rng.integers(data.size)] = rng.choice([np.nan, np.inf, -np.inf])
    wrong = [
        {"data": data},
        {"data": np.tile(chunk.data, 3), "horizon": 3 * chunk.horizon},
        {"data": chunk.data[1:]},
        {"period": chunk.period * 2},
        {"execution_horizon": 0},
        {"channel_names": chunk.channel_names[::-1]},
        {"control_mode": "base_velocity"},
        {"embodiment": "another"},
    ]
    return replace(chunk, **wrong[rng.integers(len(wrong))])


def predicted(robot: Embodiment, rng: Rng, where: np.ndarray) -> Chunk:
    """A chunk around the limits of a robot; one in ten says something wrong about itself."""
    rows = ROWS[robot.name](robot, rng, where).astype(np.float32)
    names, mode = tuple(robot.channel_names), robot.control_mode
    executed = int(rng.integers(1, len(rows) + 1))
    prediction = ActionChunk(rows, names, robot.period, mode, robot.name, "go", STAMP, {"total": 1.0}, executed)
    chunk = Chunk.predicted(prediction, robot.base_frame)
    return spoiled(chunk, rng) if rng.random() < 0.1 else chunk


def somewhere(robot: Embodiment, rng: Rng) -> tuple[np.ndarray, dict[str, Any]]:
    """Where a robot is, and the observation that tells it."""
    if robot.name == "mobile_base":
        where = rng.uniform([-2, -2, -np.pi], [2, 2, np.pi]).astype(np.float32)
        return where.astype(float), {"pose": where}
    limits = [robot.limits[name] for name in robot.joint_names]
    home = np.array([robot.home[name] for name in robot.joint_names])
    anywhere = rng.uniform([limit.lower for limit in limits], [limit.upper for limit in limits])
    where = home + rng.uniform(0.0, 0.3) * (anywhere - home)
    if robot.name == "widowx" and rng.random() < 0.2:
        where[1:3] = -1.5, 1.5  # shoulder and elbow: the gripper is folded back to the base
    measured = where.astype(np.float32)
    return measured.astype(float), {"joints": measured, "command": measured}


def verdicts(name: str, count: int) -> Counter[Reason | None]:
    """How often each reason was given, None: accepted, where suite and executor's gate agree about every chunk."""
    suite, robot, rng, found = load_suite(name), load_robot(name), np.random.default_rng(14), Counter()
    gate = gate_of(robot)
    for _ in range(count):
        where, observation = somewhere(robot, rng)
        chunk = predicted(robot, rng, where)
        sent = chunk_from_message(message_from_chunk(chunk))
        frame = "odom" if name == "mobile_base" else ""
        try:
            path = gate.decide(sent, RobotState(STAMP, where, where, frame=frame)).path
        except Refused as refused:
            with pytest.raises(Refused) as of_suite:
                suite.plan(chunk, observation)
            assert of_suite.value.violations == refused.violations
            found.update(refused.reasons)
            continue
        found[None] += 1
        actions = suite.plan(chunk, observation)
        np.testing.assert_allclose(actions[: path.steps, : path.positions.shape[1]], path.positions[1:], atol=1e-9)
        assert (actions[path.steps :] == actions[path.steps - 1]).all(), "then it rests until there is a picture"
    return found


@pytest.mark.parametrize("name", ROBOTS)
def test_a_suite_and_the_executors_gate_say_the_same_about_a_thousand_chunks_around_every_limit(name):
    found = verdicts(name, 1000)
    assert 200 < found[None] < 800 and REASONS[name] <= found.keys()
