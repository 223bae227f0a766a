# SPDX-License-Identifier: Apache-2.0
"""Execution of one goal without pauses, with a simulated camera, executor and clock."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from qwen_vla.policies.latency import LatencyEstimate
from qwen_vla_control.motion.blending import MotionInterval
from qwen_vla_control.observation.streams import Observation
from qwen_vla_control.reasons import Reason
from qwen_vla_ros.policy import instruction_run
from qwen_vla_ros.policy.instruction_run import Limits, PublishedChunk, RunEnded
from qwen_vla_ros.policy.overlapping_run import OverlappingRun
from qwen_vla_ros.ros.reports import Ending, Report, Verdict

PERIOD, HORIZON, EXECUTED = 0.2, 16, 8
LIMITS = Limits(
    timeout=1000.0, max_chunks=6, observation_timeout=0.1, report_timeout=1.0, max_refusals=3, max_standstill=10.0
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """The clock of this test advances with every reading."""
    monkeypatch.setattr(instruction_run, "POLL_PERIOD", 0.0005)


class World:
    """ROS time that advances with every reading and during inference; an executor that hands over at once.

    refused: numbers of the chunks that the gate refuses. delays: of the inferences [s]; the last one is repeated.
    """

    def __init__(self, delays=(0.3,), refused=(), reasons=(Reason.START_JUMP,)):
        self.delays, self.refused, self.reasons = list(delays), set(refused), frozenset(reasons)
        self.time, self.sent, self.holds = 10.0, 0, 0
        self.moving: tuple[int, float] | None = None  # chunk, when it ends
        self.pauses: list[float] = []  # how long the arm stopped before each chunk but the first
        self.looks: list[float] = []
        self.taken: list[float] = []  # start of each chunk's execution
        self.previous: list = []
        self.refusals: list[int] = []
        self.interrupt: RunEnded | None = None
        self.silent_from = 10**9
        self.run: OverlappingRun | None = None
        self._rested_since: float | None = None
        self._span = MotionInterval()

    def now(self):
        self.time += 0.005
        self._execute()
        return round(self.time * 1e9)

    def interruption(self):
        return self.interrupt

    def observe(self, not_before_ns):
        return Observation(self.now(), ())

    def infer(self, observation, refusals, previous=None):
        self.refusals.append(refusals)
        self.looks.append(observation.stamp_ns / 1e9)
        self.previous.append(previous)
        self.time += self.delays[min(len(self.looks), len(self.delays)) - 1]
        return len(self.looks)

    def publish(self, chunk):
        self._execute()
        self.sent += 1
        if self.sent < self.silent_from:
            if self.sent in self.refused:
                self._report(self.sent, Verdict.REFUSED, self.reasons)
            else:
                self._hand_over()
        return PublishedChunk(self.sent, EXECUTED * PERIOD, 1.0, HORIZON * PERIOD, PERIOD)

    def _hand_over(self):
        if self.moving is not None:
            self._report(self.moving[0], Verdict.COMPLETED)
            self.pauses.append(0.0)
        elif self._rested_since is not None:
            self.pauses.append(self.time - self._rested_since)
        look, now = round(self.looks[-1] * 1e9), round(self.time * 1e9)
        end = self.time + HORIZON * PERIOD - self._span.skipped(look, now) / 1e9
        self._span.begin(now, round(end * 1e9))
        self.moving = self.sent, end
        self.taken.append(self.time)
        self._report(self.sent, Verdict.ACCEPTED)

    def _execute(self):
        if self.moving is not None and self.time >= self.moving[1] and self.sent < self.silent_from:
            number, end = self.moving
            self.moving, self._rested_since = None, end
            self._report(number, Verdict.COMPLETED, at=end)

    def _report(self, number, verdict, reasons=frozenset(), at=None):
        report = Report(number, verdict, reasons, f"about chunk {number}", round((at or self.time) * 1e9))
        threading.Thread(target=self.run.take_report, args=(report,)).start()

    def hold(self):
        self.holds += 1

    def tell(self, state, executed, refused, latency_ms):
        pass


def outcome_of(world, every_step=False, continues=False, delay=None, **limits):
    changed = threading.Condition()
    delay = delay or LatencyEstimate()
    world.run = OverlappingRun(world, replace(LIMITS, **limits), changed, delay, every_step, continues)
    return world.run.run()


@pytest.mark.parametrize("delay", [0.05, 0.3, 1.2])
def test_there_is_no_pause_while_the_delay_is_shorter_than_the_execution_horizon(delay):
    world = World([delay])
    outcome = outcome_of(world)
    assert (outcome.ending, outcome.executed) == (Ending.SUCCESS, 6)
    assert world.pauses == [0.0] * 5 and world.holds == 0


def test_a_chunk_arrives_when_the_execution_horizon_of_the_previous_one_is_over():
    world = World([5.0, 0.3])  # the first inference is a cold start
    outcome_of(world)
    for look, arrival, next_arrival in zip(world.looks[1:], world.taken[1:], world.taken[2:], strict=False):
        assert arrival == pytest.approx(look + 0.3, abs=0.1)
        # Row 0 is at the observation; that many rows were executed when the next chunk took over.
        assert (next_arrival - look) / PERIOD == pytest.approx(EXECUTED, abs=0.6)


def test_the_first_chunk_is_executed_from_its_first_row_on_however_late_it_was():
    world = World([5.0, 0.3])
    outcome_of(world, continues=True)
    # Not 25 steps: the arm did not move during those 5 s.
    assert world.previous[0] is None and 6 <= world.previous[1].consumed <= 8


def test_a_policy_that_continues_gets_the_chunk_that_is_being_executed():
    world = World([0.3])
    outcome_of(world, continues=True)
    for number, previous in enumerate(world.previous[3:], start=3):
        assert previous.chunk == number  # the previous one, see `infer`
        assert previous.consumed == pytest.approx(EXECUTED - 0.3 / PERIOD, abs=1)
        assert previous.delay == 2  # 0.3 s and a little, in steps of 0.2 s


def test_temporal_ensembling_observes_once_per_step():
    world = World([0.05])
    outcome_of(world, every_step=True)
    gaps = [b - a for a, b in zip(world.taken, world.taken[1:], strict=False)]
    assert all(PERIOD <= gap < PERIOD + 0.15 for gap in gaps), gaps


def test_after_a_refusal_the_current_chunk_continues_and_the_policy_observes_again():
    world = World([0.3], refused={3})
    outcome = outcome_of(world)
    assert (outcome.ending, outcome.executed, outcome.refused) == (Ending.SUCCESS, 6, 1)
    assert world.pauses == [0.0] * 5  # the rest of the chunk covers the second attempt
    assert world.looks[3] - world.looks[2] < 0.5
    assert world.refusals[:5] == [0, 0, 0, 1, 0], "the policy is told"


def test_too_many_refusals_in_a_row_end_it_and_hold_the_arm():
    world = World([0.3], refused={3, 4, 5})
    outcome = outcome_of(world)
    assert outcome.ending == Ending.REFUSED_TOO_OFTEN and outcome.refused == 3
    assert world.holds == 1  # chunk 2 is still being executed


def test_a_stopped_executor_ends_it():
    outcome = outcome_of(World([0.3], refused={3}, reasons=[Reason.STOPPED]))
    assert outcome.ending == Ending.EXECUTOR_STOPPED and outcome.executed == 1


def test_a_delay_beyond_all_rows_only_makes_a_pause():
    world = World([0.3, 0.3, 6.0])
    outcome = outcome_of(world, max_chunks=4)
    assert (outcome.ending, outcome.executed) == (Ending.SUCCESS, 4)
    assert max(world.pauses) > 2.0


@pytest.mark.parametrize("silent_from", [1, 3])
def test_a_silent_executor_ends_it_and_is_told_to_hold(silent_from):
    world = World([0.3])
    world.silent_from = silent_from
    outcome = outcome_of(world, report_timeout=0.1)
    assert outcome.ending == Ending.EXECUTOR_SILENT and f"chunk {silent_from}" in outcome.message
    assert world.holds == 1


def test_an_interruption_holds_the_arm():
    world = World([0.3])
    infer = world.infer

    def infer_and_cancel(*shown):
        world.interrupt = RunEnded(Ending.CANCELED, "canceled by the client") if world.sent == 3 else None
        return infer(*shown)

    world.infer = infer_and_cancel
    assert outcome_of(world).ending == Ending.CANCELED
    assert world.holds == 1


def test_the_last_chunk_is_executed_to_its_end():
    world = World([0.3])
    outcome = outcome_of(world, max_chunks=1)
    assert (outcome.ending, outcome.executed, len(world.looks)) == (Ending.SUCCESS, 1, 1)
    assert world.moving is None and world.holds == 0
