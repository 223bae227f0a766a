# SPDX-License-Identifier: Apache-2.0
"""What is told of a chunk and of the end of an instruction, as types. Free of ROS."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from qwen_vla_control.reasons import Reason


class Ending(IntEnum):
    """How an instruction ended; the numbers are those of qwen_vla_msgs/action/ExecuteInstruction."""

    SUCCESS = 0
    UNKNOWN = 9100
    CANCELED = 9101
    TIMEOUT = 9102
    INFERENCE_STOPPED = 9103
    EXECUTOR_STOPPED = 9104
    EXECUTOR_SILENT = 9105
    REFUSED_TOO_OFTEN = 9106
    NOT_ACTIVE = 9107
    BUSY = 9108
    INVALID_GOAL = 9109
    NO_EMBODIMENT = 9110
    INTERNAL = 9111

    @classmethod
    def _missing_(cls, value: object) -> Ending:
        return cls.UNKNOWN

    def __str__(self) -> str:
        """Return it as text."""
        return self.name.lower().replace("_", " ")


class Verdict(IntEnum):
    """The executor's verdict on a chunk; the numbers are those of qwen_vla_msgs/msg/ChunkReport."""

    ACCEPTED = 1
    REFUSED = 2
    COMPLETED = 3
    HELD = 4


@dataclass(frozen=True)
class Report:
    """A report of the executor.

    Attributes:
        chunk_id: of the chunk; 0: it is about a motion of the executor's own.
        verdict: what became of it.
        reasons: why it was refused, or held.
        message: the reasons as text: joint or channel, value, limit.
        stamp_ns: time of the verdict [ns, ROS time].
    """

    chunk_id: int
    verdict: Verdict
    reasons: frozenset[Reason]
    message: str
    stamp_ns: int
