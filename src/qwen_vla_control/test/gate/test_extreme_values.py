# SPDX-License-Identifier: Apache-2.0
"""A chunk of the right form may hold any numbers: the gate answers, at once and with numbers that mean something."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate import Gate, RobotState, gate_of
from qwen_vla_control.reasons import Reason, Refused

S = 10**9
LONGEST = 2.0  # [s] hundred times what a decision takes: one that does not end is meant
VALUES = st.sampled_from([0.0, 1e-45, 0.01, 1.0, math.pi, -100.0, 1e6, -1e19, 1e30, 3.4e38, -3.4e38])
CHANGES = st.lists(st.tuples(st.integers(0, 49), st.integers(0, 13), VALUES), max_size=12)


def chunk_of(robot: Embodiment, changes: list) -> Chunk:
    """A chunk of zeros, from some steps on with extreme values in some channels."""
    rows = np.zeros((robot.chunk_size, len(robot.channel_names)), np.float32)
    for step, channel, value in changes:
        rows[step % len(rows) :, channel % rows.shape[1]] = value
    return Chunk(
        chunk_id=1,
        stamp_ns=S,
        frame_id=robot.base_frame,
        embodiment=robot.name,
        control_mode=robot.control_mode,
        channel_names=tuple(robot.channel_names),
        instruction="go",
        horizon=len(rows),
        execution_horizon=len(rows) // 2,
        period=robot.period,
        data=rows.reshape(-1),
    )


@pytest.fixture(scope="module", params=["widowx", "aloha", "mobile_base"])
def robot(request) -> Embodiment:
    return load_robot(request.param)


@pytest.fixture(scope="module")
def gate(robot) -> Gate:
    return gate_of(robot)


@settings(max_examples=50, deadline=None)
@given(changes=CHANGES)
def test_the_gate_accepts_or_refuses_in_time(robot, gate, changes):
    here = np.array([robot.home[name] for name in gate.joints]) if gate.joints else np.zeros(3)
    began = time.monotonic()
    try:
        path = gate.decide(chunk_of(robot, changes), RobotState(S, here, here, frame="" if gate.joints else "odom"))
    except Refused as refused:
        assert refused.violations
    else:
        assert np.isfinite(path.path.positions).all() and np.abs(path.path.positions).max() < 100.0
    assert time.monotonic() - began < LONGEST


def test_a_home_motion_that_takes_too_long_is_refused():
    gate = gate_of(load_robot("widowx"))
    with pytest.raises(Refused, match="the motion home takes") as refused:
        gate.home_path(np.full(len(gate.joints), 9999.0), 0.25)
    assert refused.value.reasons == (Reason.START_JUMP,)
