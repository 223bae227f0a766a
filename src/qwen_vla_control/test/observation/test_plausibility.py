# SPDX-License-Identifier: Apache-2.0
"""Joint states and odometry that cannot be true are named with their publisher, and believed again after a while."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_control.observation.joint_reader import JointReader
from qwen_vla_control.observation.odometry_reader import OdometryReader
from qwen_vla_control.observation.plausibility import (
    DISTRUST,
    PUBLISHER_TIMEOUT,
    UNKNOWN,
    JointStatePlausibility,
    OdometryPlausibility,
)

S = 10**9
PERIOD = 0.02  # [s]
DRIVER, STRANGER = b"driver", b"stranger"
NAMES = {DRIVER: "/driver", STRANGER: "/joint_state_publisher", UNKNOWN: "one of /driver, /joint_state_publisher"}


class FakeGraph:
    """What the graph says of publishers.

    Attributes:
        count: publishers of every topic.
    """

    def __init__(self) -> None:
        self.count = 1

    def name_of(self, _topic: str, publisher: bytes) -> str:
        """The node of a publisher."""
        return NAMES[publisher]

    def count_on(self, _topic: str) -> int:
        """How many publish a topic."""
        return self.count


class Listener:
    """A reader and its plausibility, told by several publishers."""

    def __init__(self, robot: Embodiment) -> None:
        self.reader, self.graph = JointReader(robot), FakeGraph()
        graph = self.graph.name_of, self.graph.count_on
        self.plausibility = JointStatePlausibility(self.reader, robot, *graph)
        self.home, self.seconds = dict(robot.home), 1.0

    def tell(self, publisher: bytes = DRIVER, after: float = PERIOD, **away: float) -> str:
        """Say that joints are so far away from home; returns why that is not believed."""
        self.seconds += after
        stamp, before = round(self.seconds * S), self.reader.latest()
        positions = [position + away.get(name, 0.0) for name, position in self.home.items()]
        if self.reader.push(0, stamp, list(self.home), positions, (), stamp, publisher):
            self.plausibility.record(before, "/joint_states", publisher)
        return self.plausibility.text(stamp, stamp)


@pytest.fixture
def listener(widowx: Embodiment) -> Listener:
    made = Listener(widowx)
    assert made.tell() == ""
    return made


def test_joints_at_their_speed_limits_are_believed_also_after_a_pause(listener, widowx):
    names, position = listener.home, 0.0
    for after in (0.01, 0.02, 0.02, 0.3, 0.02):
        position += after
        assert listener.tell(after=after, **{name: position * widowx.limits[name].velocity for name in names}) == ""


@pytest.mark.parametrize("by", [0.2, -0.8, 1.2])
def test_a_jump_is_named_with_joint_distance_and_publisher(listener, by):
    text = listener.tell(elbow=by)
    assert f"/joint_states: 'elbow' jumped by {abs(by):.3f} within 0.020 s" in text and "published by /driver" in text


def test_it_is_believed_again_when_nothing_has_jumped_for_a_while(listener):
    assert listener.tell(elbow=0.8) and listener.tell()
    settled = listener.seconds + DISTRUST
    while listener.seconds < settled:
        assert listener.tell()
    assert listener.tell() == ""


def test_a_second_publisher_is_named_even_where_it_agrees(listener):
    text = listener.tell(STRANGER)
    assert "two publishers report 'waist': /driver on joint_states and /joint_state_publisher on joint_states" in text
    for _ in range(int(PUBLISHER_TIMEOUT / PERIOD) + 2):
        last = listener.tell()
    assert last == "", "it has left"


def test_publishers_that_cannot_be_distinguished_are_a_fault_when_there_are_several_until_one_is_gone(listener):
    listener.graph.count = 2  # one that is known may stand beside another robot's
    assert listener.tell() == ""
    text = "two publishers report the same joints on joint_states; stop one of /driver, /joint_state_publisher"
    assert listener.tell(UNKNOWN).endswith("stop one of them"), "some are known, others not"
    for _ in range(int(PUBLISHER_TIMEOUT / PERIOD) + 2):
        last = listener.tell(UNKNOWN)
    assert last == text
    listener.graph.count = 1
    assert listener.tell(UNKNOWN) == ""


@pytest.mark.parametrize(("arm", "gripper"), [(DRIVER, STRANGER), (UNKNOWN, UNKNOWN)])
@pytest.mark.parametrize(("split", "fault"), [(6, ""), (5, "two publishers report")])
def test_parts_of_the_joints_by_different_publishers_are_no_fault_unless_they_overlap(
    widowx, arm, gripper, split, fault
):
    reader, graph = JointReader(widowx), FakeGraph()
    plausibility = JointStatePlausibility(reader, widowx, graph.name_of, graph.count_on)
    graph.count = 2
    for tick in range(20):
        for publisher, names in ((arm, list(widowx.home)[:6]), (gripper, list(widowx.home)[split:])):
            stamp, before = S + tick * S // 50, reader.latest()
            reader.push(0, stamp, names, [widowx.home[n] for n in names], (), stamp, publisher)
            plausibility.record(before, "/joint_states", publisher)
        text = plausibility.text(stamp, stamp)
        assert text.startswith(fault) and bool(text) == bool(fault)
    assert np.allclose(reader.latest().vector, [widowx.home[name] for name in widowx.joint_names])


# Odometry -------------------------------------------------------------------------------------------------------------


class Traveler:
    """The odometry of a base and its plausibility, told by several publishers."""

    def __init__(self) -> None:
        robot = load_robot("mobile_base")
        self.limits = robot.safety.base
        self.reader, self.graph = OdometryReader(robot), FakeGraph()
        self.plausibility = OdometryPlausibility(self.reader, self.limits, self.graph.name_of, self.graph.count_on)
        self.seconds = 1.0

    def tell(self, x: float = 0.0, heading: float = 0.0, publisher: bytes = DRIVER, after: float = PERIOD) -> str:
        """Say where the base is; returns why that is not believed."""
        self.seconds += after
        stamp, before = round(self.seconds * S), self.reader.latest()
        turned = SimpleNamespace(x=0.0, y=0.0, z=math.sin(heading / 2), w=math.cos(heading / 2))
        pose = SimpleNamespace(position=SimpleNamespace(x=x, y=0.0, z=0.0), orientation=turned)
        self.reader.push(stamp, "odom", pose, stamp)
        self.plausibility.record(before, publisher, stamp)
        return self.plausibility.text(stamp, stamp)


@pytest.fixture
def traveler() -> Traveler:
    made = Traveler()
    assert made.tell() == ""
    return made


def test_a_base_at_its_limits_is_believed_also_after_a_pause_and_across_pi(traveler):
    x = heading = 0.0
    for after in (0.02, 0.02, 0.3, 0.5, 0.5, 0.5):
        x, heading = x + traveler.limits.max_linear * after, heading + traveler.limits.max_angular * after
        assert traveler.tell(x, heading, after=after) == ""
    assert heading > math.pi


@pytest.mark.parametrize(("x", "heading"), [(0.3, 0.0), (-1.0, 0.0), (0.0, 1.0)])
def test_a_base_that_jumps_is_doubted_for_a_while(traveler, x, heading):
    text = traveler.tell(x, heading)
    assert "the base jumped by" in text and "published by /driver" in text
    assert traveler.tell(x, heading) == text
    assert traveler.tell(x, heading, after=DISTRUST + PERIOD) == ""


def test_several_publishers_of_odometry_are_named_until_one_is_gone(traveler):
    text = traveler.tell(publisher=STRANGER)
    assert "has several publishers, /driver and /joint_state_publisher" in text
    for _ in range(round(PUBLISHER_TIMEOUT / PERIOD) - 1):
        assert traveler.tell() == text
    assert traveler.tell() == ""


def test_several_publishers_of_odometry_that_cannot_be_distinguished_are_counted_in_the_graph(traveler):
    for _ in range(round(PUBLISHER_TIMEOUT / PERIOD) + 1):
        traveler.tell(publisher=UNKNOWN)
    assert traveler.tell(publisher=UNKNOWN) == ""
    traveler.graph.count = 2
    text = traveler.tell(publisher=UNKNOWN)
    assert text.endswith("has several publishers; stop all but one of /driver, /joint_state_publisher")
    traveler.graph.count = 1
    assert traveler.tell(publisher=UNKNOWN) == ""
