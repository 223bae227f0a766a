"""What the executor knows: who stopped it, who commands it, where the robot is."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from qwen_vla_control.reasons import Reason
from qwen_vla_ros.executor.clock_watch import ClockWatch
from qwen_vla_ros.executor.policy_monitor import PolicyMonitor
from qwen_vla_ros.executor.stop_latch import StopLatch

S = 10**9


# Stopped --------------------------------------------------------------------------------------------------------------


def test_the_emergency_stop_latches_until_it_is_released_and_reset():
    latch = StopLatch(required=False, timeout=0.5)
    assert latch.objection(0) is None and not latch.on_emergency_stop(False, 0)
    assert latch.on_emergency_stop(True, S) and not latch.on_emergency_stop(True, 2 * S), "closes once"
    assert latch.objection(2 * S).reason is Reason.EMERGENCY_STOP
    assert "still pressed" in latch.reset(2 * S)
    latch.on_emergency_stop(False, 3 * S)
    assert latch.objection(3 * S).reason is Reason.EMERGENCY_STOP, "releasing the button is not enough"
    assert latch.reset(3 * S) == "" and latch.objection(3 * S) is None


def test_resume_does_not_open_what_the_emergency_stop_closed():
    latch = StopLatch(required=False, timeout=0.5)
    latch.stopped = True
    latch.on_emergency_stop(True, 0)
    latch.stopped = False
    assert latch.objection(0).reason is Reason.EMERGENCY_STOP
    latch.on_emergency_stop(False, 0)
    latch.stopped = True
    assert latch.reset(0) == "" and latch.objection(0).reason is Reason.STOPPED


def test_a_required_emergency_stop_must_be_heard_and_its_silence_latches():
    latch = StopLatch(required=True, timeout=0.5)
    assert "never" in latch.objection(0).message and not latch.watch(0), "nothing to reset before it was heard"
    latch.on_emergency_stop(False, S)
    assert latch.objection(S) is None and not latch.watch(S + S // 4)
    assert latch.watch(2 * S) and not latch.watch(2 * S)
    assert "1.0 s ago" in latch.reset(2 * S)
    latch.on_emergency_stop(False, 3 * S)
    assert latch.objection(3 * S).reason is Reason.EMERGENCY_STOP, "a button that comes back does not open it"
    assert latch.reset(3 * S) == "" and latch.objection(3 * S) is None


@given(st.lists(st.tuples(st.sampled_from(["press", "release", "reset", "resume", "stop"]), st.floats(0, 1))))
def test_nothing_but_a_reset_of_a_released_button_opens_it(events):
    latch, now, closed, pressed = StopLatch(required=False, timeout=0.5), 0, False, False
    for event, wait in events:
        now += int(wait * S)
        if event in ("press", "release"):
            pressed = event == "press"
            closed |= pressed
            latch.on_emergency_stop(pressed, now)
        elif event == "reset":
            closed &= pressed
            assert bool(latch.reset(now)) == pressed
        else:
            latch.stopped = event == "stop"
        objection = latch.objection(now)
        assert (objection is not None and objection.reason is Reason.EMERGENCY_STOP) == closed


def test_ros_time_that_stands_still_is_noticed_on_the_steady_clock():
    watch = ClockWatch()
    assert watch.standstill(5 * S, 100 * S) == 0.0
    assert watch.standstill(5 * S, 101 * S) == 1.0
    assert watch.standstill(5 * S + 1, 102 * S) == 0.0
    assert watch.standstill(4 * S, 103 * S) == 0.0, "set back is not standing still"


# The policy -----------------------------------------------------------------------------------------------------------


def test_a_chunk_must_obey_the_sentence_of_the_policy(good_chunk):
    link = PolicyMonitor()
    link.on_heartbeat(0, 0.4)

    def reasons(chunk):
        return [violation.reason for violation in link.objections(chunk, 0, 0.4)]

    assert reasons(good_chunk) == [], "a policy that names no sentence is believed"
    assert reasons(replace(good_chunk, instruction=" ")) == [Reason.WRONG_INSTRUCTION]
    link.on_instruction("pick up the red cube")
    assert reasons(good_chunk) == []
    link.on_instruction("open the drawer")
    assert reasons(good_chunk) == [Reason.WRONG_INSTRUCTION]
    link.on_instruction("")
    (violation,) = link.objections(good_chunk, 0, 0.4)
    assert violation.reason is Reason.WRONG_INSTRUCTION and "has ended" in violation.message


def test_refusals_are_counted_in_a_row(good_chunk):
    link = PolicyMonitor()
    for _ in range(3):
        link.on_verdict(good_chunk, accepted=False)
    assert link.refusals == 3
    link.on_verdict(good_chunk, accepted=True)
    assert link.refusals == 0


def test_chunks_come_in_order_until_another_process_counts_from_one(good_chunk):
    link = PolicyMonitor()
    link.on_heartbeat(0, 0.4)
    link.on_verdict(replace(good_chunk, chunk_id=7), accepted=True)
    assert Reason.WRONG_ORDER in [v.reason for v in link.objections(good_chunk, 0, 0.4)]
    assert link.silent_text(S, 0.4) == "policy_node: no heartbeat for 1.00 s (limit 0.40 s)"
    link.on_heartbeat(S, 0.4)
    assert link.objections(good_chunk, S, 0.4) == []
