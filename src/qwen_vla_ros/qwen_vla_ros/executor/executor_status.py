# SPDX-License-Identifier: Apache-2.0
"""The diagnostics of executor_node."""

from __future__ import annotations

from collections.abc import Iterable

from diagnostic_msgs.msg import DiagnosticStatus

from qwen_vla_control.motion.command_state import Motion
from qwen_vla_control.reasons import Reason, Violation
from qwen_vla_ros.executor.loop_timing import LoopTiming
from qwen_vla_ros.ros.chunk_messages import ChunkReporter


def problems_of(
    stopped: Violation | None, faults: Iterable[str], silent: str, refusals: int, max_refusals: int
) -> dict[str, bytes]:
    """Problems, as text, with their levels.

    Args:
        stopped: why nothing may move.
        faults: of the robot's streams and command interfaces.
        silent: that the policy is silent, as text; empty when it is not.
        refusals, max_refusals: chunks refused in a row, and how many are a problem.
    """
    problems: dict[str, bytes] = {}
    if stopped is not None:
        pressed = stopped.reason is Reason.EMERGENCY_STOP
        problems[stopped.message] = DiagnosticStatus.ERROR if pressed else DiagnosticStatus.WARN
    problems |= dict.fromkeys(faults, DiagnosticStatus.ERROR)
    if silent:
        problems[silent] = DiagnosticStatus.WARN
    if refusals >= max_refusals:
        problems[f"{refusals} chunks in a row were refused"] = DiagnosticStatus.WARN
    return problems


def values_of(motion: Motion | None, reporter: ChunkReporter, timing: LoopTiming) -> dict[str, object]:
    """Counts and times, by the name under which they are published."""
    executing = "nothing" if motion is None else f"chunk {motion.chunk.chunk_id}" if motion.chunk else "home"
    return {
        "executing": executing,
        "accepted": reporter.accepted,
        "refused": reporter.refused,
        **{f"reason {reason.name}": count for reason, count in reporter.reasons.items()},
        "decision [ms]": reporter.decision_ms,
        **{f"loop jitter {name} [ms]": value for name, value in timing.jitter_ms().items()},
    }
