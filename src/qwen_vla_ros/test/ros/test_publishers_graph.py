# SPDX-License-Identifier: Apache-2.0
"""Who published a message: known where rclpy tells it, otherwise one of those in the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from distribution_marks import TELLS_PUBLISHERS
from spinning_peer import SpinningPeer
from std_msgs.msg import Bool

from qwen_vla_ros.ros.distributions import distribution
from qwen_vla_ros.ros.publishers import UNKNOWN, publisher_name, publisher_of, publishers_on


@pytest.fixture
def heard() -> list[Mapping]:
    """Message infos, in order of arrival."""
    return []


@pytest.fixture
def buttons(heard: list[Mapping]) -> Iterator[list[SpinningPeer]]:
    """Two nodes that publish, the first of which also listens."""
    with SpinningPeer("first") as first, SpinningPeer("second") as second:

        def take(_message: Bool, info: Mapping) -> None:
            heard.append(info)

        first.node.create_subscription(Bool, "button", take, 10)
        yield [first, second]


def press(buttons: list[SpinningPeer], heard: list[Mapping]) -> None:
    """Both publish once, one after the other."""
    for count, button in enumerate(buttons, 1):
        publisher = button.node.create_publisher(Bool, "button", 10)
        button.wait(publisher.get_subscription_count, "the subscription")
        publisher.publish(Bool(data=True))
        button.wait(lambda count=count: len(heard) == count, "the message")
    buttons[0].wait(lambda: len(publishers_on(buttons[0].node, "button")) == len(buttons), "both in the graph")


def test_the_table_of_distributions_is_right_about_rclpy(buttons, heard):
    press(buttons, heard)
    assert all((publisher_of(info) != UNKNOWN) == distribution().tells_publishers for info in heard)


@TELLS_PUBLISHERS
def test_publishers_are_told_by_name(buttons, heard):
    press(buttons, heard)
    assert [publisher_name(buttons[0].node, "button", publisher_of(i)) for i in heard] == ["/first", "/second"]


def test_of_an_unknown_publisher_all_that_it_may_be_are_named(buttons, heard):
    press(buttons, heard)
    assert publisher_name(buttons[0].node, "button", UNKNOWN) == "one of /first, /second"
