"""The course of one instruction without pauses: the next chunk is predicted while one is executed. Free of ROS."""

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
    Ending,
    GoalContext,
    InstructionRun,
    Limits,
    PreviousChunk,
    PublishedChunk,
    Report,
    RunEnded,
    Verdict,
)

UNTIL_TOLD = 2**62  # [ns] a motion lasts until the executor says that it is over


@dataclass(frozen=True)
class _Moving:
    """The chunk that is being executed; row 0 of its path belongs to `start_ns`, the next look is due at `due_ns`."""

    sent: PublishedChunk
    chunk: ActionChunk
    start_ns: int
    due_ns: int


class OverlappingRun(InstructionRun):
    """Looks again while the arm moves, so early that the next chunk arrives when the execution horizon is over.

    How early follows from the delay that was measured: from an observation to the executor's verdict about its chunk.
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
            delay: measured from run to run, so that only the very first chunk is a cold start.
            every_step: look again after each step rather than after the execution horizon (temporal ensembling).
            continues: give the policy the chunk that is being executed (real-time chunking).
        """
        super().__init__(context, limits, changed)
        self._delay, self._every_step, self._continues = delay, every_step, continues
        self._span = MotionInterval()
        self._moving: _Moving | None = None

    def _awaited(self) -> set[int]:
        return super()._awaited() | ({self._moving.sent.chunk_id} if self._moving else set())

    def _one_chunk(self) -> None:
        self._wait(self._turn)
        if self._limits.max_chunks and self._executed >= self._limits.max_chunks:
            return
        observation = self._wait(self._observation_by(time.monotonic() + self._limits.observation_timeout))
        self._tell("inferring")
        chunk = self._context.infer(observation, self._previous(observation))
        self._check_end()  # inference takes its time
        self._in_flight = sent = self._context.publish(chunk)
        self._latencies.append(sent.latency_ms)
        self._not_before_ns = observation.stamp_ns
        verdict = self._wait(self._verdict_by(sent, time.monotonic() + self._limits.report_timeout))
        try:
            if verdict.verdict == Verdict.REFUSED:
                self._settle(verdict)  # what is being executed goes on
            else:
                self._take_over(sent, chunk, observation, verdict)
        finally:
            self._in_flight = self._moving.sent if self._moving else None

    def _turn(self) -> bool | None:
        """Tell whether it is time to look: nothing is moving, or the chunk that is will have been executed."""
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
        """Tell whether the chunk that was being executed is over, also by a hand-over, and draw the consequences."""
        final = self._final(self._moving.sent) if self._moving is not None else None
        if final is None:
            return False
        self._moving = None
        self._span.end(final.stamp_ns)
        self._settle(final)
        return True

    def _take_over(self, sent: PublishedChunk, chunk: ActionChunk, observation: Observation, verdict: Report) -> None:
        """Record that a chunk is being executed from now on, instead of another one."""
        self._is_over()
        self._refused_in_a_row = 0
        now = verdict.stamp_ns
        self._delay.add((now - observation.stamp_ns) / NANOSECONDS)
        start = now - self._span.skipped(observation.stamp_ns, now)
        self._span.begin(now, UNTIL_TOLD)
        lead = self._delay.seconds or 0.0
        due = now + sent.period * NANOSECONDS if self._every_step else start + (sent.duration - lead) * NANOSECONDS
        self._moving = _Moving(sent, chunk, start, round(due))

    def _previous(self, observation: Observation) -> PreviousChunk | None:
        """What the next chunk has to continue."""
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
        text = f"no {what} of chunk {sent.chunk_id} was reported in time; is it running and active?"
        raise RunEnded(Ending.EXECUTOR_SILENT, f"executor_node: {text}")
