# SPDX-License-Identifier: Apache-2.0
"""Joint states: several topics and publishers merged per joint, one rule each for prefixes, NaN, gaps and clocks."""

from __future__ import annotations

import array
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import JointState

from embodiment_descriptions import Embodiment, load_robot
from embodiment_descriptions.commands import JointStates
from qwen_vla_control.observation.joint_reader import FARTHEST, KEPT, MOST_NAMES, PARTS, JointReader
from qwen_vla_control.observation.streams import NotObserved
from qwen_vla_control.reasons import Reason, Refused

S = 10**9
ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
GRIPPER = ("left_finger",)
ALL = ARM + GRIPPER
TIMES = st.integers(0, 5 * S)


@pytest.fixture(scope="module")
def aloha() -> Embodiment:
    return load_robot("aloha", hardware="real")


def tell(
    reader: JointReader,
    seconds: float,
    positions: dict[str, float],
    source: int = 0,
    velocities: dict[str, float] | None = None,
    steady: float | None = None,
    publisher: bytes = b"",
) -> bool:
    """Push what one message reports; by default it arrives at its stamp."""
    rates = [velocities[name] for name in positions] if velocities else []
    steady_ns = round((seconds if steady is None else steady) * S)
    stamp_ns = round(seconds * S)
    return reader.push(source, stamp_ns, list(positions), list(positions.values()), rates, steady_ns, publisher)


def at_rest(names=ALL, value: float = 0.0) -> dict[str, float]:
    return dict.fromkeys(names, value)


def fault(reader: JointReader, seconds: float, steady: float | None = None) -> str:
    return reader.fault(round(seconds * S), round((seconds if steady is None else steady) * S))


def on_topics(robot: Embodiment, *sources: tuple[str, str]) -> Embodiment:
    found = tuple(JointStates(topic=topic, prefix=prefix) for topic, prefix in sources)
    return robot.model_copy(update={"joint_states": found})


# What is reported ----------------------------------------------------------------------------------------------------


def test_a_message_reports_all_joints_in_the_requested_order(widowx):
    reader = JointReader(widowx, ("elbow", "waist"))
    reported = {"waist": 0.1, "elbow": 0.2, "right_finger": 0.3}
    assert tell(reader, 1.0, reported, velocities=at_rest(tuple(reported)))
    sample = reader.latest()
    assert sample.vector.tolist() == [0.2, 0.1] and sample.names[:2] == ("elbow", "waist")
    assert sample.known == reported, "joints that are not required are included"
    assert sample.stamps_ns[:2].tolist() == [S, S] and sample.velocities[:2].tolist() == [0.0, 0.0]


def test_velocities_are_reported_or_unknown(widowx):
    reader = JointReader(widowx, ("waist", "elbow"))
    tell(reader, 1.0, {"waist": 0.1, "elbow": 0.2}, velocities={"waist": -0.5, "elbow": 0.25})
    assert reader.latest().velocities[:2].tolist() == [-0.5, 0.25]
    tell(reader, 1.1, {"waist": 0.1, "elbow": 0.2})
    assert np.isnan(reader.latest().velocities).all()


@pytest.mark.parametrize("kind", [list, np.array, lambda values: array.array("d", values)])
def test_messages_from_ros_and_from_bags_report_the_same(widowx, kind):
    reader, message = JointReader(widowx), JointState(name=list(ALL))
    message.header.stamp.sec, message.header.stamp.nanosec = 3, 5
    message.position, message.velocity = kind([0.1 * k for k in range(7)]), kind([])
    assert reader.take(0, message, 0)
    assert reader.latest().vector.tolist() == [0.1 * k for k in range(7)]
    assert set(reader.latest().stamps_ns[:7].tolist()) == {3 * S + 5}


def test_names_that_the_robot_does_not_have_count_for_nothing(widowx):
    reader = JointReader(widowx)
    assert not tell(reader, 1.0, {"wheel": 0.5})
    assert reader.latest().known == {} and fault(reader, 1.0) == (
        f"joint states: no joint state yet on joint_states; its messages have no position for {', '.join(ALL)}"
    )


def test_a_vector_is_not_changed_by_what_comes_later(widowx):
    reader = JointReader(widowx)
    positions = np.zeros(7)
    reader.push(0, S, ALL, positions, [], S)
    before = reader.latest().vector
    positions[:] = 9.0
    tell(reader, 1.1, at_rest(value=1.0))
    assert before.tolist() == [0.0] * 7 and reader.at(S, 0.01).vector.tolist() == [0.0] * 7


# Parts ---------------------------------------------------------------------------------------------------------------


def test_arm_and_gripper_with_a_publisher_each_are_merged(widowx):
    reader = JointReader(widowx)
    tell(reader, 1.0, at_rest(ARM, 0.5))
    assert fault(reader, 1.0).startswith("joint states: no position of left_finger yet on joint_states; ")
    tell(reader, 0.9, at_rest(GRIPPER, 0.03))
    assert fault(reader, 1.0) == "", "although its stamp is older than that of the arm"
    assert reader.latest().vector.tolist() == [0.5] * 6 + [0.03]
    assert reader.age(round(1.1 * S)) == pytest.approx(0.2), "of the oldest position"


def test_each_joint_has_an_age_of_its_own(widowx):
    reader = JointReader(widowx)
    tell(reader, 1.0, at_rest(GRIPPER, 0.03))
    for tick in range(10):
        tell(reader, 1.0 + 0.1 * tick, at_rest(ARM, 0.1 * tick))
    assert reader.latest().stamps_ns[:7].tolist() == [round(1.9 * S)] * 6 + [S]
    assert fault(reader, 1.9) == (
        "joint states (left_finger): no joint state for 0.9 s on joint_states (limit 0.5 s); is the driver running?"
    )
    with pytest.raises(NotObserved, match="position of left_finger on joint_states nearest .* is 0.90 s away"):
        reader.at(round(1.9 * S), 0.1)
    known = reader.near(round(1.9 * S), 0.1).known
    assert known == {name: pytest.approx(0.9) for name in ARM}


def test_parts_may_come_on_topics_of_their_own_with_the_same_prefix(widowx):
    reader = JointReader(on_topics(widowx, ("arm/joint_states", ""), ("gripper/joint_states", "")))
    tell(reader, 1.0, at_rest(ARM), source=0)
    assert fault(reader, 1.0) == (
        "joint states: no position of left_finger yet on arm/joint_states or gripper/joint_states; "
        "is the driver running?"
    )
    tell(reader, 1.0, at_rest(GRIPPER), source=1)
    assert fault(reader, 1.0) == ""
    tell(reader, 2.0, at_rest(ARM), source=0)
    assert "on gripper/joint_states (limit 0.5 s)" in fault(reader, 2.0)


def test_a_publisher_that_reports_less_neither_disturbs_nor_takes_over(widowx):
    reader = JointReader(widowx)
    tell(reader, 1.0, at_rest())
    tell(reader, 1.1, {"waist": 0.5}, publisher=b"other")
    assert reader.latest().vector[0] == 0.0 and reader.at(round(1.1 * S), 0.2).vector[0] == 0.0
    tell(reader, 2.0, {"waist": 0.5}, publisher=b"other")
    assert "no joint state for 1.0 s" in fault(reader, 2.0)


def test_a_driver_that_was_restarted_is_heard_again(widowx):
    reader = JointReader(widowx)
    tell(reader, 1.0, at_rest(), publisher=b"before")
    tell(reader, 9.0, at_rest(value=0.1), publisher=b"after")
    assert fault(reader, 9.0) == "" and reader.latest().vector.tolist() == [0.1] * 7


def test_a_simulator_that_was_restarted_is_heard_again_although_its_clock_starts_over(widowx):
    reader = JointReader(widowx)
    tell(reader, 100.0, at_rest(), publisher=b"before")
    tell(reader, 1.0, at_rest(value=0.1), steady=100.1, publisher=b"after")
    assert fault(reader, 1.0, steady=100.1) == "" and reader.latest().vector.tolist() == [0.1] * 7
    assert reader.at(S, 0.1).vector.tolist() == [0.1] * 7


def test_which_publisher_reports_which_joints_is_known(widowx):
    reader = JointReader(widowx)
    tell(reader, 1.0, at_rest(ARM), publisher=b"arm")
    tell(reader, 1.0, at_rest((*GRIPPER, "right_finger")), publisher=b"gripper")
    tell(reader, 1.1, at_rest(("elbow", *GRIPPER)), publisher=b"forgotten")
    tell(reader, 1.2, at_rest(("waist",)), publisher=b"forgotten")
    reported = {b"arm": set(ARM), b"gripper": set(GRIPPER), b"forgotten": {"elbow", "waist", *GRIPPER}}
    assert reader.sources[0].publishers == reported


def test_publishers_that_cannot_be_distinguished_differ_by_the_joints_that_they_report(widowx):
    reader = JointReader(widowx)
    tell(reader, 1.0, at_rest(ARM))
    tell(reader, 1.0, at_rest(GRIPPER))
    tell(reader, 1.1, at_rest(ARM))
    assert sorted(reader.sources[0].publishers.values(), key=len) == [set(GRIPPER), set(ARM)]


def test_an_unlimited_number_of_publishers_and_names_does_not_fill_memory(widowx):
    reader = JointReader(widowx)
    for tick in range(3 * PARTS):
        tell(reader, 1.0 + 0.001 * tick, at_rest())
        tell(reader, 1.0 + 0.001 * tick, at_rest(("waist",)), publisher=b"%d" % tick)
        tell(reader, 1.0 + 0.001 * tick, {f"wheel_{tick}": 0.0})
    assert len(reader.parts) == PARTS and fault(reader, 1.1) == ""
    reader = JointReader(widowx)
    for tick in range(KEPT + 10):
        tell(reader, 0.001 * tick, at_rest())
    assert len(reader.parts[0].stream) == KEPT


def test_whoever_has_been_silent_for_longest_gives_way_to_another(widowx):
    reader = JointReader(widowx)
    for part in range(PARTS):
        tell(reader, 1.0 + 0.01 * (part != 7), {"waist": 0.1}, steady=2.0 if part == 7 else 3.0, publisher=b"%d" % part)
    tell(reader, 1.1, {"waist": 0.1}, steady=3.1, publisher=b"new")
    assert set(reader.sources[0].publishers) == {b"new"} | {b"%d" % part for part in range(PARTS)} - {b"7"}


def test_a_message_with_more_names_than_a_robot_can_have_is_of_none(widowx):
    for count, known in ((MOST_NAMES, True), (MOST_NAMES + 1, False)):
        reader = JointReader(widowx)
        names = [*ALL, *(f"wheel_{k}" for k in range(count - len(ALL)))]
        assert reader.push(0, S, names, [0.0] * count, [], S) == known
        assert reader.sources[0].received == 1 and bool(reader.latest().known) == known


@settings(max_examples=60, deadline=None)
@given(st.permutations([(part, tick) for part in (ARM, GRIPPER) for tick in range(6)]))
def test_the_order_of_arrival_does_not_matter(widowx, order):
    reader = JointReader(widowx)
    for part, tick in order:
        names = [part[k] for k in np.random.default_rng(tick).permutation(len(part))]
        tell(reader, 1.0 + 0.1 * tick + (0.05 if part == GRIPPER else 0.0), at_rest(names, float(tick)), steady=2.0)
    assert reader.latest().vector.tolist() == [5.0] * 7
    assert reader.latest().stamps_ns[:7].tolist() == [round(1.5 * S)] * 6 + [round(1.55 * S)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sets(st.sampled_from(ALL), min_size=1), st.floats(0.001, 0.3)), min_size=1, max_size=30))
def test_a_joint_is_where_the_newest_of_the_fullest_messages_with_it_says(widowx, reported):
    reader, heard, now = JointReader(widowx), [], 1.0
    for value, (names, pause) in enumerate(reported):
        now += pause
        names = sorted(names)
        tell(reader, now, at_rest(names, float(value)))
        heard.append((len(names), now, float(value), names))
    sample = reader.latest()
    for joint, position, stamp in zip(ALL, sample.vector, sample.stamps_ns, strict=False):
        said = [entry[:3] for entry in heard if joint in entry[3]]
        if not said:
            assert math.isnan(position) and joint in fault(reader, now)
            continue
        _, when, value = max(said)
        assert position == value and stamp == round(when * S)
    silent = max((now - stamp / S for stamp in sample.stamps_ns[:7]), default=0.0)
    assert bool(fault(reader, now)) == (silent > 0.5)


# Prefixes ------------------------------------------------------------------------------------------------------------


def message_of(aloha: Embodiment, source: int, value: float = 0.0) -> dict[str, float]:
    """What one arm reports: its joints without the name of the arm, in its own order, and others beside them."""
    prefix = aloha.joint_states[source].prefix
    own = [name.removeprefix(prefix) for name in aloha.joint_names if name.startswith(prefix)]
    return {"gripper": 9.0, **{name: aloha.home[prefix + name] + value for name in reversed(own)}, "right_finger": 9.0}


def test_two_arms_that_use_the_same_names_are_told_apart_by_their_topics(aloha):
    reader = JointReader(aloha, resolve=lambda name: f"/{name}")
    assert "no joint state yet on /follower_left/joint_states" in fault(reader, 1.0)
    tell(reader, 1.0, message_of(aloha, 0))
    assert fault(reader, 1.0).startswith("joint states 'follower_right/': no joint state yet on /follower_right/")
    tell(reader, 1.0, message_of(aloha, 1), source=1)
    assert fault(reader, 1.0) == ""
    assert np.allclose(reader.latest().vector, [aloha.home[name] for name in aloha.joint_names])
    assert "/follower_left" in fault(reader, 2.0)
    assert [source.joints for source in reader.sources] == [aloha.joint_names[0:6] + aloha.joint_names[12:13]] + [
        aloha.joint_names[6:12] + aloha.joint_names[13:]
    ]


def test_only_the_topic_with_the_longest_prefix_reports_a_joint(aloha):
    robot = on_topics(aloha, ("joint_states", ""), ("left/joint_states", "follower_left/"))
    reader = JointReader(robot, ("follower_left/waist", "follower_right/waist"))
    both = {"follower_left/waist": 0.1, "follower_right/waist": 0.2}
    tell(reader, 1.0, both)
    assert fault(reader, 1.0).startswith("joint states 'follower_left/': no joint state yet on left/joint_states")
    tell(reader, 1.0, {"waist": 0.3}, source=1)
    tell(reader, 1.1, both)
    assert reader.latest().vector.tolist() == [0.3, 0.2] and fault(reader, 1.1) == ""


def test_a_joint_that_no_topic_can_report_is_named(aloha):
    reader = JointReader(on_topics(aloha, ("joint_states", "left_")), ("follower_left/waist",))
    tell(reader, 1.0, {"follower_left/waist": 0.1})
    assert fault(reader, 1.0) == (
        "joint states: the name of follower_left/waist begins with none of the prefixes 'left_'"
    )


# NaN -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.1e4])
@pytest.mark.parametrize("joint", ALL)
def test_a_message_with_a_position_that_is_not_finite_counts_for_nothing(widowx, value, joint):
    reader = JointReader(widowx)
    assert not tell(reader, 1.0, at_rest() | {joint: value})
    assert f"its messages report {joint} at {value}" in fault(reader, 1.0)
    tell(reader, 1.1, at_rest(value=0.5))
    assert fault(reader, 1.1) == ""
    assert not tell(reader, 1.2, at_rest(value=0.7) | {joint: value})
    assert reader.latest().vector.tolist() == [0.5] * 7 and fault(reader, 1.2) == "", "it has only grown older"
    assert f"for 0.6 s on joint_states (limit 0.5 s); its messages report {joint} at" in fault(reader, 1.7)


def test_what_is_wrong_with_one_part_does_not_spoil_the_other(widowx):
    reader = JointReader(widowx)
    tell(reader, 1.0, at_rest())
    for tick in range(10):
        tell(reader, 1.0 + 0.1 * tick, at_rest(ARM))
        tell(reader, 1.0 + 0.1 * tick, at_rest(GRIPPER, math.nan))
    assert "left_finger at nan" in fault(reader, 1.9)


def test_a_joint_nobody_asked_for_may_be_unknown(widowx):
    reader = JointReader(widowx, ("waist", "elbow"))
    assert tell(reader, 1.0, {"waist": 0.1, "elbow": 0.2, "shoulder": math.nan})
    assert reader.latest().known == {"waist": 0.1, "elbow": 0.2} and fault(reader, 1.0) == ""


def test_a_message_with_fewer_positions_than_names_lacks_them(widowx):
    reader = JointReader(widowx)
    for positions in ([], [0.0] * 6):
        assert not reader.push(0, S, ALL, positions, [], S)
        assert "left_finger at nan" in fault(reader, 1.0) or "waist at nan" in fault(reader, 1.0)
    assert reader.push(0, S, ALL, [0.0] * 9, [], S), "what has no name is not used"


def test_a_joint_that_is_named_more_than_once_is_not_used(widowx):
    reader = JointReader(widowx)
    assert not reader.push(0, S, [*ALL, "elbow"], [0.0] * 8, [], S)
    assert fault(reader, 1.0).endswith("its messages name elbow more than once")


@pytest.mark.parametrize("sign", [1, -1])
def test_positions_may_be_large_but_not_without_end(widowx, sign):
    reader = JointReader(widowx)
    assert tell(reader, 1.0, at_rest(value=sign * FARTHEST)) and FARTHEST == 1e4
    assert not tell(reader, 1.1, at_rest() | {"elbow": sign * (FARTHEST + 0.1)})
    assert fault(reader, 1.1) == "" and reader.latest().vector.tolist() == [sign * FARTHEST] * 7


def test_a_driver_that_tells_well_again_is_believed_again(widowx):
    reader = JointReader(widowx)
    for _ in range(2):
        assert not reader.push(0, S, [*ALL, "elbow"], [0.0] * 8, [], S)
        assert not tell(reader, 1.0, at_rest() | {"waist": math.nan})
    assert tell(reader, 1.0, at_rest()) and fault(reader, 1.0) == ""
    assert "is the driver running?" in fault(reader, 2.0), "what was wrong before is forgotten"


def test_velocities_may_be_told_of_fewer_joints(widowx):
    reader = JointReader(widowx)
    reader.push(0, S, ALL, [0.0] * 7, [0.1, 0.2], S)
    np.testing.assert_array_equal(reader.latest().velocities[:7], [0.1, 0.2] + [math.nan] * 5)


# Gaps ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(TIMES, min_size=1, max_size=40, unique=True), TIMES, st.floats(0.0, 1.0))
def test_at_a_given_time_joints_have_the_position_of_the_nearest_message_or_are_unknown(widowx, stamps, asked, limit):
    reader = JointReader(widowx)
    for stamp in sorted(stamps):
        reader.push(0, stamp, ALL, [stamp / S] * 7, [], stamp)
    gap = min(abs(stamp - asked) for stamp in stamps)
    if gap <= limit * S:
        found = reader.at(asked, limit)
        assert abs(found.vector - asked / S) == pytest.approx(gap / S)
        assert abs(found.stamps_ns[:7] - asked).tolist() == [gap] * 7
    else:
        with pytest.raises(Refused) as refused:
            reader.at(asked, limit)
        assert refused.value.reasons == (Reason.NO_JOINT_STATE,)
        assert reader.near(asked, limit).known == {}


def test_what_is_too_far_away_is_unknown_in_every_respect_and_the_rest_is_not(widowx):
    reader = JointReader(widowx)
    tell(reader, 1.0, at_rest(ARM, 0.5), velocities=at_rest(ARM, 0.25))
    tell(reader, 2.0, at_rest(GRIPPER, 0.03), velocities=at_rest(GRIPPER, 0.01))
    sample = reader.near(2 * S, 0.5)
    assert sample.stamps_ns[:7].tolist() == [0] * 6 + [2 * S] and sample.known == {"left_finger": 0.03}
    for values, told in ((sample.positions, 0.03), (sample.unwrapped, 0.03), (sample.velocities, 0.01)):
        np.testing.assert_array_equal(values[:7], [math.nan] * 6 + [told])


@pytest.mark.parametrize(("asked", "found"), [(1.04, 0.1), (1.06, 0.2), (0.5, 0.1), (9.0, 0.2)])
@pytest.mark.parametrize("later_first", [True, False])
def test_of_two_publishers_that_tell_the_same_joints_the_one_nearer_in_time_counts(widowx, asked, found, later_first):
    reader, told = JointReader(widowx), [(1.0, 0.1, b"one"), (1.1, 0.2, b"other")]
    for seconds, value, publisher in reversed(told) if later_first else told:
        tell(reader, seconds, at_rest(value=value), steady=1.1, publisher=publisher)
    assert reader.at(round(asked * S), 9.0).vector.tolist() == [found] * 7


def test_a_fuller_message_counts_although_another_is_nearer(widowx):
    reader = JointReader(widowx)
    tell(reader, 1.0, at_rest(value=0.1))
    tell(reader, 1.1, at_rest(ARM, 0.2))
    assert reader.at(round(1.1 * S), 0.2).vector.tolist() == [0.1] * 7


def test_without_messages_nothing_is_known_at_any_time(widowx):
    reader = JointReader(widowx)
    with pytest.raises(NotObserved, match="joint states: no position of waist yet on joint_states"):
        reader.at(S, math.inf)
    assert reader.near(S, math.inf).known == {} and reader.age(S) == math.inf


# Clocks --------------------------------------------------------------------------------------------------------------


def test_repeated_and_late_stamps_are_ignored(widowx):
    reader = JointReader(widowx)
    tell(reader, 1.0, at_rest())
    assert not tell(reader, 1.0, at_rest(value=1.0), steady=1.1)
    assert not tell(reader, 0.5, at_rest(value=2.0), steady=1.2)
    (source,) = reader.sources
    assert reader.latest().vector.tolist() == [0.0] * 7
    assert (source.received, source.repeated, source.late) == (3, 1, 1)
    assert source.silence(round(1.2 * S)) == pytest.approx(0.2)
    assert "its stamps have gone back by 0.50 s; is its clock being set?" in fault(reader, 1.0, steady=1.6)


def test_a_clock_that_was_set_back_starts_over(widowx):
    reader = JointReader(widowx)
    tell(reader, 100.0, at_rest(ARM))
    tell(reader, 100.0, at_rest(GRIPPER))
    tell(reader, 2.0, at_rest(ARM, 0.5), steady=100.1)
    assert "(left_finger): stamps on joint_states are 98.00 s in the future (limit 0.10 s)" in fault(reader, 2.0, 100.1)
    tell(reader, 2.0, at_rest(GRIPPER, 0.5), steady=100.1)
    assert fault(reader, 2.0, steady=100.1) == "" and reader.latest().vector.tolist() == [0.5] * 7
    with pytest.raises(NotObserved):
        reader.at(100 * S, 0.5)


def test_silence_counts_by_the_steady_clock_and_age_by_ros_time(widowx):
    reader = JointReader(widowx, timeout=0.4)
    tell(reader, 1.0, at_rest())
    assert fault(reader, 1.39) == ""
    assert "for 0.5 s" in fault(reader, 1.0, steady=1.5), "ROS time stands still"
    assert "are 0.5 s old when they arrive (limit 0.4 s)" in fault(reader, 1.5, steady=1.0)


@pytest.mark.parametrize(("max_age", "timeout", "limit"), [(0.2, 0.5, 0.2), (1.0, 0.5, 0.5), (0.3, math.inf, 0.3)])
def test_the_stricter_of_the_robots_limit_and_the_timeout_holds(widowx, max_age, timeout, limit):
    sources = (JointStates(max_age_s=max_age),)
    reader = JointReader(widowx.model_copy(update={"joint_states": sources}), timeout=timeout)
    tell(reader, 1.0, at_rest())
    assert fault(reader, 1.0 + limit - 0.01) == "" and fault(reader, 1.0 + limit + 0.01) != ""


def test_positions_from_the_future_are_not_used(widowx):
    reader = JointReader(widowx)
    tell(reader, 1.2, at_rest(), steady=1.0)
    assert "are 0.20 s in the future (limit 0.10 s)" in fault(reader, 1.0)
    assert fault(reader, 1.11, steady=1.0) == ""


def test_the_rate_is_that_of_the_slowest_part(widowx):
    reader = JointReader(widowx)
    assert reader.sources[0].rate() == 0.0
    for tick in range(11):
        tell(reader, 1.0 + 0.01 * tick, at_rest(ARM))
        if tick % 2 == 0:
            tell(reader, 1.0 + 0.01 * tick, at_rest(GRIPPER))
    assert reader.sources[0].rate() == pytest.approx(50.0)


def test_a_topic_is_as_old_and_as_silent_as_the_worst_of_its_parts(widowx):
    reader = JointReader(widowx)
    (source,) = reader.sources
    assert (source.age(S), source.silence(S), source.rate()) == (math.inf, math.inf, 0.0)
    tell(reader, 1.0, at_rest(ARM), steady=5.0)
    tell(reader, 1.5, at_rest(GRIPPER), steady=4.0)
    tell(reader, 9.0, at_rest(("waist",)), steady=1.0, publisher=b"of no interest")
    assert source.age(2 * S) == 1.0 and source.silence(6 * S) == 2.0 and reader.age(2 * S) == 1.0
    for again in (1.0, 0.9):
        tell(reader, again, at_rest(ARM))
    tell(reader, 1.5, at_rest(GRIPPER))
    assert (source.repeated, source.late, source.received) == (2, 1, 6)
    assert [stream.latest.stamp_ns for stream in reader.streams()] == [S, round(1.5 * S)]


def test_joints_nobody_asked_for_make_no_topic_older_or_slower(widowx):
    reader = JointReader(widowx, ("waist",))
    for tick in range(3):
        tell(reader, 1.0 + 0.1 * tick, {"elbow": 0.1})
        tell(reader, 9.0 + 0.01 * tick, {"waist": 0.2})
    (source,) = reader.sources
    assert source.rate() == pytest.approx(100.0) and source.age(round(9.02 * S)) == 0.0
    assert fault(reader, 9.02) == "" and [len(stream) for stream in reader.streams()] == [3]


def test_who_asks_for_no_joint_misses_none_and_gets_no_age(widowx):
    reader = JointReader(widowx, ())
    assert fault(reader, 1.0) == "" and reader.age(S) == math.inf
    tell(reader, 1.0, {"waist": 0.5})
    assert reader.latest().known == {"waist": 0.5} and reader.latest().vector.size == 0


# Half turn -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_a_joint_that_turns_without_end_goes_on_at_the_half_turn(turning, sign):
    """A driver that reports angles within -pi .. pi seems to jump there; a joint with limits that jumps does jump."""
    reader = JointReader(turning, ("wrist_rotate", "waist"))
    turned = sign * np.arange(0.0, 20.0, 0.5)
    for tick, angle in enumerate(turned):
        reported = math.atan2(math.sin(angle), math.cos(angle))
        tell(reader, 1.0 + 0.1 * tick, {"wrist_rotate": reported, "waist": reported})
        sample = reader.latest()
        np.testing.assert_allclose(sample.vector, [angle, reported], atol=1e-12)
        assert sample.positions[:2].tolist() == [reported, reported], "as it was reported"
    np.testing.assert_allclose(reader.at(S, 0.01).vector, turned[0], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3.0, 3.0), min_size=2, max_size=40), st.data())
def test_steps_below_half_a_turn_are_followed_whatever_is_lost_on_the_way(turning, steps, data):
    reader, angle, seen = JointReader(turning, ("wrist_rotate",)), 0.0, []
    for tick, step in enumerate(steps):
        angle += step
        kind = data.draw(st.sampled_from(["well", "well", "NaN", "late", "again"]))
        reported = {"wrist_rotate": math.atan2(math.sin(angle), math.cos(angle))}
        if kind == "NaN":
            tell(reader, 1.0 + 0.1 * tick, {"wrist_rotate": math.nan})
        elif seen and kind == "late":
            tell(reader, 0.95 + 0.1 * (tick - 1), {"wrist_rotate": reported["wrist_rotate"] + 3.0})
        elif seen and kind == "again":
            tell(reader, 1.0 + 0.1 * (tick - 1), {"wrist_rotate": reported["wrist_rotate"] + 3.0})
        tell(reader, 1.01 + 0.1 * tick, reported)
        seen.append(float(reader.latest().vector[0]))
    np.testing.assert_allclose(np.diff(seen), steps[1:], atol=1e-9)
    assert all(abs(after - before) <= math.pi + 1e-9 for before, after in pairwise(seen))


def test_turns_are_counted_on_when_the_driver_or_its_clock_starts_over(turning):
    reader = JointReader(turning, ("wrist_rotate",))
    for tick, angle in enumerate((3.0, -3.0)):
        tell(reader, 100.0 + tick, {"wrist_rotate": angle}, publisher=b"before")
    tell(reader, 1.0, {"wrist_rotate": -2.9}, steady=102.0, publisher=b"before")
    assert reader.latest().vector[0] == pytest.approx(2 * math.pi - 2.9)
    tell(reader, 2.0, {"wrist_rotate": -2.8}, steady=103.0, publisher=b"after")
    assert reader.latest().vector[0] == pytest.approx(2 * math.pi - 2.8)
