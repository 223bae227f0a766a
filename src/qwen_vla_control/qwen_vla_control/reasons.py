# SPDX-License-Identifier: Apache-2.0
"""The gate's vocabulary: reasons, violations, and the exception that carries them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Reason(IntEnum):
    """Why a chunk was refused or the robot holds; the numbers are those of qwen_vla_msgs/msg/ChunkReport."""

    NON_FINITE = 1
    WRONG_SHAPE = 2
    WRONG_JOINTS = 3
    WRONG_CONTROL_MODE = 4
    WRONG_EMBODIMENT = 5
    STALE = 6
    POSITION_LIMIT = 7
    VELOCITY_LIMIT = 8
    START_JUMP = 9
    STEP_JUMP = 10
    UNREACHABLE = 11
    NO_JOINT_STATE = 12
    NOT_ACTIVE = 13
    OUT_OF_WORKSPACE = 14
    WRONG_ORDER = 15
    POLICY_SILENT = 16
    STOPPED = 17
    JOINT_STATE_LOST = 18
    NO_CHUNK = 19
    CANCELED = 20
    DEACTIVATED = 21
    INTERNAL = 22
    REPLACED = 23
    ACCELERATION_LIMIT = 24
    SELF_COLLISION = 25
    EMERGENCY_STOP = 26
    REFUSED_TOO_OFTEN = 27
    WRONG_INSTRUCTION = 28
    NO_ODOMETRY = 29
    ODOMETRY_LOST = 30
    NOT_READY = 31
    CLOCK_STOPPED = 32
    STALLED = 33
    REFERENCE_MISMATCH = 34
    NOT_FOLLOWING = 35
    DOUBTFUL_STATE = 36


@dataclass(frozen=True)
class Violation:
    """One reason against a chunk, with the value and the limit as text."""

    reason: Reason
    message: str


class Refused(Exception):
    """A chunk or a motion that may not be executed.

    Attributes:
        violations: every reason found, never empty.
    """

    def __init__(self, violations: Iterable[Violation]) -> None:
        """Join the reasons into the text of the exception."""
        self.violations = tuple(dict.fromkeys(violations))
        super().__init__("; ".join(v.message for v in self.violations))

    @classmethod
    def because(cls, reason: Reason, message: str) -> Refused:
        """Refuse for one reason."""
        return cls([Violation(reason, message)])

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The distinct reasons, in the order found."""
        return tuple(dict.fromkeys(v.reason for v in self.violations))


def refuse_if(violations: list[Violation]) -> None:
    """Raise Refused when there are violations."""
    if violations:
        raise Refused(violations)
