"""Streams and the choice of one observation."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qwen_vla.observation_buffer import Observation, Stream, Waiting, select

S = 1_000_000_000


def stream(name="camera 'ego'", stamps=(), steady=0, max_age=0.5) -> Stream:
    result = Stream(name, "/ego/image_raw", max_age, capacity=4, noun="image")
    for stamp in stamps:
        result.push(int(stamp * S), f"{name}@{stamp}", int(steady * S))
    return result


def choose(*streams, now, steady=None, **kwargs):
    return select(streams, int(now * S), int((now if steady is None else steady) * S), **kwargs)


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
    assert chosen == Observation(int(1.10 * S), ("camera 'ego'@1.1", "camera 'cam_wrist'@1.12"))


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
    assert isinstance(choose(ring, now=1.1, steady=2.0), Observation)
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
    assert choose(ring, now=1.2, not_before_ns=1 * S).stamp_ns == int(1.1 * S)


def test_streams_that_drift_apart_are_a_fault():
    ego, wrist = stream("camera 'ego'", [1.0], steady=1), stream("camera 'cam_wrist'", [1.3], steady=1)
    answer = choose(ego, wrist, now=1.35)
    assert answer.fault and "0.30 s" in answer.message


def test_the_shared_code_needs_neither_torch_nor_ros():
    code = "import sys, qwen_vla.observation_buffer; print({'torch', 'rclpy', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "set()"
