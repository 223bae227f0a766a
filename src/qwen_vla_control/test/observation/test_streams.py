# SPDX-License-Identifier: Apache-2.0
"""Streams and the choice of one observation."""

from __future__ import annotations

import array
import math
import subprocess
import sys

import numpy as np
import pytest

from qwen_vla_control.observation.streams import (
    Alignment,
    Past,
    Rules,
    Stamped,
    Stream,
    Waiting,
    align,
    first_fault,
    too_far_apart,
)

S = 1_000_000_000


def stream(name="camera 'ego'", stamps=(), steady=0, max_age=0.5) -> Stream:
    result = Stream(name, "/ego/image_raw", max_age, capacity=4, noun="image")
    for stamp in stamps:
        result.push(int(stamp * S), f"{name}@{stamp}", int(steady * S))
    return result


def choose(*streams, now, steady=None, not_before_ns=0, **rules):
    rules = Rules(**rules)
    steady_ns = int((now if steady is None else steady) * S)
    return first_fault(streams, int(now * S), steady_ns, rules) or align(streams, not_before_ns, rules)


def test_the_ring_forgets_the_oldest_and_finds_the_nearest():
    ring = stream(stamps=[1, 2, 3, 4, 5])
    assert len(ring) == 4
    assert ring.nearest(int(2.4 * S)).stamp_ns == 2 * S
    assert ring.nearest(0).stamp_ns == 2 * S and ring.nearest(99 * S).stamp_ns == 5 * S


def test_messages_out_of_order_are_dropped_but_a_clock_set_back_starts_over():
    ring = stream(stamps=[10.0])
    assert not ring.push(int(9.5 * S), "late", 0)
    assert ring.push(1 * S, "after the reset", 0)
    assert len(ring) == 1 and ring.latest.message == "after the reset"


def test_a_repeated_stamp_is_ignored():
    ring = stream(stamps=[1.0], steady=1.0)
    assert not ring.push(1 * S, "again", 3 * S)
    assert ring.frozen and ring.silence(3 * S) == pytest.approx(2.0)


def test_a_fresh_set_is_chosen_around_the_slowest_stream():
    ego = stream("camera 'ego'", [1.00, 1.10, 1.20, 1.30], steady=1.3)
    wrist = stream("camera 'cam_wrist'", [1.02, 1.12], steady=1.3)
    chosen = choose(ego, wrist, now=1.35)
    assert [item.message for item in chosen] == ["camera 'ego'@1.1", "camera 'cam_wrist'@1.12"]


def test_nothing_yet_names_camera_and_topic():
    answer = choose(stream(), now=5.0)
    assert isinstance(answer, Waiting) and answer.fault
    assert answer.message == "camera 'ego': no image yet on /ego/image_raw; is the driver running?"


def test_an_old_stream_stops_the_observation_and_says_so():
    answer = choose(stream(stamps=[1.0], steady=1.0), now=2.3)
    assert answer.fault
    assert answer.message == "camera 'ego': no image for 1.3 s on /ego/image_raw (limit 0.5 s); is the driver running?"


def test_one_dead_stream_of_two_is_enough():
    alive, dead = stream(stamps=[2.2], steady=2.2), stream("camera 'cam_wrist'", [1.0], steady=1.0)
    assert choose(alive, dead, now=2.3).stream == "camera 'cam_wrist'"


def test_a_stream_that_died_together_with_ros_time_is_found_by_the_steady_clock():
    ring = stream(stamps=[1.0], steady=1.0)
    assert isinstance(choose(ring, now=1.1, steady=2.0), tuple)
    answer = choose(ring, now=1.1, steady=4.0)
    assert answer.fault and "no image for 3.0 s" in answer.message


def test_a_frozen_stream_is_called_frozen():
    ring = stream(stamps=[1.0], steady=1.0)
    ring.push(1 * S, "again", int(1.6 * S))
    assert "frozen" in choose(ring, now=1.7).message


def test_stamps_of_another_clock_point_to_use_sim_time():
    assert "use_sim_time" in choose(stream(stamps=[12.0], steady=1.0), now=1.7e9, steady=1.0).message


def test_only_images_after_the_motion_count_and_waiting_for_them_is_no_fault():
    ring = stream(stamps=[1.0], steady=1.0)
    answer = choose(ring, now=1.2, not_before_ns=1 * S)
    assert isinstance(answer, Waiting) and not answer.fault
    ring.push(int(1.1 * S), "new", int(1.1 * S))
    assert choose(ring, now=1.2, not_before_ns=1 * S) == (Stamped(int(1.1 * S), "new"),)


@pytest.mark.parametrize(
    ("alignment", "wrist", "chosen"),
    [
        # ego has 1.00, 1.10 ... 1.40; the newest of the slower wrist camera is the anchor.
        (Alignment.DROP, 1.16, 1.2),  # the nearest, although it is newer
        (Alignment.ASOF, 1.16, 1.1),  # the newest that is not newer
        (Alignment.HOLD, 1.16, 1.1),
    ],
)
def test_each_alignment_has_its_partner_for_the_slowest(alignment, wrist, chosen):
    ego = stream("camera 'ego'", [1.0, 1.1, 1.2, 1.3], steady=1.4)
    slow = stream("camera 'cam_wrist'", [wrist], steady=1.4)
    found = choose(ego, slow, now=1.4, alignment=alignment)
    assert [item.stamp_ns for item in found] == [int(chosen * S), int(wrist * S)]


@pytest.mark.parametrize(("alignment", "fault"), [(Alignment.DROP, False), (Alignment.ASOF, True)])
def test_streams_that_drift_apart_give_no_observation(alignment, fault):
    # With asof the partner is the older one; with drop it may be the newer one.
    ego, wrist = stream("camera 'ego'", [1.0, 1.6], steady=1.6), stream("camera 'cam_wrist'", [1.3], steady=1.6)
    answer = choose(ego, wrist, now=1.65, alignment=alignment)
    assert answer.fault == fault and "0.30 s" in answer.message and "/ego/image_raw" in answer.message


def test_hold_keeps_an_older_partner_until_its_max_age():
    ego, wrist = stream("camera 'ego'", [1.0, 1.6], steady=1.6), stream("camera 'cam_wrist'", [1.4], steady=1.6)
    found = choose(ego, wrist, now=1.65, alignment=Alignment.HOLD)
    assert [item.stamp_ns for item in found] == [1 * S, int(1.4 * S)]
    assert choose(ego, wrist, now=2.0, alignment=Alignment.HOLD).stream == "camera 'cam_wrist'"


def test_the_same_bytes_under_new_stamps_are_a_frozen_stream():
    ring = Stream("camera 'ego'", "/ego/image_raw", 0.5, capacity=9, noun="image")
    for k in range(16):
        ring.push(S + k * S // 10, k, S + k * S // 10, content=array.array("B", [min(k, 3)]))
    assert ring.identical() == pytest.approx(1.2)
    answer = choose(ring, now=2.5, max_identical=1.0)
    assert answer.fault and answer.message == (
        "camera 'ego': identical images with new stamps for 1.2 s on /ego/image_raw (limit 1.0 s); "
        "the stream is frozen; restart its driver"
    )
    assert isinstance(choose(ring, now=2.5, max_identical=math.inf), tuple)
    ring.push(int(2.6 * S), "moving again", int(2.6 * S), content=array.array("B", [9]))
    assert isinstance(choose(ring, now=2.6), tuple)


@pytest.mark.parametrize("make", [lambda n: np.full(4, n, np.uint8), lambda n: array.array("B", [n] * 4), int])
def test_contents_of_live_messages_and_of_bags_are_compared(make):
    ring = Stream("camera 'ego'", "/ego/image_raw", 0.5, capacity=9)
    for k, value in enumerate([1, 1, 2]):
        ring.push((k + 1) * S, k, k * S, content=make(value))
        assert ring.identical() == (1.0 if k == 1 else 0.0)


def test_stamps_from_the_future_are_refused_with_a_remedy():
    answer = choose(stream(stamps=[3.0], steady=1.0), now=1.0, max_lead=0.1)
    assert answer.fault and "/ego/image_raw are 2.00 s in the future (limit 0.10 s)" in answer.message
    assert "chrony" in answer.message
    assert isinstance(choose(stream(stamps=[1.05], steady=1.0), now=1.0, max_lead=0.1), tuple)


def test_messages_that_are_old_when_they_arrive_are_distinguished_from_silence():
    answer = choose(stream(stamps=[1.0], steady=4.0), now=4.1)
    assert "3.0 s old when they arrive (limit 0.5 s); is the network slow" in answer.message


def test_stamps_that_went_back_a_little_are_named():
    ring = stream(stamps=[1.0], steady=1.0)
    ring.push(int(0.4 * S), "late", int(1.6 * S))
    assert "gone back by 0.60 s" in choose(ring, now=1.7).message and ring.late == 1


def test_missing_stamps_are_named():
    assert "no stamps; its driver must fill in header.stamp" in choose(stream(stamps=[0]), now=1.7e9, steady=0).message


def test_what_is_kept_is_bounded_in_time_and_thinned_beyond():
    ring = Stream("camera 'ego'", "/ego/image_raw", 0.5, capacity=64, window=0.5, past=Past(step=0.25, span=2.0))
    for k in range(300):
        ring.push(k * S // 30, k, 0)
    newest = 299 * S // 30
    stamps = np.array([item.stamp_ns for item in ring])
    dense, thinned = stamps[stamps >= newest - S // 2], stamps[stamps < newest - S // 2]
    assert len(dense) == 16 and np.all(np.diff(stamps) > 0)
    assert np.all(np.diff(thinned) >= S // 4) and thinned[0] >= newest - 2 * S and len(thinned) >= 5
    assert ring.rate() == pytest.approx(30.0, rel=1e-3)


# What is held ---------------------------------------------------------------------------------------------------------


def made(*stamps: float, content=None, **limits) -> Stream:
    """A stream that got messages when they were made, by both clocks."""
    result = Stream("camera 'ego'", "/ego/image_raw", 0.5, **({"capacity": 99} | limits))
    for stamp in stamps:
        result.push(round(stamp * S), stamp, round(stamp * S), content)
    return result


def held(ring: Stream) -> list[float]:
    found = [item.message for item in ring]
    assert [item.message for item in reversed(ring)] == found[::-1] and len(ring) == len(found)
    return found


def test_without_limits_all_is_held_in_order():
    ring = made(1.0, 2.0, 3.5)
    assert held(ring) == [1.0, 2.0, 3.5] and ring.latest.message == 3.5
    assert held(made()) == [] and made().latest is None and made(), "an empty stream is a stream"


def test_a_window_holds_what_is_no_older_than_that():
    assert held(made(1.0, 1.5, 1.999, 2.0, 3.0, window=1.0)) == [2.0, 3.0]


def test_beyond_its_window_it_holds_one_message_every_so_often_for_some_time():
    ring = made(*np.arange(17) * 0.125, window=0.25, past=Past(step=0.25, span=1.0))
    assert held(ring) == [1.0, 1.25, 1.5, 1.75, 1.875, 2.0]
    ring.push(round(2.126 * S), 2.126, 0)
    assert held(ring) == [1.25, 1.5, 1.75, 2.0, 2.126], "neither what is too old nor what comes too soon after another"


def test_a_budget_takes_the_oldest_away_first_and_never_the_newest():
    bytes_of = [bytes(10)] * 6
    ring = Stream("camera 'ego'", "/ego/image_raw", 0.5, 99, window=0.25, past=Past(step=0.125, span=9.0), budget=40)
    for tick, content in enumerate(bytes_of):
        ring.push(round((1.0 + 0.125 * tick) * S), tick, 0, content)
    assert held(ring) == [2, 3, 4, 5]
    ring.push(2 * S, "large", 0, bytes(100))
    assert held(ring) == ["large"]
    ring.push(round(2.1 * S), "small", 0, bytes(10))
    assert held(ring) == ["small"]


def test_what_was_forgotten_counts_for_no_budget():
    by_window = made(*np.arange(40) * 0.25, content=bytes(10), window=0.5, budget=30)
    assert held(by_window) == [9.25, 9.5, 9.75]
    by_past = made(*np.arange(40) * 0.25, content=bytes(10), window=0.25, past=Past(step=0.25, span=0.5), budget=30)
    assert held(by_past) == [9.25, 9.5, 9.75]
    by_clock = made(*np.arange(4) + 10.0, content=bytes(10), budget=40)
    for tick in range(4):
        by_clock.push(round((1.0 + 0.1 * tick) * S), tick, 0, bytes(10))
    assert held(by_clock) == [0, 1, 2, 3]


def test_what_stands_for_a_content_has_no_size():
    ring = Stream("camera 'ego'", "/ego/image_raw", 0.5, 99, budget=1)
    for tick in range(4):
        ring.push(tick * S, tick, 0, 10**6 + tick)
    assert held(ring) == [0, 1, 2, 3]


@pytest.mark.parametrize(("stamp", "starts_over"), [(9.0, False), (8.999, True)])
def test_a_stamp_more_than_a_second_back_is_another_clock_and_all_that_was_held_is_gone(stamp, starts_over):
    ring = made(*np.arange(41) * 0.25, window=0.25, past=Past(step=0.25, span=5.0))
    assert ring.push(round(stamp * S), "back", 0) == starts_over
    assert (held(ring) == ["back"]) == starts_over and ring.late == (not starts_over)


def test_messages_are_counted_by_what_became_of_them():
    ring = made(1.0)
    for stamp in (1.0, 1.0, 0.9, 1.1, 1.1):
        ring.push(round(stamp * S), stamp, 0)
    assert (ring.received, ring.repeated, ring.late, len(ring)) == (6, 3, 1, 2)
    assert ring.frozen
    ring.push(round(1.2 * S), 1.2, 0)
    assert not ring.frozen


# What is found --------------------------------------------------------------------------------------------------------


def test_the_nearest_message_may_lie_on_either_side_also_among_those_thinned_out_and_the_newer_of_two_counts():
    ring = made(*np.arange(17) * 0.125, window=0.25, past=Past(step=0.25, span=1.0))
    for asked, found in ((1.1, 1.0), (1.13, 1.25), (1.875, 1.875), (1.1, 1.0), (-9.0, 1.0), (9.0, 2.0), (1.375, 1.5)):
        assert ring.nearest(round(asked * S)).message == found
        assert ring.gap(round(asked * S)) == pytest.approx(abs(found - asked))
    for asked, found in ((1.1, 1.0), (1.25, 1.25), (1.2499, 1.0), (9.0, 2.0)):
        assert ring.at_or_before(round(asked * S)).message == found
    assert ring.at_or_before(round(0.99 * S)) is None
    assert made().nearest(S) is None and made().gap(S) == math.inf and made().at_or_before(S) is None


def test_ages_rates_and_silence_are_in_seconds_and_unlimited_without_messages():
    ring = made(1.0, 1.5, 3.0)
    assert (ring.age(4 * S), ring.silence(7 * S), ring.rate()) == (1.0, 4.0, pytest.approx(1.0))
    assert (made().age(S), made().silence(S), made().rate()) == (math.inf, math.inf, 0.0)
    assert made(1.0).rate() == 0.0 and made(1.0, 1.25).rate() == pytest.approx(4.0)
    assert made().identical() == 0.0


# What makes two contents the same -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (bytes(3000), bytes(3000), True),
        (bytes(3000), bytes(2999) + b"1", False),
        (bytes(3000), bytes(2994), False),
        (bytes(5), bytes(5), True),
        (bytes(1), 0, False),
        (7, 7, True),
        (7, 8, False),
        (None, None, False),
        (bytes(5), None, False),
    ],
)
def test_contents_are_the_same_to_the_bit_or_not(one, other, same):
    ring = made()
    ring.push(1 * S, "one", 1 * S, one)
    ring.push(2 * S, "other", 2 * S, other)
    assert ring.identical() == (1.0 if same else 0.0)


# Faults ---------------------------------------------------------------------------------------------------------------


def fault(ring: Stream, now: float, steady: float | None = None, **limits) -> str:
    limits = {"max_age": 0.5, "max_silence": 2.0} | limits
    return ring.fault(round(now * S), round((now if steady is None else steady) * S), **limits)


@pytest.mark.parametrize(
    ("fine", "wrong"),
    [
        ({"now": 1.5, "steady": 1.0}, {"now": 1.501, "steady": 1.0}),
        ({"now": 1.0, "steady": 3.0}, {"now": 1.0, "steady": 3.001}),
        ({"now": 0.8, "max_lead": 0.2}, {"now": 0.799, "max_lead": 0.2}),
        ({"now": -99.0}, {"now": -99.0, "max_lead": 0.2}),
    ],
)
def test_a_limit_may_be_reached_but_not_exceeded(fine, wrong):
    assert fault(made(1.0), **fine) == "" and fault(made(1.0), **wrong) != ""


def test_content_may_stay_the_same_for_as_long_as_its_limit():
    ring = made(1.0, 1.5, 2.0, content=b"same")
    assert fault(ring, 2.0, max_identical=1.0) == "" and "frozen" in fault(ring, 2.0, max_identical=0.999)
    assert fault(ring, 2.0) == ""


@pytest.mark.parametrize(("now", "words"), [(86401.0, "86400.0 s old when"), (86401.1, "stamps of another clock")])
def test_more_than_a_day_is_no_age_but_another_clock(now, words):
    assert words in fault(made(1.0), now, steady=1.0)


@pytest.mark.parametrize(("now", "words"), [(1.0, "are 86400.00 s in the future"), (0.9, "stamps of another clock")])
def test_nor_is_it_a_lead(now, words):
    assert words in fault(made(86401.0), now, steady=86401.0, max_lead=0.1)


def test_what_is_too_old_is_told_by_the_limit_that_it_exceeds():
    assert "no message for 0.6 s on /ego/image_raw (limit 0.5 s); is the driver" in fault(made(1.0), 1.6, 1.6)
    assert "no message for 2.5 s on /ego/image_raw (limit 2.0 s); is the driver" in fault(made(1.0), 1.4, 3.5)
    assert "no message for 3.5 s on /ego/image_raw (limit 0.5 s); is the driver" in fault(made(1.0), 4.5, 3.5)
    late = made()
    late.push(S, "late", 3 * S)
    assert "are 2.0 s old when they arrive (limit 0.5 s); is the network" in fault(late, 3.1, 3.1)
    assert "no message for 2.1 s" in fault(late, 3.1, 5.1), "it is silent, too"


def test_a_repeated_stamp_and_a_late_one_are_told_from_silence_until_something_new_comes():
    ring = made(1.0)
    ring.push(1 * S, "again", 2 * S)
    assert fault(ring, 1.7, 1.7) == (
        "camera 'ego': the same message for 0.7 s on /ego/image_raw (limit 0.5 s); the stream is frozen; "
        "restart its driver"
    )
    ring.push(round(0.75 * S), "late", 2 * S)
    assert "for 0.7 s on /ego/image_raw (limit 0.5 s): its stamps have gone back by 0.25 s" in fault(ring, 1.7, 1.7)
    ring.push(2 * S, "new", 2 * S)
    assert "no message for 0.7 s on /ego/image_raw (limit 0.5 s); is the driver running?" in fault(ring, 2.7, 2.7)


def test_the_way_out_of_silence_is_what_the_topic_says():
    ring = made()
    ring.remedy = "start the camera"
    assert fault(ring, 1.0) == "camera 'ego': no message yet on /ego/image_raw; start the camera"


# What belongs together ------------------------------------------------------------------------------------------------


def test_the_rules_limit_silence_lead_and_identity():
    ring = made(1.0, 2.0, content=b"same")
    for rules in ({"max_silence": 0.9}, {"max_lead": 0.4}, {"max_identical": 0.9}):
        wide = {"max_silence": 9.0, "max_lead": 9.0, "max_identical": 9.0}
        assert isinstance(choose(ring, now=1.5, steady=3.0, **wide), tuple)
        assert choose(ring, now=1.5, steady=3.0, **wide | rules).fault


def test_unless_told_otherwise_the_nearest_are_chosen_within_a_tenth_of_a_second():
    assert Rules() == Rules(Alignment.DROP, 0.1, 2.0, 0.1, 1.0, require_camera_info=False)


@pytest.mark.parametrize(("alignment", "fault"), [(Alignment.DROP, False), (Alignment.ASOF, True)])
def test_messages_may_lie_apart_as_far_as_the_limit(alignment, fault):
    ego, wrist = made(1.0, 1.5), stream("camera 'cam_wrist'", [1.25], steady=1.25)
    assert isinstance(choose(ego, wrist, now=1.5, alignment=alignment, max_skew=0.25), tuple)
    waiting = choose(ego, wrist, now=1.5, alignment=alignment, max_skew=0.249)
    assert (
        waiting.stream == "camera 'cam_wrist'" and waiting.fault == fault and "is 0.25 s away from" in waiting.message
    )


@pytest.mark.parametrize("alignment", [Alignment.HOLD, Alignment.ASOF])
def test_a_stream_that_has_nothing_as_old_as_the_slowest_is_at_fault(alignment):
    ego, wrist = stream("camera 'ego'", [1.3], steady=1.3), stream("camera 'cam_wrist'", [1.2], steady=1.3)
    waiting = choose(ego, wrist, now=1.3, alignment=alignment)
    assert waiting == Waiting(
        "camera 'ego'", "camera 'ego' has nothing as old as the newest of camera 'cam_wrist'", True
    )


@pytest.mark.parametrize("slow", [0, 1])
def test_every_message_must_be_younger_than_the_motion_not_only_that_of_the_slowest(slow):
    stamps = [[1.0, 1.2], [1.1]] if slow else [[1.1], [1.0, 1.2]]
    streams = [stream(f"camera '{index}'", found, steady=1.2) for index, found in enumerate(stamps)]
    assert isinstance(choose(*streams, now=1.2, not_before_ns=S - 1, alignment=Alignment.HOLD), tuple)
    waiting = choose(*streams, now=1.2, not_before_ns=S, alignment=Alignment.HOLD)
    assert not waiting.fault and waiting.message == f"waiting for a newer message of camera '{slow}'"


def test_what_is_too_far_from_an_observation_says_how_far_or_that_there_is_nothing():
    assert too_far_apart("joints", "position", "/js", math.inf, 0.1) == "joints: no position yet on /js"
    assert too_far_apart("joints", "position", "/js", 0.25, 0.1) == (
        "joints: the position on /js nearest to the observation is 0.25 s away from it (limit 0.10 s); "
        "are both stamped by the same clock?"
    )


def test_the_shared_code_needs_neither_torch_nor_ros():
    code = "import sys, qwen_vla_control.observation.robot_streams\n"
    code += "print({'torch', 'rclpy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "set()"
