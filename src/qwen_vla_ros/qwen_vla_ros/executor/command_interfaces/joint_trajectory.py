# SPDX-License-Identifier: Apache-2.0
"""Joint paths to a JointTrajectoryController: one multi-point message per path.

The messages work with every release of the controller: stamp 0 (start at once), all its joints, row i at (i + 1) *
period (a first point at time 0 would be a step), positions with velocities (a cubic spline, continuous in velocity;
positions alone would make velocity jump at every row) and a final velocity of zero (anything else is rejected since
Jazzy). Up to Kilted, such a message replaces all previous ones; from Lyrical on, the old one is kept until the stamp
of the new one, which with stamp 0 is the same. The controller should have interpolate_from_desired_state true: it
then starts from the commanded position, not from the lagging measured one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodiment_descriptions.commands import JointTrajectoryCommand
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.reasons import Reason, Refused
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_rclpy.messages import duration_message
from qwen_vla_ros.executor.command_interfaces.command_interface import CommandedRobot, Publishing


def trajectory_message(path: JointPath) -> JointTrajectory:
    """Build the message of a path; row 0 is the current position and is omitted."""
    points = []
    for row in range(1, path.steps + 1):
        point = JointTrajectoryPoint(time_from_start=duration_message(row * path.period))
        point.positions = path.positions[row].tolist()
        point.velocities = path.velocities[row].tolist()
        points.append(point)
    return JointTrajectory(joint_names=list(path.joints), points=points)


def verify(message: JointTrajectory, joints: Sequence[str]) -> None:
    """Raise Refused (INTERNAL) unless a JointTrajectoryController of these joints would accept the message."""
    times = [nanoseconds(p.time_from_start) for p in message.points]
    values = [[*p.positions, *p.velocities] for p in message.points]
    good = (
        list(message.joint_names) == list(joints)
        and len(times) > 0
        and times[0] > 0
        and all(a < b for a, b in zip(times, times[1:], strict=False))
        and all(len(row) == 2 * len(joints) for row in values)
        and bool(np.isfinite(values).all())
        and not any(list(message.points)[-1].velocities)
    )
    if not good:
        raise Refused.because(Reason.INTERNAL, f"built a trajectory that the controller of {list(joints)} would reject")


class JointTrajectoryBackend(Publishing):
    """Sends paths to the topic of one controller; a stop is a single point, at rest, that replaces all others."""

    def __init__(self, node: Node, command: JointTrajectoryCommand, robot: CommandedRobot) -> None:
        """Create the publisher."""
        super().__init__(node, JointTrajectory, command.topic)
        self._joints = command.joints

    def prepare(self, path: JointPath, now_ns: int) -> Callable[[], None]:
        """Build and verify the message."""
        message = trajectory_message(path.select(self._joints))
        verify(message, self._joints)
        return lambda: self._publisher.publish(message)

    def stop(self, standing: JointPath | None) -> None:
        """Hold; without known positions the controller keeps its path, which ends at rest."""
        if standing is not None:
            self.prepare(standing, 0)()
