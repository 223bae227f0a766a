# SPDX-License-Identifier: Apache-2.0
"""Execution of one instruction: observe, infer, have the chunk executed, repeat, until something ends it. Free of ROS.

It runs in the inference thread; images, reports and requests arrive in other threads, which notify `changed`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from qwen_vla.policies import ActionChunk
from qwen_vla_control.observation.streams import Observation, Waiting
from qwen_vla_control.reasons import Reason
from qwen_vla_ros.ros.reports import Ending, Report, Verdict

POLL_PERIOD = 0.02  # [s] steady; ages grow without a notification
REPORTS_KEPT = 64  # chunks whose reports are kept; a run awaits those of two at most
VERDICT_PATIENCE = 0.5  # [s] steady; how long the end of a run waits for the verdict on a chunk in flight
STOPPING_REASONS = {
    Reason.STOPPED,
    Reason.EMERGENCY_STOP,
    Reason.NOT_ACTIVE,
    Reason.DEACTIVATED,
    Reason.CANCELED,
    Reason.REPLACED,
}

Found = TypeVar("Found")


class RunEnded(Exception):
    """The run is over, for this reason."""

    def __init__(self, ending: Ending, message: str = "") -> None:
        """Store both."""
        super().__init__(message)
        self.ending, self.message = ending, message


@dataclass(frozen=True)
class PublishedChunk:
    """A published chunk.

    Attributes:
        duration: how long it is executed [s].
        latency_ms: age of its observation [ms].
        whole: duration of all its rows [s].
        period: time between two rows [s].
    """

    chunk_id: int
    duration: float
    latency_ms: float
    whole: float
    period: float


@dataclass(frozen=True)
class PreviousChunk:
    """The chunk that is being executed, for a policy that continues it.

    Attributes:
        chunk: as the policy predicted it.
        consumed: steps of it before the observation.
        delay: estimated number of steps executed before the next chunk arrives.
    """

    chunk: ActionChunk
    consumed: int
    delay: int


@dataclass(frozen=True)
class Limits:
    """When a run ends by itself.

    Attributes:
        timeout: [s, ROS time].
        max_chunks: chunks to execute; 0 means no limit.
        observation_timeout: how long an observation may be missing [s, steady].
        report_timeout: how long the executor may be silent beyond the duration of the chunk [s].
        max_refusals: refused chunks in a row.
        max_standstill: how long ROS time may stop [s, steady].
    """

    timeout: float
    max_chunks: int
    observation_timeout: float
    report_timeout: float
    max_refusals: int
    max_standstill: float


@dataclass(frozen=True)
class Outcome:
    """Result of a run; percentiles exclude the first chunk and are NaN without another."""

    ending: Ending
    message: str
    executed: int
    refused: int
    latency_ms_p50: float
    latency_ms_p99: float
    duration: float

    @classmethod
    def before_it_began(cls, ending: Ending, message: str) -> Outcome:
        """The outcome of a run that could not start."""
        return cls(ending, message, 0, 0, math.nan, math.nan, 0.0)


class GoalContext(Protocol):
    """What a run needs of its node."""

    def now(self) -> int:
        """ROS time [ns]."""
        ...

    def interruption(self) -> RunEnded | None:
        """Why the run must end at once: canceled, deactivated; None while it may continue."""
        ...

    def observe(self, not_before_ns: int) -> Observation | Waiting:
        """The latest observation after a ROS time. Called with `changed` held."""
        ...

    def infer(self, observation: Observation, refusals: int, previous: PreviousChunk | None = None) -> ActionChunk:
        """Predict a chunk, continuing the previous one where there is one; refusals: chunks refused in a row so far."""
        ...

    def publish(self, chunk: ActionChunk) -> PublishedChunk:
        """Send a chunk to the executor."""
        ...

    def hold(self) -> None:
        """Have the executor abort its current motion."""
        ...

    def tell(self, state: str, executed: int, refused: int, latency_ms: float, /) -> None:
        """Send feedback."""
        ...


class InstructionRun:
    """One run; `run` is called once, `take_report` from any thread."""

    def __init__(self, context: GoalContext, limits: Limits, changed: threading.Condition) -> None:
        """Prepare; the timeout starts now."""
        self._context, self._limits, self._changed = context, limits, changed
        self._began_ns = context.now()
        self._last_ns, self._last_moved = self._began_ns, time.monotonic()
        self._reports: dict[int, list[Report]] = {}
        self._in_flight: PublishedChunk | None = None
        self._not_before_ns = 0
        self._executed = self._refused = self._refused_in_a_row = 0
        self._latencies: list[float] = []
        self._state = ""

    def take_report(self, report: Report) -> None:
        """Store a report of the executor, without duplicates; reports about other chunks are dropped first."""
        with self._changed:
            reports = self._reports.setdefault(report.chunk_id, [])
            if report.verdict not in {known.verdict for known in reports}:
                reports.append(report)
            if len(self._reports) > REPORTS_KEPT:
                awaited = self._awaited()
                del self._reports[next(number for number in self._reports if number not in awaited)]
            self._changed.notify_all()

    def _awaited(self) -> set[int]:
        """The chunks whose reports matter now."""
        return {self._in_flight.chunk_id} if self._in_flight else set()

    def run(self) -> Outcome:
        """Repeat until something ends the run; in any case, the executor is told to hold if it moves for this run."""
        try:
            while not self._limits.max_chunks or self._executed < self._limits.max_chunks:
                self._one_chunk()
            end = RunEnded(Ending.SUCCESS)
        except RunEnded as ended:
            end = ended
        except Exception as error:
            end = RunEnded(Ending.INTERNAL, f"{type(error).__name__}: {error}")
        self._break_off()
        return self._outcome(end)

    def _one_chunk(self) -> None:
        observation = self._wait(self._observation_by(time.monotonic() + self._limits.observation_timeout))
        self._tell("inferring")
        chunk = self._context.infer(observation, self._refused_in_a_row)
        self._check_end()  # inference takes a while
        self._in_flight = sent = self._context.publish(chunk)
        self._latencies.append(sent.latency_ms)
        self._not_before_ns = observation.stamp_ns
        self._tell("waiting for the executor")
        self._settle(self._wait(self._final_report_by(sent, time.monotonic() + self._limits.report_timeout)))

    def _settle(self, report: Report) -> None:
        """Act on the executor's final report about a chunk."""
        self._in_flight = None
        if report.reasons & STOPPING_REASONS:
            self._refused += report.verdict == Verdict.REFUSED
            raise RunEnded(Ending.EXECUTOR_STOPPED, f"executor_node: {report.message}")
        if report.verdict == Verdict.REFUSED:
            self._refused += 1
            self._refused_in_a_row += 1
            if self._refused_in_a_row >= self._limits.max_refusals:
                text = f"{self._refused_in_a_row} chunks refused in a row; the last one: {report.message}"
                raise RunEnded(Ending.REFUSED_TOO_OFTEN, text)
            return
        # The arm has moved until now: earlier images are out of date.
        self._not_before_ns = max(self._not_before_ns, report.stamp_ns)
        self._refused_in_a_row = 0
        self._executed += report.verdict == Verdict.COMPLETED

    # Waiting --------------------------------------------------------------------------------------------------------

    def _wait(self, look: Callable[[], Found | None]) -> Found:
        """Return the first result of `look`; RunEnded when the run is over before."""
        with self._changed:
            while True:
                self._check_end()
                found = look()
                if found is not None:
                    return found
                self._changed.wait(POLL_PERIOD)

    def _observation_by(self, limit: float) -> Callable[[], Observation | None]:
        def look() -> Observation | None:
            answer = self._context.observe(self._not_before_ns)
            if isinstance(answer, Observation):
                return answer
            if time.monotonic() > limit:
                raise RunEnded(Ending.INFERENCE_STOPPED, answer.message)
            self._tell(f"waiting for {answer.stream}")
            return None

        return look

    def _final_report_by(self, sent: PublishedChunk, verdict_limit: float) -> Callable[[], Report | None]:
        due_ns = self._context.now() + round((sent.duration + self._limits.report_timeout) * 1e9)

        def look() -> Report | None:
            reports = self._reports.get(sent.chunk_id, [])
            final = next((r for r in reports if r.verdict != Verdict.ACCEPTED), None)
            if final is None:
                silent = self._context.now() > due_ns if reports else time.monotonic() > verdict_limit
                if silent:
                    raise RunEnded(
                        Ending.EXECUTOR_SILENT,
                        f"executor_node: no {'end' if reports else 'verdict'} reported for chunk {sent.chunk_id} in "
                        "time; is it running and active?",
                    )
                self._tell("executing" if reports else "waiting for the executor")
            return final

        return look

    def _check_end(self) -> None:
        interruption = self._context.interruption()
        if interruption is not None:
            raise interruption
        now = self._context.now()
        if (now - self._began_ns) / 1e9 >= self._limits.timeout:
            raise RunEnded(Ending.TIMEOUT, f"the timeout of {self._limits.timeout:.1f} s has expired")
        if now < self._last_ns:
            back = (self._last_ns - now) / 1e9
            text = f"ROS time went back by {back:.2f} s (did a simulator or a bag restart?); send the goal again"
            raise RunEnded(Ending.INFERENCE_STOPPED, text)
        if now != self._last_ns:
            self._last_ns, self._last_moved = now, time.monotonic()
        elif time.monotonic() - self._last_moved > self._limits.max_standstill:
            text = f"ROS time has not advanced for {self._limits.max_standstill:.1f} s; is the simulator running?"
            raise RunEnded(Ending.INFERENCE_STOPPED, text)

    # End ------------------------------------------------------------------------------------------------------------

    def _break_off(self) -> None:
        """Stop the arm if a chunk of this run is being executed, or may be soon."""
        if self._in_flight is None:
            return
        # A chunk and a request to hold take different routes. Until the chunk has its verdict, it could arrive after
        # the request and be executed.
        limit = time.monotonic() + VERDICT_PATIENCE
        with self._changed:
            while self._in_flight.chunk_id not in self._reports and time.monotonic() < limit:
                self._changed.wait(POLL_PERIOD)
        self._context.hold()

    def _outcome(self, end: RunEnded) -> Outcome:
        warm = self._latencies[1:]
        p50, p99 = np.percentile(warm, [50, 99]) if warm else (math.nan, math.nan)
        duration = (self._context.now() - self._began_ns) / 1e9
        return Outcome(end.ending, end.message, self._executed, self._refused, float(p50), float(p99), duration)

    def _tell(self, state: str) -> None:
        if state != self._state:
            self._state = state
            latest = self._latencies[-1] if self._latencies else math.nan
            self._context.tell(state, self._executed, self._refused, latest)
