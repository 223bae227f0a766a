# SPDX-License-Identifier: Apache-2.0
"""Odometry: a valid pose or none, at the nearest time, by one clock rule."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nav_msgs.msg import Odometry
from scipy.spatial.transform import Rotation

from embodiment_descriptions import load_robot
from qwen_vla_control.observation.odometry_reader import FARTHEST, KEPT, OdometryReader
from qwen_vla_control.observation.streams import NotObserved
from qwen_vla_control.reasons import Reason

S = 10**9
BASE = load_robot("mobile_base")


def pose(x: float, y: float, heading: float, z: float = 0.0, scale: float = 1.0) -> SimpleNamespace:
    orientation = SimpleNamespace(x=0.0, y=0.0, z=scale * math.sin(heading / 2), w=scale * math.cos(heading / 2))
    return SimpleNamespace(position=SimpleNamespace(x=x, y=y, z=z), orientation=orientation)


def reader_of(*stamps: float) -> OdometryReader:
    """A reader that was at x = stamp at these times [s]."""
    reader = OdometryReader(BASE, lambda name: f"/{name}")
    for seconds in stamps:
        reader.push(round(seconds * S), "odom", pose(seconds, 0.0, 0.0), round(seconds * S))
    return reader


def test_nothing_is_known_before_the_first_message():
    reader = reader_of()
    assert reader.latest() is None and reader.frame == "" and reader.age(S) == math.inf
    assert reader.fault(S, S) == "odometry: no message yet on /odom; is the driver running?"
    with pytest.raises(NotObserved, match="odometry: no message yet on /odom"):
        reader.at(S, math.inf)


def test_a_message_gives_position_heading_and_frame():
    reader, message = reader_of(), Odometry()
    message.header.frame_id, message.header.stamp.sec, message.header.stamp.nanosec = "map", 3, 5
    place, q = message.pose.pose.position, message.pose.pose.orientation
    place.x, place.y, place.z = 1.0, 2.0, 0.5
    rotation = Rotation.from_euler("ZYX", [-2.5, 0.1, -0.2])  # on a slope
    q.x, q.y, q.z, q.w = rotation.as_quat()
    assert reader.take(message, 0) and reader.frame == "map"
    found = reader.latest()
    assert found.stamp_ns == 3 * S + 5 and found.frame == "map"
    assert np.allclose(found.vector, [1.0, 2.0, -2.5])
    assert np.allclose(found.matrix[:3, :3], rotation.as_matrix()) and found.matrix[:, 3].tolist() == [
        1.0,
        2.0,
        0.5,
        1.0,
    ]


@given(st.floats(-50.0, 50.0), st.floats(0.96, 1.04))
def test_headings_lie_within_half_a_turn(heading, scale):
    reader = reader_of()
    assert reader.push(S, "odom", pose(0.0, 0.0, heading, scale=scale), 0)
    found = reader.latest().vector[2]
    assert -math.pi <= found <= math.pi and math.cos(found - heading) == pytest.approx(1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.1e4])
@pytest.mark.parametrize("field", ["position.x", "position.y", "position.z", "orientation.z", "orientation.w"])
def test_numbers_that_are_not_finite_make_no_pose(field, value):
    reader, wrong = reader_of(1.0), pose(2.0, 0.0, 0.0)
    part, name = field.split(".")
    setattr(getattr(wrong, part), name, value)
    assert not reader.push(round(1.1 * S), "other", wrong, round(1.1 * S))
    assert reader.latest().vector[0] == 1.0 and reader.frame == "odom"
    assert reader.fault(round(1.2 * S), round(1.2 * S)) == "", "it has only grown older"
    words = reader.fault(2 * S, 2 * S)
    assert "no message for 1.0 s on /odom (limit 0.5 s); its pose (" in words and "is not a valid pose" in words


@pytest.mark.parametrize(("squared", "valid"), [(0.0, False), (0.89, False), (0.91, True), (1.09, True), (1.11, False)])
def test_an_invalid_quaternion_makes_no_pose(squared, valid):
    assert reader_of().push(S, "odom", pose(0.0, 0.0, 1.0, scale=math.sqrt(squared)), 0) == valid


@given(st.lists(st.integers(0, 50), min_size=1, unique=True), st.integers(0, 50), st.integers(0, 20))
def test_at_a_given_time_it_has_the_pose_of_the_nearest_message_or_is_unknown(stamps, asked, limit):
    reader = reader_of(*(0.1 * stamp for stamp in sorted(stamps)))
    gap = min(abs(stamp - asked) for stamp in stamps)
    stamp_ns, max_gap = round(0.1 * asked * S), 0.1 * limit + 0.01
    if gap > limit:
        assert reader.near(stamp_ns, max_gap) is None
        with pytest.raises(NotObserved) as refused:
            reader.at(stamp_ns, max_gap)
        assert refused.value.reasons == (Reason.NO_ODOMETRY,) and refused.value.stream == "odometry"
    else:
        found = reader.at(stamp_ns, max_gap)
        assert abs(found.vector[0] - 0.1 * asked) == pytest.approx(0.1 * gap)
        assert found is reader.near(stamp_ns, max_gap)


def test_repeated_and_late_stamps_are_ignored_and_a_clock_set_back_starts_over():
    reader = reader_of(100.0)
    for stamp in (100.0, 99.5):
        assert not reader.push(round(stamp * S), "odom", pose(9.0, 0.0, 0.0), 100 * S)
    assert reader.latest().vector[0] == 100.0
    assert reader.push(2 * S, "odom", pose(2.0, 0.0, 0.0), 101 * S)
    assert reader.fault(2 * S, 101 * S) == "" and reader.near(100 * S, 1.0) is None


def test_silence_counts_by_the_steady_clock_and_a_stamp_from_the_future_is_a_fault():
    reader = reader_of(1.0)
    assert reader.fault(round(1.4 * S), round(1.4 * S)) == ""
    assert "for 0.6 s" in reader.fault(S, round(1.6 * S)), "ROS time stands still"
    assert "are 0.20 s in the future (limit 0.10 s)" in reader.fault(round(0.8 * S), S)
    assert reader.age(3 * S) == 2.0


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_place_may_be_far_away_but_not_without_end(axis, sign):
    far = pose(0.0, 0.0, 0.0)
    setattr(far.position, axis, sign * FARTHEST)
    assert reader_of().push(S, "odom", far, S) and FARTHEST == 1e4
    setattr(far.position, axis, sign * (FARTHEST + 0.1))
    assert not reader_of().push(S, "odom", far, S)


def test_the_age_of_a_pose_is_by_its_stamp_whenever_it_came():
    reader = reader_of()
    reader.push(S, "odom", pose(0.0, 0.0, 0.0), 5 * S)
    assert reader.age(3 * S) == 2.0


def test_after_a_valid_pose_what_was_wrong_before_is_forgotten():
    reader = reader_of(1.0)
    reader.push(round(1.1 * S), "odom", pose(math.nan, 0.0, 0.0), round(1.1 * S))
    assert reader.push(round(1.2 * S), "odom", pose(0.0, 0.0, 0.0), round(1.2 * S))
    assert reader.fault(2 * S, 2 * S).endswith("is the driver running?")


def test_no_more_is_kept_than_anybody_asks_for():
    reader = reader_of(*(0.01 * tick for tick in range(KEPT + 9)))
    assert len(reader.stream) == KEPT
