# SPDX-License-Identifier: Apache-2.0
"""Base paths as velocities (Twist or TwistStamped), by default to the input of Nav2's velocity smoother."""

from __future__ import annotations

from collections.abc import Callable

from geometry_msgs.msg import Twist, TwistStamped
from rclpy.node import Node

from embodiment_descriptions.commands import BaseVelocityCommand
from qwen_vla_control.motion.base_follower import BaseFollower
from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.node_interface import type_name
from qwen_vla_control.reasons import Reason, Refused
from qwen_vla_ros.executor.command_interfaces.command_interface import (
    COMMAND_QOS,
    Capabilities,
    CommandedRobot,
    acknowledged,
    subscribed_types,
    unheard,
)

KINDS = {"twist": Twist, "twist_stamped": TwistStamped}
ZEROS = 25  # zero velocities after the end or a stop: half a second at 50 Hz, in case some are lost
SETTLING = 0.5  # [s] after the path for the base to reach its end


class BaseVelocityBackend:
    """Follows the path by odometry; a stop is zero velocity at once."""

    capabilities = Capabilities(streams=True)

    def __init__(self, node: Node, command: BaseVelocityCommand, robot: CommandedRobot) -> None:
        """Prepare; the publisher is created when its type is known: `auto` takes the type of the subscribers."""
        base, limits = robot.embodiment.base, robot.embodiment.safety.base
        if base is None or limits is None:
            raise ValueError(f"embodiment '{robot.embodiment.name}' has no base, or no `safety.base` in its YAML")
        self._node, self._topic, self._message_setting = node, node.resolve_topic_name(command.topic), command.message
        self._pose, self._link = robot.pose, base.link
        self._follower = BaseFollower(limits, base.kind == "omnidirectional")
        self._publisher = None
        self._message = Twist()
        self._path: BasePath | None = None
        self._start_ns = 0
        self._zeros = 0
        self._due = False
        if command.message != "auto":
            self._open(command.message)

    def preflight(self) -> list[str]:
        """Find out who subscribes, and with which type."""
        heard = subscribed_types(self._node, self._topic)
        if self._message_setting == "auto":
            problem = self._detect(heard)
            if problem:
                return [problem]
        if self._publisher is None or self._publisher.get_subscription_count() == 0:
            return [unheard(self._node, self._topic, type(self._message)) + self._advice(heard)]
        return []

    def prepare(self, path: BasePath, now_ns: int) -> Callable[[], None]:
        """Follow the path from the next sample on."""
        if self._publisher is None:
            raise Refused.because(Reason.NOT_READY, f"{self._topic} has no subscriber")

        def begin() -> None:
            self._path, self._start_ns, self._zeros = path, now_ns, 0

        return begin

    def sample(self, now_ns: int) -> None:
        """Compute the current velocity; zero without odometry."""
        self._due = self._path is not None or self._zeros > 0
        if self._path is None:
            self._zeros = max(0, self._zeros - 1)
            self._write(0.0, 0.0, 0.0)
            return
        pose = self._pose()
        if pose is None or (now_ns - self._start_ns) / 1e9 > self._path.duration + SETTLING:
            self._stand()
            return
        self._write(*self._follower.velocity(self._path, self._start_ns, now_ns, pose))

    def publish(self) -> None:
        """Send the velocity."""
        if self._due and self._publisher is not None:
            if isinstance(self._message, TwistStamped):
                # A controller drops commands without a stamp or with an old one.
                self._message.header.stamp = self._node.get_clock().now().to_msg()
            self._publisher.publish(self._message)

    def stop(self, standing: JointPath | None) -> None:
        """Command zero velocity; the limits of the base controller determine the deceleration."""
        self._stand()
        self._due = True
        self.publish()

    def fault(self) -> str:
        """Return no fault: a topic gives no feedback."""
        return ""

    def wait_until_delivered(self, seconds: float) -> bool:
        """Wait for the middleware's acknowledgment."""
        return self._publisher is None or acknowledged(self._publisher, seconds)

    def destroy(self) -> None:
        """Remove the publisher."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None

    def _detect(self, heard: set[str]) -> str:
        """Select the type that is subscribed to; returns the problem, empty when there is none."""
        fitting = [name for name, kind in KINDS.items() if type_name(kind) in heard]
        if not fitting:
            what = f"; its subscribers expect {', '.join(sorted(heard))}" if heard else ""
            return f"{self._topic} has no subscriber to Twist or TwistStamped{what}; is the base controller active?"
        chosen = "twist_stamped" if "twist_stamped" in fitting else "twist"
        if self._publisher is None or not isinstance(self._message, KINDS[chosen]):
            if len(fitting) > 1:
                self._node.get_logger().warning(
                    f"{self._topic} has subscribers to Twist and to TwistStamped; only {chosen} is sent"
                )
            self.destroy()
            self._open(chosen)
            return f"the publisher of {self._topic} was only just created"
        return ""

    def _advice(self, heard: set[str]) -> str:
        fitting = [name for name, kind in KINDS.items() if type_name(kind) in heard]
        return f"; set message: {fitting[0]} or auto in the robot's YAML" if fitting else ""

    def _open(self, name: str) -> None:
        self._message = KINDS[name]()
        if name == "twist_stamped":
            self._message.header.frame_id = self._link
        self._publisher = self._node.create_publisher(KINDS[name], self._topic, COMMAND_QOS)

    def _stand(self) -> None:
        self._path, self._zeros = None, ZEROS
        self._follower.rest()
        self._write(0.0, 0.0, 0.0)

    def _write(self, vx: float, vy: float, w: float) -> None:
        twist = self._message.twist if isinstance(self._message, TwistStamped) else self._message
        twist.linear.x, twist.linear.y, twist.angular.z = float(vx), float(vy), float(w)
