# SPDX-License-Identifier: Apache-2.0
"""Execution of one goal, with simulated cameras and a simulated executor."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import pytest

from qwen_vla_control.observation.streams import Observation, Waiting
from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.action import ExecuteInstruction
from qwen_vla_msgs.msg import ChunkReport
from qwen_vla_ros.policy.instruction_run import InstructionRun, Limits, PublishedChunk, RunEnded
from qwen_vla_ros.ros.reports import Ending, Report, Verdict

LIMITS = Limits(
    timeout=100.0,
    max_chunks=3,
    observation_timeout=0.1,
    report_timeout=0.2,
    max_refusals=2,
    max_standstill=10.0,
)
NO_CAMERA = Waiting("camera 'ego'", "camera 'ego': no image for 1.3 s", fault=True)


class World:
    """ROS time that advances with every reading, a camera, and an executor that reports on each chunk as in `answers`.

    answers: one list of (verdict, reasons) per chunk; the last one is repeated.
    """

    def __init__(self, answers, tick=0.01):
        self.answers, self.tick = answers, tick
        self.time = 0.0
        self.seen: list[int] = []
        self.states: list[str] = []
        self.refusals: list[int] = []
        self.holds = 0
        self.sent = 0
        self.problem: Waiting | None = None
        self.interrupt: RunEnded | None = None
        self.run: InstructionRun | None = None

    def now(self):
        self.time += self.tick
        return round(self.time * 1e9)

    def interruption(self):
        return self.interrupt

    def observe(self, not_before_ns):
        self.seen.append(not_before_ns)
        return self.problem or Observation(self.now(), ())

    def infer(self, observation, refusals, previous=None):
        self.refusals.append(refusals)
        return observation

    def publish(self, chunk):
        self.sent += 1
        number = self.sent
        answer = self.answers[min(number, len(self.answers)) - 1]
        for verdict, *reasons in answer:
            report = Report(number, verdict, frozenset(reasons), f"about chunk {number}", self.now())
            threading.Thread(target=self.run.take_report, args=(report,)).start()
        return PublishedChunk(number, duration=1.6, latency_ms=10.0 * number, whole=3.2, period=0.2)

    def hold(self):
        self.holds += 1

    def tell(self, state, executed, refused, latency_ms):
        self.states.append(state)


def outcome_of(world, **limits):
    changed = threading.Condition()
    world.run = InstructionRun(world, replace(LIMITS, **limits), changed)
    return world.run.run()


DONE = [(Verdict.ACCEPTED,), (Verdict.COMPLETED,)]
REFUSED = [(Verdict.REFUSED, Reason.START_JUMP)]


def test_it_executes_chunks_until_the_limit_and_measures_all_but_the_first():
    world = World([DONE])
    outcome = outcome_of(world)
    assert (outcome.ending, outcome.executed, outcome.refused) == (Ending.SUCCESS, 3, 0)
    assert outcome.latency_ms_p50 == pytest.approx(25.0) and outcome.latency_ms_p99 == pytest.approx(29.9)
    assert world.holds == 0 and outcome.duration > 0
    assert {"inferring", "waiting for the executor"} <= set(world.states)


def test_time_that_goes_back_ends_it_with_a_reason():
    world = World([DONE], tick=-0.5)
    outcome = outcome_of(world)
    assert outcome.ending == Ending.INFERENCE_STOPPED and world.sent == 0
    assert "ROS time went back by 0.50 s" in outcome.message and "send the goal again" in outcome.message


def test_a_single_chunk_has_no_latency_statistics():
    assert math.isnan(outcome_of(World([DONE]), max_chunks=1).latency_ms_p50)


def test_each_observation_is_newer_than_the_end_of_the_last_motion():
    world = World([DONE])
    outcome_of(world)
    assert world.seen[0] == 0 and sorted(world.seen) == world.seen and world.seen[-1] > 0


def test_a_refusal_is_counted_told_to_the_policy_and_retried():
    world = World([REFUSED, DONE])
    outcome = outcome_of(world)
    assert (outcome.ending, outcome.executed, outcome.refused) == (Ending.SUCCESS, 3, 1)
    assert world.refusals == [0, 1, 0, 0]


def test_too_many_refusals_in_a_row_end_it():
    world = World([DONE, REFUSED])
    outcome = outcome_of(world)
    assert (outcome.ending, outcome.executed, outcome.refused) == (Ending.REFUSED_TOO_OFTEN, 1, 2)
    assert outcome.message == "2 chunks refused in a row; the last one: about chunk 3"


@pytest.mark.parametrize("reason", [Reason.STOPPED, Reason.NOT_ACTIVE, Reason.DEACTIVATED])
@pytest.mark.parametrize("verdict", [Verdict.REFUSED, Verdict.HELD])
def test_a_stopped_executor_ends_it_at_once(verdict, reason):
    outcome = outcome_of(World([[(verdict, reason)]]))
    assert outcome.ending == Ending.EXECUTOR_STOPPED and "about chunk 1" in outcome.message


def test_a_hold_that_was_not_requested_does_not_end_it():
    held = [(Verdict.ACCEPTED,), (Verdict.HELD, Reason.POLICY_SILENT)]
    outcome = outcome_of(World([held, DONE]))
    assert (outcome.ending, outcome.executed) == (Ending.SUCCESS, 3)


def test_a_silent_executor_ends_it_and_is_told_to_hold():
    world = World([[]])
    outcome = outcome_of(world)
    assert outcome.ending == Ending.EXECUTOR_SILENT and "no verdict reported for chunk 1" in outcome.message
    assert world.holds == 1


def test_an_executor_that_never_finishes_ends_it_too():
    world = World([[(Verdict.ACCEPTED,)]], tick=0.1)
    outcome = outcome_of(world)
    assert outcome.ending == Ending.EXECUTOR_SILENT and "no end reported for chunk 1" in outcome.message
    assert world.holds == 1


def test_a_missing_camera_ends_it_after_the_timeout_with_its_own_message():
    world = World([DONE])
    world.problem = NO_CAMERA
    outcome = outcome_of(world)
    assert (outcome.ending, outcome.message) == (Ending.INFERENCE_STOPPED, NO_CAMERA.message)
    assert world.states == ["waiting for camera 'ego'"] and world.sent == 0 and world.holds == 0


def test_the_timeout_is_counted_in_ros_time():
    world = World([DONE], tick=1.0)
    outcome = outcome_of(world, timeout=30.0, max_chunks=0)
    assert outcome.ending == Ending.TIMEOUT and 30.0 <= outcome.duration <= 34.0


def test_ros_time_that_does_not_advance_ends_it():
    world = World([DONE], tick=0.0)
    world.problem = NO_CAMERA
    outcome = outcome_of(world, observation_timeout=60.0, max_standstill=0.05)
    assert outcome.ending == Ending.INFERENCE_STOPPED and "has not advanced" in outcome.message


def test_an_interruption_while_a_chunk_is_executed_holds_the_arm():
    world = World([[(Verdict.ACCEPTED,)]])
    publish = world.publish

    def publish_and_cancel(chunk):
        world.interrupt = RunEnded(Ending.CANCELED, "canceled by the client")
        return publish(chunk)

    world.publish = publish_and_cancel
    assert outcome_of(world).ending == Ending.CANCELED
    assert world.holds == 1


def test_a_failing_model_ends_it_as_internal():
    world = World([DONE])

    def broken(*_shown):
        raise FloatingPointError("the model returned non-finite actions")

    world.infer = broken
    outcome = outcome_of(world)
    assert outcome.ending == Ending.INTERNAL and "non-finite" in outcome.message


def test_codes_are_those_of_the_interfaces():
    for ending in Ending:
        assert getattr(ExecuteInstruction.Result, ending.name) == ending
    for verdict in Verdict:
        assert getattr(ChunkReport, verdict.name) == verdict
    for reason in Reason:
        assert getattr(ChunkReport, reason.name) == reason
