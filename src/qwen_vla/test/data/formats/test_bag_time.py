# SPDX-License-Identifier: Apache-2.0
"""Time in bags: clocks that are set while recording, simulators that are restarted, pauses; and work stays bounded."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rosbag import SAY, START, WIDOWX, Bag, S, T, header, joints_at, picture, record

from qwen_vla.data.formats.bags.storage import Damage
from qwen_vla.data.formats.bags.timeline import LONGEST_PAUSE, Heard, stretches
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.rosbag import BagOptions, RosbagEpisodes

BOOT = 42 * S  # of a robot without a battery for its clock
ARM, JOINTS = WIDOWX.commands[0].topic, WIDOWX.arms[0].joints


class Clocks(Bag):
    """A bag whose times of recording and stamps are functions of the true time [ns]."""

    def __init__(self, path, recorder=lambda true: true, stamps=lambda true: true, **options):
        super().__init__(path, lag=0, **options)
        self.recorder, self.stamps = recorder, stamps

    def add(self, topic, kind, message, ns):
        if hasattr(message, "header") and (message.header.stamp.sec or message.header.stamp.nanosec):
            message.header.stamp = header(self.stamps(ns)).stamp
        super().add(topic, kind, message, self.recorder(ns + 5_000_000))


def read(path, options=SAY):
    return RosbagEpisodes(path, WIDOWX, options)


def leap(at_s, by_ns):
    return lambda true: true + (by_ns if true >= START + at_s * S else 0)


def test_a_clock_that_is_set_while_recording_ends_the_episode_and_says_so(tmp_path):
    since_boot = lambda true: true if true >= START + 2 * S else true - START + BOOT  # noqa: E731
    with Clocks(tmp_path / "bag", since_boot, since_boot) as bag:
        record(bag, 5.0)
    tracemalloc.start()
    begun = time.perf_counter()
    first, second = read(tmp_path / "bag")
    assert time.perf_counter() - begun < 15 and tracemalloc.get_traced_memory()[1] < 500e6
    tracemalloc.stop()
    assert len(first) == 10 and len(second) == 15
    (why,) = first.defects["observation"].values()
    assert list(first.defects["observation"]) == [9] and not second.defects
    assert (
        "interrupted after it: no measurement was recorded for 19,676 days: the recording was paused, or the clock"
        in why
    )
    np.testing.assert_array_equal(second.images["ego"][3], picture(round((2 + 3 / 5) * 30)))
    np.testing.assert_allclose(second.state.values[3], joints_at(2.6), atol=2e-3)


def test_a_clock_that_is_set_before_the_first_observation_costs_nothing(tmp_path):
    since_boot = lambda true: true if true >= START else true - START + BOOT  # noqa: E731
    with Clocks(tmp_path / "bag", since_boot, since_boot) as bag:
        for k in range(30):
            bag.joints(START - (30 - k) * S // 100, joints_at(0))
        record(bag)
    (episode,) = read(tmp_path / "bag")
    assert len(episode) == 15 and not episode.defects


@pytest.mark.parametrize("seconds", [-3600, -4, 4, 3600])
def test_a_robot_whose_clock_is_set_ends_the_episode(tmp_path, seconds):
    with Clocks(tmp_path / "bag", stamps=leap(2, seconds * S)) as bag:
        record(bag, 5.0)
        bag.trajectory(ARM, START + S, JOINTS, [(0.1, np.ones(6))])
    episodes = list(read(tmp_path / "bag"))
    assert 23 <= sum(map(len, episodes)) <= 25
    direction = "go back" if seconds < 0 else "leap ahead"
    assert any(direction in why for why in episodes[0].defects["observation"].values())
    for episode in episodes[1:]:
        assert len(episode.defects["observation"]) == len(episode), "nothing was commanded since"


@pytest.mark.parametrize("seconds", [-3600, -5, 5, 3600])
def test_a_recorder_whose_clock_differs_from_the_robot_s_does_not_shift_the_commands(tmp_path, seconds):
    paths = []
    for name, offset in (("same", 0), ("other", seconds)):
        with Clocks(tmp_path / name, stamps=lambda true, offset=offset: true + offset * S) as bag:
            record(bag)
            bag.trajectory(ARM, START + 11 * S // 10, JOINTS, [(1.0, np.ones(6))])
        paths.append(tmp_path / name)
    (same,), (other,) = map(read, paths)
    assert len(same) == len(other) and not other.defects
    np.testing.assert_allclose(other.actions.values, same.actions.values, atol=0.01)


def test_a_recorder_whose_clock_is_set_back_is_refused_by_name(tmp_path):
    with Clocks(tmp_path / "bag", recorder=leap(2, -3 * S)) as bag:
        record(bag)
    with pytest.raises(DatasetError, match=r"bag: a message on /\S+ \(.*\), recorded at .*clock was set back by 3.0 s"):
        read(tmp_path / "bag")


def test_a_recording_that_was_paused_ends_the_episode(tmp_path):
    with Clocks(tmp_path / "bag") as bag:
        record(bag, 2.0)
        record(bag, 2.0, START + 3600 * S)
    first, second = read(tmp_path / "bag")
    assert len(first) == len(second) == 10
    assert "no measurement was recorded for 3598.0 s" in first.defects["observation"][9]


@pytest.mark.parametrize("speed", [0.3, 1.0, 4.0])
def test_a_simulator_may_be_slower_or_faster_than_the_recorder_s_clock(tmp_path, speed):
    with Clocks(tmp_path / "bag", recorder=lambda true: START + round((true - 5 * S) / speed)) as bag:
        record(bag, start=5 * S)
    (episode,) = read(tmp_path / "bag")
    assert len(episode) == 15 and not episode.defects
    np.testing.assert_array_equal(episode.images["cam_wrist"][7], picture(1000 + round(7 / 5 * 20)))


def test_a_simulator_that_is_restarted_ends_the_episode(tmp_path):
    with Clocks(
        tmp_path / "bag",
        recorder=lambda true: true + START,
        stamps=lambda true: true if true < 13 * S else true - 10 * S,
    ) as bag:
        record(bag, 6.0, start=10 * S)
    first, second = read(tmp_path / "bag")
    assert len(first) == 15 and len(second) == 15
    assert (
        "the stamps on /" in first.defects["observation"][14] and "go back by 9.9 s" in first.defects["observation"][14]
    )
    assert not second.defects


def test_what_comes_before_the_first_stamp_has_the_simulator_s_time_too(tmp_path):
    with Clocks(tmp_path / "bag", recorder=lambda true: true + START) as bag:
        bag.text("task", 4 * S, "lift the cube")
        for k in range(5):
            kind = "sensor_msgs/msg/JointState"
            bag.add(
                "joint_states",
                kind,
                T[kind](header(0), list(WIDOWX.joint_names), joints_at(0), *2 * [np.zeros(0)]),
                4 * S + k,
            )
        record(bag, start=5 * S)
    (episode,) = read(tmp_path / "bag", BagOptions(instruction_topic="task"))
    assert len(episode) == 15 and not episode.defects and episode.instruction == "lift the cube"


def test_a_new_instruction_begins_a_new_episode(tmp_path):
    with Bag(tmp_path / "bag") as bag:
        for seconds, text in ((0.3, "open the drawer"), (0.9, "open the drawer"), (1.6, "close the drawer")):
            bag.text("task", START + round(seconds * S), text)
        record(bag)
    episodes = list(read(tmp_path / "bag", BagOptions(instruction_topic="task")))
    assert [(episode.instruction, len(episode)) for episode in episodes] == [
        ("open the drawer", 9),
        ("close the drawer", 7),
    ]
    np.testing.assert_allclose(episodes[1].state.values[0], joints_at(1.6), atol=0.02)


def test_an_instruction_just_after_the_mark_is_that_of_the_marked_episode(tmp_path):
    with Bag(tmp_path / "bag") as bag:
        record(bag)
        kind = "std_msgs/msg/Bool"
        for begin, end, text in ((0.2, 1.2, "open"), (1.4, 2.6, "close")):
            bag.add("run", kind, T[kind](True), START + round(begin * S))
            bag.text("task", START + round((begin + 0.1) * S), text)
            bag.add("run", kind, T[kind](False), START + round(end * S))
    episodes = list(read(tmp_path / "bag", BagOptions(instruction_topic="task", marker_topic="run")))
    assert [episode.instruction for episode in episodes] == ["open", "close"]


def test_a_camera_that_dies_leaves_bad_rows_to_the_end(tmp_path):
    with Bag(tmp_path / "bag") as bag:
        record(bag, 1.0)
        record(bag, 2.0, START + S, without=("cam_wrist/image_raw",))
    (episode,) = read(tmp_path / "bag")
    assert len(episode) == 15 and set(range(8, 15)) <= set(episode.defects["observation"])


# --- the division itself ----------------------------------------------------------------------------------------------


def heard(log_ns, stamp_ns, topic="/a"):
    return Heard(topic, "T", log_ns, stamp_ns, True, None)


TIMES = st.integers(0, 2**62)


@given(st.lists(st.tuples(TIMES, st.integers(-(2**31) * S, 2**31 * S), st.sampled_from("abc")), max_size=30))
@settings(max_examples=300, deadline=None)
def test_whatever_the_clocks_do_time_within_a_stretch_goes_forward_without_a_gap(messages):
    ordered = [heard(log, stamp, topic) for log, stamp, topic in sorted(messages)]
    found = stretches(ordered)
    assert [arrival.heard for stretch in found for arrival in stretch.arrivals] == ordered, "none is lost"
    for stretch in found:
        steps = np.diff([arrival.time_ns for arrival in stretch.arrivals])
        assert all(0 <= step <= LONGEST_PAUSE for step in steps)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30), st.lists(st.tuples(TIMES, TIMES), max_size=3))
@settings(max_examples=200, deadline=None)
def test_messages_within_damage_are_left_out_and_all_others_are_kept(logs, spans):
    damages = [Damage(min(span) % 100, max(span) % 100, "lost") for span in spans]
    ordered = [heard(log, log) for log in sorted(logs)]
    kept = [arrival.heard.log_ns for stretch in stretches(ordered, damages) for arrival in stretch.arrivals]
    assert kept == [h.log_ns for h in ordered if not any(d.begin_ns <= h.log_ns <= d.end_ns for d in damages)]
