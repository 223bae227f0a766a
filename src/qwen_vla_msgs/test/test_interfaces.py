# SPDX-License-Identifier: Apache-2.0
"""The interfaces are documented, their codes are unambiguous, and they survive serialization."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from rclpy.serialization import deserialize_message, serialize_message

from qwen_vla_msgs.action import ExecuteInstruction
from qwen_vla_msgs.msg import ActionChunk, ChunkReport, Embodiment, PolicyIdentity, TaskState
from qwen_vla_msgs.srv import LabelEpisode, Misbehave, ResetWorld, StartEpisode, StartPolicy

PACKAGE = Path(__file__).resolve().parents[1]
FILES = sorted(path for kind in ("msg", "srv", "action") for path in (PACKAGE / kind).iterdir())
FIELD = re.compile(r"^[\w/]+(\[\])? \w+ ?(=\S+)?")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_field_says_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[1].startswith("# "), "what it is for, below the license"
    for before, line in pairwise(lines):
        if FIELD.match(line):
            assert "#" in line or before.startswith("#"), f"{path.name}: no comment on: {line}"


@pytest.mark.parametrize(
    "path, count",
    [
        ("msg/ChunkReport.msg", 2),
        ("action/ExecuteInstruction.action", 1),
        ("msg/ActionChunk.msg", 1),
        ("srv/LabelEpisode.srv", 1),
        ("srv/Misbehave.srv", 1),
    ],
)
def test_constants_of_one_type_have_different_values(path: str, count: int) -> None:
    constants = re.findall(r"^(\w+) ([A-Z_0-9]+)=(\S+)", (PACKAGE / path).read_text(encoding="utf-8"), re.MULTILINE)
    by_type: dict[str, list[str]] = {}
    for kind, _, value in constants:
        by_type.setdefault(kind, []).append(value)
    assert len(by_type) == count
    for values in by_type.values():
        assert len(set(values)) == len(values)


def test_an_unset_code_is_not_a_code() -> None:
    """A report that nobody filled in must not read as a decision."""
    report = ChunkReport()
    decisions = {ChunkReport.ACCEPTED, ChunkReport.REFUSED, ChunkReport.COMPLETED, ChunkReport.HELD}
    assert report.verdict not in decisions
    assert ActionChunk().control_mode != ActionChunk.CONTROL_MODE_EEF_DELTA


def test_codes_of_the_action_are_in_the_result() -> None:
    codes = ExecuteInstruction.Result
    assert codes.SUCCESS == 0
    assert {codes.CANCELED, codes.TIMEOUT, codes.INFERENCE_STOPPED, codes.REFUSED_TOO_OFTEN} <= set(range(9100, 9200))


@pytest.mark.parametrize(
    "message",
    [
        ActionChunk(
            chunk_id=2**63, control_mode=ActionChunk.CONTROL_MODE_EEF_DELTA, horizon=2, channel_names=["x"], data=[1, 2]
        ),
        ActionChunk(policy=PolicyIdentity(name="tiny", hash="0" * 64, protocol="qwen_vla", embodiment="widowx")),
        ChunkReport(verdict=ChunkReport.REFUSED, reason_codes=[ChunkReport.NON_FINITE, ChunkReport.STALE]),
        Embodiment(name="widowx", joint_names=["waist"], position_lower=[float("-inf")], prompt="Größe ↔ 大"),
        TaskState(target="red cube", failure="dropped", distance=0.01, metric_names=["lift"], metrics=[0.1]),
        ResetWorld.Request(seed=-1),
        ResetWorld.Response(success=True, instruction="pick up the red cube"),
        Misbehave.Request(fault=Misbehave.Request.GLITCH, name="waist", amount=-0.8, on=True),
        StartEpisode.Request(instruction="pick up the red cube"),
        StartPolicy.Request(instruction="pick up the red cube", timeout=20.0),
        LabelEpisode.Request(episode="widowx_1", outcome=LabelEpisode.Request.SUCCEEDED, note="a bit slow"),
        ExecuteInstruction.Goal(instruction="pick up the red cube", timeout=20.0),
        ExecuteInstruction.Result(error_code=ExecuteInstruction.Result.TIMEOUT, error_msg="20 s are over"),
        ExecuteInstruction.Feedback(chunks_executed=3, state="executing"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_serialization_keeps_everything(message) -> None:
    assert deserialize_message(serialize_message(message), type(message)) == message
