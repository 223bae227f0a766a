# SPDX-License-Identifier: Apache-2.0
"""What a chunk says about itself: every statement counts, and is refused for its own reason."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embodiment_descriptions import ControlMode
from qwen_vla_control.gate.chunk_schema import ChunkSchema, check_age, check_instruction, check_schema
from qwen_vla_control.reasons import Reason

NOW = 10**18  # [ns]
fixtures_are_read_only = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def reasons(violations) -> list[Reason]:
    return [violation.reason for violation in violations]


def test_what_a_chunk_must_say_is_derived_from_its_robot(rig):
    assert ChunkSchema.of(rig()) == ChunkSchema(
        embodiment="rig",
        control_mode=ControlMode.JOINT_POSITION,
        channel_names=(
            *("left_slide", "left_turn", "left_gripper", "right_slide", "right_turn", "right_gripper"),
            "lift",
        ),
        period=0.1,
        max_horizon=8,
        base_frame="left_base",
    )


def test_a_good_chunk_has_a_good_form(gate, good_chunk):
    assert check_schema(good_chunk, gate.schema) == []


@given(index=st.integers(0, 111), value=st.sampled_from([np.nan, np.inf, -np.inf]))
@fixtures_are_read_only
def test_one_value_that_is_not_finite_is_refused_wherever_it_is(gate, good_chunk, index, value):
    data = good_chunk.data.copy()
    data[index] = value
    assert reasons(check_schema(replace(good_chunk, data=data), gate.schema)) == [Reason.NON_FINITE]


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
        ({"horizon": 0, "execution_horizon": 0, "data": np.zeros(0, np.float32)}, Reason.WRONG_SHAPE),
        ({"horizon": 17, "data": np.zeros(17 * 7, np.float32)}, Reason.WRONG_SHAPE),
        ({"execution_horizon": 0}, Reason.WRONG_SHAPE),
        ({"execution_horizon": 17}, Reason.WRONG_SHAPE),
        ({"execution_horizon": -1}, Reason.WRONG_SHAPE),
        ({"period": 0.1}, Reason.WRONG_SHAPE),
        ({"period": 0.2 * (1 + 2e-6)}, Reason.WRONG_SHAPE),
        ({"period": 0.0}, Reason.WRONG_SHAPE),
        ({"period": float("nan")}, Reason.WRONG_SHAPE),
        ({"data": np.zeros(111, np.float32)}, Reason.WRONG_SHAPE),
        ({"data": np.zeros((16, 7), np.float32)}, Reason.WRONG_SHAPE),
        ({"data": np.zeros(0, np.float32)}, Reason.WRONG_SHAPE),
    ],
)
def test_a_wrong_form_is_refused_for_its_reason(gate, good_chunk, change, reason):
    assert reason in reasons(check_schema(replace(good_chunk, **change), gate.schema))


@pytest.mark.parametrize("change", [{"execution_horizon": 1}, {"execution_horizon": 16}, {"period": 0.2 * (1 + 5e-7)}])
def test_what_is_just_right_is_no_wrong_form(gate, good_chunk, change):
    assert check_schema(replace(good_chunk, **change), gate.schema) == []


def test_a_chunk_may_be_shorter_than_its_robot_allows(gate, good_chunk):
    for horizon in (1, 15):
        shorter = replace(good_chunk, horizon=horizon, execution_horizon=1, data=good_chunk.data[: 7 * horizon])
        assert check_schema(shorter, gate.schema) == []


def test_all_that_is_wrong_is_told_at_once(gate, good_chunk):
    wrong = replace(good_chunk, embodiment="aloha", control_mode="joint_position", frame_id="world", period=1.0)
    assert reasons(check_schema(wrong, gate.schema)) == [
        *(Reason.WRONG_EMBODIMENT, Reason.WRONG_CONTROL_MODE, Reason.WRONG_EMBODIMENT, Reason.WRONG_SHAPE),
    ]


# Age ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [0.0, 0.999, 1.0, -0.1, -0.099])
def test_an_observation_of_just_now_is_none_too_old(age):
    assert check_age(NOW - round(age * 1e9), NOW, max_age=1.0, max_future=0.1) == []


@pytest.mark.parametrize(
    ("age", "words"),
    [(1.001, r"1\.00 s old \(limit 1\.00 s\)"), (-0.101, r"0\.10 s in the future \(limit 0\.10 s\); are the clocks")],
)
def test_an_observation_that_is_too_old_or_not_yet_made_is_stale(age, words):
    (violation,) = check_age(NOW - round(age * 1e9), NOW, max_age=1.0, max_future=0.1)
    assert violation.reason is Reason.STALE
    assert re.search(words, violation.message)


@pytest.mark.parametrize(("stamp", "stale"), [(-1, True), (0, True), (1, False)])
def test_an_unset_stamp_is_stale_however_early_it_is(stamp, stale):
    assert reasons(check_age(stamp, 5, max_age=1.0, max_future=0.1)) == [Reason.STALE] * stale


# Instruction ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "current", "words"),
    [
        ("", None, "names no instruction"),
        (" \t", " \t", "names no instruction"),
        ("lift it", "drop it", "the chunk executes 'lift it', but the instruction of the policy is 'drop it'"),
        ("lift it", "", "the instruction of the policy has ended"),
    ],
)
def test_a_chunk_that_obeys_another_sentence_or_none_is_refused(good_chunk, told, current, words):
    (violation,) = check_instruction(replace(good_chunk, instruction=told), current)
    assert violation.reason is Reason.WRONG_INSTRUCTION and words in violation.message


@pytest.mark.parametrize("current", ["lift it", None])
def test_a_chunk_that_obeys_the_current_sentence_is_fine_also_before_the_policy_has_told_it(good_chunk, current):
    assert check_instruction(replace(good_chunk, instruction="lift it"), current) == []
