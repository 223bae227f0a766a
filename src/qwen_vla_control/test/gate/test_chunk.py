# SPDX-License-Identifier: Apache-2.0
"""From a prediction to a chunk, for the message and in process."""

from types import SimpleNamespace

import numpy as np
import pytest

from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate import gate_of
from qwen_vla_control.gate.chunk_schema import check_schema
from qwen_vla_control.gate.robot_state import RobotState


def prediction(widowx, **changes):
    said = {"channel_names": tuple(widowx.channel_names), "period": 0.2, "control_mode": widowx.control_mode}
    said |= {"embodiment": "widowx", "instruction": "lift it", "stamp_ns": 7, "execution_horizon": 8}
    return SimpleNamespace(**({"data": np.zeros((16, 7)), **said} | changes))


def test_a_prediction_is_taken_over_as_it_is_in_single_precision(widowx):
    data = np.random.default_rng(0).normal(size=(16, 7))
    chunk = Chunk.predicted(prediction(widowx, data=data, embodiment="another", period=np.nan), "base_link", 3)
    assert (chunk.chunk_id, chunk.stamp_ns, chunk.frame_id, chunk.embodiment) == (3, 7, "base_link", "another")
    assert np.isnan(chunk.period) and (chunk.instruction, chunk.horizon) == ("lift it", 16)
    assert chunk.data.dtype == np.float32
    np.testing.assert_array_equal(chunk.rows, data.astype(np.float32))


def test_unless_told_otherwise_it_has_no_number_and_executes_what_the_prediction_says(widowx):
    chunk = Chunk.predicted(prediction(widowx), "base_link")
    assert (chunk.chunk_id, chunk.execution_horizon, chunk.publisher) == (0, 8, b"")


def test_names_are_compared_as_a_chunk_has_them_whatever_the_policy_gave(widowx):
    chunk = Chunk.predicted(prediction(widowx, channel_names=list(widowx.channel_names)), "base_link")
    assert check_schema(chunk, gate_of(widowx).schema) == []


@pytest.mark.parametrize(("asked", "own", "executed"), [(0, 8, 8), (4, 8, 4), (0, 0, 16), (99, 8, 16), (0, 99, 16)])
def test_how_much_is_executed_is_asked_for_or_the_predictions_own(widowx, asked, own, executed):
    chunk = Chunk.predicted(prediction(widowx, execution_horizon=own), "base_link", execution_horizon=asked)
    assert chunk.execution_horizon == executed


def test_rows_for_a_robot_declare_what_its_gate_expects(widowx, home):
    gate = gate_of(widowx)
    chunk = Chunk.of_rows(widowx, np.zeros((16, 7)), 8)
    assert (chunk.chunk_id, chunk.stamp_ns, chunk.instruction) == (0, 0, ""), "nobody predicted it"
    assert check_schema(chunk, gate.schema) == []
    assert gate.decide(chunk, RobotState(0, home, home)).path.steps == 8
