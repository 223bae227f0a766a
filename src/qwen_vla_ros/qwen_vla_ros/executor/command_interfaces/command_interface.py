# SPDX-License-Identifier: Apache-2.0
"""The common part of all command interfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from rclpy.node import Node

from embodiment_descriptions import Embodiment
from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.node_interface import type_name
from qwen_vla_rclpy.qos import reliable

COMMAND_QOS = reliable(5)
Path = JointPath | BasePath
Accepted = TypeVar("Accepted", JointPath, BasePath, contravariant=True)  # what an interface can execute


@dataclass(frozen=True)
class Capabilities:
    """How a backend executes the motion of its command interface.

    Attributes:
        streams: the device takes one setpoint at a time and must be fed by `sample` and `publish`; others start from
            their last command, wherever their joints are.
        stands: without new setpoints, joints stay at the last one, even if the path has advanced.
    """

    streams: bool = False
    stands: bool = False


@dataclass(frozen=True)
class CommandedRobot:
    """The robot that a command interface commands.

    Attributes:
        embodiment: the robot.
        pose: returns the pose (3,) of its base from odometry [m, m, rad], None when unknown.
    """

    embodiment: Embodiment
    pose: Callable[[], np.ndarray | None]


class Backend(Protocol[Accepted]):
    """The ROS side of one command interface of a robot.

    `CommandInterface.ros_side` names its factory, called with the node that owns publishers and clients, the entry of
    `commands`, and the CommandedRobot. The factory raises MissingInterface where a message package is not installed.

    A path is sent in two phases, so that all interfaces of a robot are commanded, or none: `prepare` builds and checks
    everything and may refuse; the function that it returns sends it and cannot fail.
    """

    capabilities: Capabilities

    def preflight(self) -> list[str]:
        """Return the problems that prevent motion, as text; empty when ready."""
        ...

    def prepare(self, path: Accepted, now_ns: int) -> Callable[[], None]:
        """Build the command for this interface's part of a path that starts at ROS time `now_ns` [ns].

        Returns:
            The function that sends it.

        Raises:
            Refused: nothing was sent.
        """
        ...

    def stop(self, standing: JointPath | None) -> None:
        """End what was sent, including what the device has already accepted.

        Args:
            standing: positions at which all joints are to hold, None when none are known to be safe.
        """
        ...

    def sample(self, now_ns: int) -> None:
        """Compute the setpoint for ROS time `now_ns` [ns]; only where `capabilities.streams`."""
        ...

    def publish(self) -> None:
        """Send the most recently computed setpoint, if it is due."""
        ...

    def fault(self) -> str:
        """Return why what was sent is not being executed; empty when it is."""
        ...

    def wait_until_delivered(self, seconds: float) -> bool:
        """Wait until the device has acknowledged what was sent; False when it has not within `seconds`."""
        ...

    def destroy(self) -> None:
        """Remove publishers and clients."""
        ...


class Publishing:
    """Base of backends that publish to one topic."""

    capabilities = Capabilities()

    def __init__(self, node: Node, kind: Any, topic: str) -> None:
        """Create the publisher; `kind` is the message type."""
        self._node, self._kind = node, kind
        self._publisher = node.create_publisher(kind, topic, COMMAND_QOS)

    def preflight(self) -> list[str]:
        """Require a subscriber: publishing without one succeeds and moves nothing."""
        if self._publisher.get_subscription_count() > 0:
            return []
        return [unheard(self._node, self._publisher.topic_name, self._kind)]

    def fault(self) -> str:
        """Return no fault: a topic gives no feedback."""
        return ""

    def wait_until_delivered(self, seconds: float) -> bool:
        """Wait for the middleware's acknowledgment."""
        return acknowledged(self._publisher, seconds)

    def destroy(self) -> None:
        """Remove the publisher."""
        self._node.destroy_publisher(self._publisher)

    def sample(self, now_ns: int) -> None:
        """Do nothing: the device executes whole paths."""

    def publish(self) -> None:
        """Do nothing: the device executes whole paths."""


def acknowledged(publisher: Any, seconds: float) -> bool:
    """Wait for all subscribers of a publisher; False when one has not acknowledged within `seconds`."""
    from rclpy.duration import Duration

    return publisher.wait_for_all_acked(Duration(nanoseconds=int(seconds * 1e9)))


def subscribed_types(node: Node, topic: str) -> set[str]:
    """Message types with which other nodes subscribe to a topic."""
    return {info.topic_type for info in node.get_subscriptions_info_by_topic(topic)}


def unheard(node: Node, topic: str, kind: Any) -> str:
    """Return why a topic has no matching subscriber."""
    others = sorted(subscribed_types(node, topic) - {type_name(kind)})
    if others:
        return f"{topic} has subscribers to {', '.join(others)}, but commands are {type_name(kind)}"
    return f"{topic} has no subscriber; are the controllers active?"
