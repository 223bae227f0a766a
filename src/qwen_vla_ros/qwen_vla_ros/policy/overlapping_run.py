# SPDX-License-Identifier: Apache-2.0
"""Execution of one instruction without pauses: the next chunk is predicted while one is executed. Free of ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from qwen_vla.policies import ActionChunk
from qwen_vla.policies.latency import LatencyEstimate
from qwen_vla_control.motion.blending import MotionInterval
from qwen_vla_control.observation.streams import Observation
from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_ros.policy.instruction_run import (
    GoalContext,
    InstructionRun,
    Limits,
    PreviousChunk,
    PublishedChunk,
    RunEnded,
)
from qwen_vla_ros.ros.reports import Ending, Report, Verdict

UNTIL_REPORTED = 2**62  # [ns] a motion lasts until the executor reports its end


@dataclass(frozen=True)
class _Moving:
    """The chunk being executed; row 0 of its path is at `start_ns`, the next observation is due at `due_ns`."""

    sent: PublishedChunk
    chunk: ActionChunk
    start_ns: int
    due_ns: int


class OverlappingRun(InstructionRun):
    """Observes again while the arm moves, early enough that the next chunk arrives at the end of the execution horizon.

    The lead follows from the measured delay: from an observation to the executor's verdict on its chunk.
    """

    def __init__(
        self,
        context: GoalContext,
        limits: Limits,
        changed: threading.Condition,
        delay: LatencyEstimate,
        every_step: bool = False,
        continues: bool = False,
    ) -> None:
        """Prepare.

        Args:
            context, limits, changed: as for every run.
            delay: measured across runs, so that only the very first chunk is a cold start.
            every_step: observe again after each step rather than after the execution horizon (temporal ensembling).
            continues: give the policy the chunk being executed (real-time chunking).
        """
        super().__init__(context, limits, changed)
        self._delay, self._every_step, self._continues = delay, every_step, continues
        self._span = MotionInterval()
        self._moving: _Moving | None = None

    def _awaited(self) -> set[int]:
        return super()._awaited() | ({self._moving.sent.chunk_id} if self._moving else set())

    def _one_chunk(self) -> None:
        self._wait(self._is_due)
        if self._limits.max_chunks and self._executed >= self._limits.max_chunks:
            return
        observation = self._wait(self._observation_by(time.monotonic() + self._limits.observation_timeout))
        self._tell("inferring")
        chunk = self._context.infer(observation, self._refused_in_a_row, self._previous(observation))
        self._check_end()  # inference takes a while
        self._in_flight = sent = self._context.publish(chunk)
        self._latencies.append(sent.latency_ms)
        self._not_before_ns = observation.stamp_ns
        verdict = self._wait(self._verdict_by(sent, time.monotonic() + self._limits.report_timeout))
        try:
            if verdict.verdict == Verdict.REFUSED:
                self._settle(verdict)  # the current chunk continues
            else:
                self._take_over(sent, chunk, observation, verdict)
        finally:
            self._in_flight = self._moving.sent if self._moving else None

    def _is_due(self) -> bool | None:
        """Return True when the next observation is due: nothing moves, or the current chunk will have been executed."""
        moving, now = self._moving, self._context.now()
        if moving is None:
            return True
        if self._is_over():
            return True
        if now > moving.start_ns + round((moving.sent.whole + self._limits.report_timeout) * NANOSECONDS):
            self._raise_silent("end", moving.sent)
        self._tell("executing")
        last = self._limits.max_chunks and self._executed + 1 >= self._limits.max_chunks
        return True if now >= moving.due_ns and not last else None

    def _is_over(self) -> bool:
        """Return whether the current chunk is over, including by a handover, and act on its report."""
        final = self._final(self._moving.sent) if self._moving is not None else None
        if final is None:
            return False
        self._moving = None
        self._span.end(final.stamp_ns)
        self._settle(final)
        return True

    def _take_over(self, sent: PublishedChunk, chunk: ActionChunk, observation: Observation, verdict: Report) -> None:
        """Record that a chunk is being executed from now on, instead of the previous one."""
        self._is_over()
        self._refused_in_a_row = 0
        now = verdict.stamp_ns
        self._delay.add((now - observation.stamp_ns) / NANOSECONDS)
        start = now - self._span.skipped(observation.stamp_ns, now)
        self._span.begin(now, UNTIL_REPORTED)
        lead = self._delay.seconds or 0.0
        due = now + sent.period * NANOSECONDS if self._every_step else start + (sent.duration - lead) * NANOSECONDS
        self._moving = _Moving(sent, chunk, start, round(due))

    def _previous(self, observation: Observation) -> PreviousChunk | None:
        """The chunk that the next one has to continue."""
        moving = self._moving
        if not self._continues or moving is None:
            return None
        consumed = round((observation.stamp_ns - moving.start_ns) / NANOSECONDS / moving.sent.period)
        return PreviousChunk(moving.chunk, max(0, consumed), self._delay.steps(moving.sent.period))

    def _final(self, sent: PublishedChunk) -> Report | None:
        return next((r for r in self._reports.get(sent.chunk_id, []) if r.verdict != Verdict.ACCEPTED), None)

    def _verdict_by(self, sent: PublishedChunk, limit: float) -> Callable[[], Report | None]:
        def look() -> Report | None:
            reports = self._reports.get(sent.chunk_id, [])
            if not reports and time.monotonic() > limit:
                self._raise_silent("verdict", sent)
            return reports[0] if reports else None

        return look

    @staticmethod
    def _raise_silent(what: str, sent: PublishedChunk) -> None:
        text = f"no {what} reported for chunk {sent.chunk_id} in time; is it running and active?"
        raise RunEnded(Ending.EXECUTOR_SILENT, f"executor_node: {text}")
