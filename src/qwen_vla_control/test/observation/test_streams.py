"""Streams and the choice of one observation."""

from __future__ import annotations

import array
import math
import subprocess
import sys

import numpy as np
import pytest

from qwen_vla_control.observation.streams import Alignment, Past, Rules, Stamped, Stream, Waiting, align, first_fault

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


def test_a_repeated_stamp_is_no_news():
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
        "camera 'ego': the same image to the bit under new stamps for 1.2 s on /ego/image_raw (limit 1.0 s); "
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


def test_stamps_from_the_future_are_refused_with_a_way_out():
    answer = choose(stream(stamps=[3.0], steady=1.0), now=1.0, max_lead=0.1)
    assert answer.fault and "/ego/image_raw lie 2.00 s in the future (limit 0.10 s)" in answer.message
    assert "chrony" in answer.message
    assert isinstance(choose(stream(stamps=[1.05], steady=1.0), now=1.0, max_lead=0.1), tuple)


def test_messages_that_are_old_when_they_arrive_are_told_from_silence():
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


def test_the_shared_code_needs_neither_torch_nor_ros():
    code = "import sys, qwen_vla_control.observation.robot_streams\n"
    code += "print({'torch', 'rclpy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "set()"
