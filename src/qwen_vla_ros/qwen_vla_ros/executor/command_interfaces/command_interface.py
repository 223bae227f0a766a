"""What every way to command a robot has in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from rclpy.node import Node

from embodiment_descriptions import Embodiment
from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.node_interface import type_name
from qwen_vla_rclpy.qos import reliable

COMMAND_QOS = reliable(5)
Path = JointPath | BasePath


@dataclass(frozen=True)
class Capabilities:
    """How a backend moves what its command interface says.

    Attributes:
        streams: the device takes one set-point at a time and must be fed by `sample` and `publish`; others are taken
            to start from their last command, wherever their joints are.
        stands: without a further set-point joints stay at the last one, however far the path has gone on.
    """

    streams: bool = False
    stands: bool = False


@dataclass(frozen=True)
class CommandedRobot:
    """Whose command interface it is.

    Attributes:
        embodiment: the robot.
        pose: returns the pose (3,) of its base by the odometry [m, m, rad], None when it is unknown.
    """

    embodiment: Embodiment
    pose: Callable[[], np.ndarray | None]


class Backend(Protocol):
    """The ROS side of one command interface of a robot.

    `CommandInterface.ros_side` names what makes it: called with the node that owns publishers and clients, the entry of
    `commands`, and the CommandedRobot. It raises MissingInterface where a message package is not installed.

    A path is sent in two phases, so that none of several interfaces gets its part of a command that another one lacks:
    `prepare` builds and checks everything and may refuse, the function that it returns sends and cannot fail.
    """

    capabilities: Capabilities

    def preflight(self) -> list[str]:
        """Say in words what keeps it from moving anything; empty when ready."""

    def prepare(self, path: Path, now_ns: int) -> Callable[[], None]:
        """Build the command for its part of a path that starts at ROS time `now_ns`.

        Returns:
            The function that sends it.

        Raises:
            Refused: nothing was sent.
        """

    def stop(self, standing: JointPath | None) -> None:
        """End what was sent, also what the device has accepted already.

        Args:
            standing: where all joints are to hold, None when nothing is known that is safe to command.
        """

    def sample(self, now_ns: int) -> None:
        """Compute the set-point for ROS time `now_ns`; only where `capabilities.streams`."""

    def publish(self) -> None:
        """Send the set-point that was computed last, if it is due."""

    def fault(self) -> str:
        """Say why what was sent is not being executed; empty when it is."""

    def wait_until_delivered(self, seconds: float) -> bool:
        """Wait until the device has acknowledged what was sent; False when it has not in time."""

    def destroy(self) -> None:
        """Leave the graph."""


class Publishing:
    """Base of backends that publish one topic."""

    capabilities = Capabilities()

    def __init__(self, node: Node, kind: Any, topic: str) -> None:
        """Create the publisher; `kind` is the message type."""
        self._node, self._kind = node, kind
        self._publisher = node.create_publisher(kind, topic, COMMAND_QOS)

    def preflight(self) -> list[str]:
        """Publishing to nobody succeeds and moves nothing."""
        if self._publisher.get_subscription_count() > 0:
            return []
        return [unheard(self._node, self._publisher.topic_name, self._kind)]

    def fault(self) -> str:
        """Return nothing: a topic gives no answer."""
        return ""

    def wait_until_delivered(self, seconds: float) -> bool:
        """Wait for the acknowledgement of the middleware."""
        return acknowledged(self._publisher, seconds)

    def destroy(self) -> None:
        """Remove the publisher."""
        self._node.destroy_publisher(self._publisher)

    def sample(self, now_ns: int) -> None:
        """Do nothing: the device plays whole paths."""

    def publish(self) -> None:
        """Do nothing: the device plays whole paths."""


def acknowledged(publisher: Any, seconds: float) -> bool:
    """Wait for all subscribers of a publisher; False when one has not acknowledged in time."""
    from rclpy.duration import Duration

    return publisher.wait_for_all_acked(Duration(nanoseconds=int(seconds * 1e9)))


def subscribed_types(node: Node, topic: str) -> set[str]:
    """Message types with which others subscribe to a topic."""
    return {info.topic_type for info in node.get_subscriptions_info_by_topic(topic)}


def unheard(node: Node, topic: str, kind: Any) -> str:
    """Say why nobody hears a topic."""
    others = sorted(subscribed_types(node, topic) - {type_name(kind)})
    if others:
        return f"{topic} is subscribed as {', '.join(others)}, but commands are {type_name(kind)}"
    return f"nobody subscribes to {topic}; are the controllers active?"
