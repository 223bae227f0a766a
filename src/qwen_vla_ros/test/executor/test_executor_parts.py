# SPDX-License-Identifier: Apache-2.0
"""What the executor knows: who stopped it, who commands it, and whether time advances."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from qwen_vla_control.reasons import Reason
from qwen_vla_ros.executor.clock_watch import ClockWatch
from qwen_vla_ros.executor.freeze_watch import CATCH_UP, FROZEN, FreezeWatch
from qwen_vla_ros.executor.policy_monitor import MOST_PUBLISHERS, ChunkOrder, PolicyMonitor
from qwen_vla_ros.executor.stop_latch import StopLatch
from qwen_vla_ros.ros.publishers import UNKNOWN

S = 10**9


# Stopped --------------------------------------------------------------------------------------------------------------


A, B, C = b"button a", b"button b", b"button c"
GRAPH = {A: "/left", B: "/right"}


def test_the_emergency_stop_latches_until_it_is_released_and_reset():
    latch = StopLatch(required=False, timeout=0.5)
    latch.release(A, GRAPH, 0)
    assert latch.objection(0) is None
    assert latch.press(A, S) and not latch.press(A, 2 * S), "closes once"
    assert latch.objection(2 * S).reason is Reason.EMERGENCY_STOP
    assert "still pressed" in latch.reset(2 * S)
    latch.release(A, GRAPH, 3 * S)
    assert latch.objection(3 * S).reason is Reason.EMERGENCY_STOP, "releasing the button is not enough"
    assert latch.reset(3 * S) == "" and latch.objection(3 * S) is None


def test_a_button_stays_pressed_until_it_publishes_its_own_release():
    latch = StopLatch(required=False, timeout=0.5)
    latch.press(A, 0)
    latch.press(B, 0)
    latch.release(B, GRAPH, 0)
    assert "still pressed by /left;" in latch.reset(0)
    latch.release(A, GRAPH, 0)
    assert latch.reset(0) == ""


def test_a_button_that_leaves_while_pressed_stays_pressed_until_a_later_publisher_releases_it():
    latch = StopLatch(required=False, timeout=0.5)
    latch.press(A, 0)
    latch.look(GRAPH)
    without = {B: "/right"}
    latch.release(B, without, 0)
    assert "still pressed by /left;" in latch.reset(0), "the other button keeps publishing its own state"
    latch.release(C, {**GRAPH, C: "/operator"}, 0)
    assert latch.reset(0), "it is back, or was never gone"
    latch = StopLatch(required=False, timeout=0.5)
    latch.press(A, 0)
    latch.look(GRAPH)
    latch.release(C, {**without, C: "/operator"}, 0)
    assert latch.reset(0) == ""


def test_a_button_that_was_never_seen_in_the_graph_is_not_taken_for_one_that_has_left():
    latch = StopLatch(required=False, timeout=0.5)
    latch.press(A, 0)
    latch.release(C, {C: "/operator"}, 0)
    assert "an unknown node" in latch.reset(0)


def test_buttons_that_cannot_be_distinguished_release_nothing_while_there_are_several():
    latch = StopLatch(required=False, timeout=0.5)
    latch.press(UNKNOWN, 0)
    latch.release(UNKNOWN, GRAPH, 0)
    refusal = latch.reset(0)
    assert "still pressed by /left or /right;" in refusal
    assert "end all nodes that publish it, then publish false from a new one" in refusal
    latch.release(UNKNOWN, {A: "/left"}, 0)
    assert latch.reset(0), "it may be the other one that was pressed, and has left"
    latch.release(UNKNOWN, {}, 0)
    assert latch.reset(0), "whoever it was has left since"
    latch.release(UNKNOWN, {C: "/operator"}, 0)
    assert latch.reset(0) == ""


def test_a_single_button_that_cannot_be_identified_releases_itself():
    latch = StopLatch(required=False, timeout=0.5)
    latch.press(UNKNOWN, 0)
    latch.look({A: "/left"})
    assert "still pressed by /left; release it there" in latch.reset(0)
    latch.release(UNKNOWN, {A: "/left"}, 0)
    assert latch.reset(0) == ""


def test_buttons_beyond_the_maximum_take_no_memory_and_stay_pressed():
    latch = StopLatch(required=False, timeout=0.5)
    everybody = {str(number).encode(): f"/node_{number}" for number in range(1000)}
    for publisher in everybody:
        latch.press(publisher, 0)
    for publisher in everybody:
        latch.release(publisher, everybody, 0)
    assert "an unknown node" in latch.reset(0)


def test_resume_does_not_open_what_the_emergency_stop_closed():
    latch = StopLatch(required=False, timeout=0.5)
    latch.stopped = True
    latch.press(A, 0)
    latch.stopped = False
    assert latch.objection(0).reason is Reason.EMERGENCY_STOP
    latch.release(A, GRAPH, 0)
    latch.stopped = True
    assert latch.reset(0) == "" and latch.objection(0).reason is Reason.STOPPED


def test_a_required_emergency_stop_must_be_received_and_its_silence_latches():
    latch = StopLatch(required=True, timeout=0.5)
    assert "never" in latch.objection(0).message and not latch.watch(0), "nothing to reset before its first message"
    latch.release(A, GRAPH, S)
    assert latch.objection(S) is None and not latch.watch(S + S // 4)
    assert latch.watch(2 * S) and not latch.watch(2 * S)
    assert "1.0 s ago" in latch.reset(2 * S)
    latch.release(A, GRAPH, 3 * S)
    assert latch.objection(3 * S).reason is Reason.EMERGENCY_STOP, "a button that comes back does not open it"
    assert latch.reset(3 * S) == "" and latch.objection(3 * S) is None


EVENTS = ["press", "release", "leave", "come", "reset", "resume", "stop"]


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.sampled_from([A, B, C]))))
def test_only_a_reset_opens_it_and_not_while_any_present_button_is_pressed(events):
    latch, closed = StopLatch(required=False, timeout=0.5), False
    present, pressed = {A: "/left", B: "/right", C: "/operator"}, set()
    for event, who in events:
        if event == "leave":
            present = {publisher: node for publisher, node in present.items() if publisher != who}
        elif event == "come":
            present = {**present, who: "/back"}
        elif event == "press" and who in present:
            latch.press(who, 0)
            latch.look(present)
            closed, pressed = True, pressed | {who}
        elif event == "release" and who in present:
            latch.release(who, present, 0)
            pressed -= {who}
        elif event == "reset":
            opened = not latch.reset(0)
            assert not (opened and pressed & present.keys())
            closed &= not opened
        elif event in ("stop", "resume"):
            latch.stopped = event == "stop"
        objection = latch.objection(0)
        assert (objection is not None and objection.reason is Reason.EMERGENCY_STOP) == closed


def test_ros_time_that_does_not_advance_is_detected_on_the_steady_clock():
    watch = ClockWatch()
    assert watch.standstill(5 * S, 100 * S) == 0.0
    assert watch.standstill(5 * S, 101 * S) == 1.0
    assert watch.standstill(5 * S + 1, 102 * S) == 0.0
    assert watch.standstill(4 * S, 103 * S) == 0.0, "a step back is also a change"


def test_a_process_that_was_frozen_detects_it_and_first_receives_the_messages_of_the_meantime():
    watch, usual = FreezeWatch(0), round(FROZEN * S)
    assert watch.frozen(usual) == 0.0 and not watch.catching_up(usual)
    woken = usual + 2 * S
    assert watch.frozen(woken) == 2.0 and watch.catching_up(woken)
    heard = woken + round(CATCH_UP * S)
    assert watch.frozen(heard - 1) == 0.0 and watch.catching_up(heard - 1), "reported once"
    assert not watch.catching_up(heard)


# The policy -----------------------------------------------------------------------------------------------------------


def test_a_chunk_must_have_the_instruction_of_the_policy(good_chunk):
    link = PolicyMonitor()
    link.on_heartbeat(0, 0.4)

    def reasons(chunk):
        return [violation.reason for violation in link.objections(chunk, 0, 0.4)]

    assert reasons(good_chunk) == [], "a policy that names no instruction is trusted"
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


def test_the_chunks_of_the_policy_are_not_late_by_the_numbers_of_another_publisher(good_chunk):
    link = PolicyMonitor()
    link.on_heartbeat(0, 0.4)
    policy, unknown = (replace(good_chunk, publisher=who) for who in (b"policy", b"unknown"))
    link.on_verdict(replace(policy, chunk_id=7), accepted=True)
    link.on_verdict(replace(unknown, chunk_id=2**64 - 1), accepted=True)
    assert link.objections(replace(policy, chunk_id=8), 0, 0.4) == []
    for sender, number in ((policy, 7), (unknown, 2**64 - 1)):
        (violation,) = link.objections(replace(sender, chunk_id=number), 0, 0.4)
        assert violation.reason is Reason.WRONG_ORDER


def test_ever_more_publishers_of_chunks_do_not_fill_the_memory():
    order = ChunkOrder()
    for number in range(1000):
        order.take(str(number).encode(), 5)
    remembered = [number for number in range(1000) if order.last(str(number).encode())]
    assert remembered == list(range(1000 - MOST_PUBLISHERS, 1000))
