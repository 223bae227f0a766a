"""Joint paths to ros2_control: one JointTrajectory message per controller, all of them or none.

The messages work with every release of the JointTrajectoryController: stamp 0 (start at once), all joints, row i at
(i + 1) * period (a first point at time 0 would be a step), positions with velocities (a cubic spline, continuous in
speed; positions alone would change speed abruptly five times a second) and a last velocity of zero (anything else is
refused since Jazzy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from rclpy.duration import Duration as RclpyDuration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from qwen_vla_ros.gate import Reason, Refused
from qwen_vla_ros.joint_path import JointPath

NANOSECONDS = 1_000_000_000
COMMAND_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


def trajectory_message(path: JointPath) -> JointTrajectory:
    """Build the message of a path; row 0 is where the robot is and is left out."""
    message = JointTrajectory(joint_names=list(path.joints))
    for row in range(1, path.steps + 1):
        point = JointTrajectoryPoint(time_from_start=_duration(row * path.period))
        point.positions = path.positions[row].tolist()
        point.velocities = path.velocities[row].tolist()
        message.points.append(point)
    return message


def verify(message: JointTrajectory, joints: Sequence[str]) -> None:
    """Raise Refused (INTERNAL) unless a JointTrajectoryController of these joints would accept the message."""
    times = [p.time_from_start.sec * NANOSECONDS + p.time_from_start.nanosec for p in message.points]
    values = [[*p.positions, *p.velocities] for p in message.points]
    good = (
        list(message.joint_names) == list(joints)
        and len(times) > 0
        and times[0] > 0
        and all(a < b for a, b in zip(times, times[1:], strict=False))
        and all(len(row) == 2 * len(joints) for row in values)
        and bool(np.isfinite(values).all())
        and not any(message.points[-1].velocities)
    )
    if not good:
        raise Refused.because(Reason.INTERNAL, f"built a trajectory that the controller of {list(joints)} would refuse")


class TrajectoryBackend:
    """Publishes joint paths to the controllers of one robot.

    Attributes:
        joints: all joints, controller by controller.
    """

    def __init__(self, node: Node, controllers: Mapping[str, Sequence[str]]) -> None:
        """Create one publisher per entry of `controllers`, which maps a topic to the joints of its controller."""
        self._node = node
        self._controllers = {topic: tuple(names) for topic, names in controllers.items()}
        self._publishers = {t: node.create_publisher(JointTrajectory, t, COMMAND_QOS) for t in self._controllers}
        self.joints = tuple(name for names in self._controllers.values() for name in names)

    def deaf_topics(self) -> list[str]:
        """Topics that no controller listens to; publishing there succeeds and moves nothing."""
        return [p.topic_name for p in self._publishers.values() if p.get_subscription_count() == 0]

    def send(self, path: JointPath) -> None:
        """Publish a path in two phases, so that no controller gets its part of a command that another one lacks.

        Raises:
            Refused: nothing was published.
        """
        messages = {}
        for topic, joints in self._controllers.items():
            messages[topic] = trajectory_message(path.select(joints))
            verify(messages[topic], joints)
        for topic, message in messages.items():
            self._publishers[topic].publish(message)

    def hold(self, joints: Sequence[str], positions: np.ndarray, time: float) -> None:
        """Stop: a single point, at rest, reached after `time` [s]. It replaces what a controller is executing."""
        row = np.asarray(positions, float)
        self.send(JointPath(tuple(joints), time, np.stack([row, row]), np.zeros((2, len(row)))))

    def wait_until_delivered(self, timeout: float) -> bool:
        """Wait until every controller has acknowledged what was sent; False when one has not within `timeout` [s]."""
        limit = RclpyDuration(nanoseconds=int(timeout * NANOSECONDS))
        answers = [publisher.wait_for_all_acked(limit) for publisher in self._publishers.values()]
        return all(answers)

    def destroy(self) -> None:
        """Remove the publishers from the graph."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers.clear()


def _duration(seconds: float) -> Duration:
    sec, nanosec = divmod(round(seconds * NANOSECONDS), NANOSECONDS)
    return Duration(sec=sec, nanosec=nanosec)
