# SPDX-License-Identifier: Apache-2.0
"""Conversion between qwen_vla_msgs and the types of the gate and the executor."""

from __future__ import annotations

import array
import math
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from builtin_interfaces.msg import Time

from embodiment_descriptions import Embodiment
from qwen_vla_control.chunk import Chunk, Prediction
from qwen_vla_control.reasons import Reason, Violation
from qwen_vla_control.stamps import NANOSECONDS, nanoseconds
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_msgs.msg import Embodiment as EmbodimentMessage
from qwen_vla_rclpy.messages import time_message
from qwen_vla_rclpy.printable import printable
from qwen_vla_ros.ros.reports import Report, Verdict

LARGEST_CHUNK = 131_072  # [bytes] of a serialized ActionChunk; its bounds allow less
LONGEST_INSTRUCTION = 500  # characters
LONGEST_TIMEOUT = 86400.0  # [s] of an instruction
VERDICTS, REASONS = {int(verdict) for verdict in Verdict}, {int(reason) for reason in Reason}


class TimedPrediction(Prediction, Protocol):
    """A prediction that says how long it took: wall time by stage [ms]; `total` is the sum."""

    @property
    def inference_ms(self) -> Mapping[str, float]: ...


def checked_instruction(text: str) -> str:
    """The instruction of a request without surrounding spaces; ValueError when no policy could execute it."""
    text = text.strip()
    if not text:
        raise ValueError("the instruction is empty; state what the robot should do")
    if len(text) > LONGEST_INSTRUCTION:
        raise ValueError(f"the instruction has {len(text)} characters (limit {LONGEST_INSTRUCTION})")
    if printable(text) != text:
        raise ValueError(f"the instruction has unprintable characters: {printable(text)}")
    return text


def checked_timeout(seconds: float) -> float:
    """The timeout of an instruction [s], 0 for the default of policy_node; ValueError when it cannot be one."""
    if not 0.0 <= seconds <= LONGEST_TIMEOUT:  # false for NaN
        raise ValueError(f"timeout {seconds} s: it must be 0 (policy_node's default) to {LONGEST_TIMEOUT:.0f} s")
    return float(seconds)


def chunk_from_message(message: ActionChunk, publisher: bytes = b"") -> Chunk:
    """Convert what the gate decides about, unchanged; whether the values make sense is its decision."""
    return Chunk(
        chunk_id=message.chunk_id,
        stamp_ns=nanoseconds(message.header.stamp),
        frame_id=message.header.frame_id,
        embodiment=str(message.embodiment),
        control_mode=str(message.control_mode),
        channel_names=tuple(message.channel_names),
        instruction=str(message.instruction),
        horizon=message.horizon,
        execution_horizon=message.execution_horizon,
        period=message.period,
        data=np.array(message.data, dtype=np.float32),
        publisher=publisher,
    )


def message_from_prediction(
    prediction: TimedPrediction, chunk_id: int, frame_id: str, execution_horizon: int
) -> ActionChunk:
    """Build the message of a policy's prediction.

    Args:
        prediction: a qwen_vla.ActionChunk.
        chunk_id: number of the chunk.
        frame_id: base frame of the robot.
        execution_horizon: steps to execute; with 0, the prediction's own.
    """
    message = message_from_chunk(Chunk.predicted(prediction, frame_id, chunk_id, execution_horizon))
    message.inference_ms = prediction.inference_ms["total"]
    return message


def message_from_chunk(chunk: Chunk) -> ActionChunk:
    """Convert unchanged; the inverse of `chunk_from_message`."""
    message = ActionChunk(
        chunk_id=chunk.chunk_id,
        embodiment=chunk.embodiment,
        control_mode=chunk.control_mode,
        channel_names=list(chunk.channel_names),
        instruction=chunk.instruction,
        horizon=chunk.horizon,
        execution_horizon=chunk.execution_horizon,
        period=chunk.period,
        data=array.array("f", chunk.data.tobytes()),
    )
    message.header.stamp, message.header.frame_id = time_message(chunk.stamp_ns), chunk.frame_id
    return message


def report_from_message(message: ChunkReport) -> Report | None:
    """Convert a report of the executor, without reasons that are not known here; None for an unknown verdict."""
    if message.verdict not in VERDICTS:
        return None
    reasons = frozenset(Reason(code) for code in message.reason_codes if code in REASONS)
    stamp, text = nanoseconds(message.header.stamp), printable(message.message)
    return Report(message.chunk_id, Verdict(message.verdict), reasons, text, stamp)


def embodiment_message(e: Embodiment, prompt: str, stamp: Time) -> EmbodimentMessage:
    """Build the message of an embodiment; `prompt` is the template with {instruction}."""
    limits = [e.limits[name] for name in e.joint_names]
    message = EmbodimentMessage(
        name=e.name,
        robot_tag=e.robot_tag,
        control_mode=e.control_mode,
        rate_hz=e.rate_hz,
        chunk_size=e.chunk_size,
        channel_names=list(e.channel_names),
        joint_names=list(e.joint_names),
        position_lower=[limit.lower for limit in limits],
        position_upper=[limit.upper for limit in limits],
        velocity_limit=[limit.velocity for limit in limits],
        effort_limit=[limit.effort for limit in limits],
        arm_names=[arm.name for arm in e.arms],
        arm_base_links=[arm.base_link for arm in e.arms],
        arm_tip_links=[arm.tip_link for arm in e.arms],
        has_waist=e.has_waist,
        has_base=e.base is not None,
        camera_tags=[camera.tag for camera in e.cameras],
        camera_topics=[camera.image_topic for camera in e.cameras],
        prompt=prompt,
    )
    message.header.stamp, message.header.frame_id = stamp, e.base_frame
    return message


class ChunkReporter:
    """Counts verdicts and builds their ChunkReport messages.

    Attributes:
        accepted, refused: number of chunks so far.
        reasons: how often each reason was given.
        decision_ms: wall time of the latest decision [ms].
    """

    def __init__(self, frame_id: str) -> None:
        """Start at zero; `frame_id` is the base frame, for the headers."""
        self._frame_id = frame_id
        self.accepted = 0
        self.refused = 0
        self.reasons: Counter[Reason] = Counter()
        self.decision_ms = math.nan

    def accept(self, chunk: Chunk, now_ns: int, decision_ms: float) -> ChunkReport:
        """Count and report an accepted chunk."""
        self.accepted += 1
        return self._decided(chunk, ChunkReport.ACCEPTED, (), now_ns, decision_ms)

    def refuse(self, chunk: Chunk, violations: tuple[Violation, ...], now_ns: int, decision_ms: float) -> ChunkReport:
        """Count and report a refused chunk."""
        self.refused += 1
        return self._decided(chunk, ChunkReport.REFUSED, violations, now_ns, decision_ms)

    def complete(self, chunk: Chunk | None, now_ns: int, message: str = "", steps: int | None = None) -> ChunkReport:
        """Report that a motion is complete; without a chunk it was one of the executor's own.

        steps: executed steps of the chunk; None: its execution horizon.
        """
        report = self._report(chunk, ChunkReport.COMPLETED, now_ns)
        report.steps_accepted = report.steps_accepted if steps is None else steps
        report.message = message
        return report

    def hold(self, chunk: Chunk | None, reason: Violation, now_ns: int) -> ChunkReport:
        """Count and report that a motion was aborted."""
        return self._because(self._report(chunk, ChunkReport.HELD, now_ns), (reason,))

    def _decided(self, chunk: Chunk, verdict: int, why: tuple[Violation, ...], now_ns: int, ms: float) -> ChunkReport:
        report = self._because(self._report(chunk, verdict, now_ns), why)
        self.decision_ms = report.decision_ms = ms
        report.observation_age_s = (now_ns - chunk.stamp_ns) / NANOSECONDS
        return report

    def _because(self, report: ChunkReport, violations: tuple[Violation, ...]) -> ChunkReport:
        reasons = tuple(dict.fromkeys(v.reason for v in violations))
        self.reasons.update(reasons)
        report.reason_codes = [int(reason) for reason in reasons]
        report.message = printable("; ".join(v.message for v in violations))
        return report

    def _report(self, chunk: Chunk | None, verdict: int, now_ns: int) -> ChunkReport:
        report = ChunkReport(verdict=verdict, accepted_total=self.accepted, refused_total=self.refused)
        report.header.stamp = time_message(now_ns)
        report.header.frame_id = self._frame_id
        report.observation_age_s = report.decision_ms = math.nan
        if chunk is not None:
            report.chunk_id, report.instruction = chunk.chunk_id, printable(chunk.instruction, LONGEST_INSTRUCTION)
            report.steps_accepted = 0 if verdict == ChunkReport.REFUSED else chunk.execution_horizon
        return report
