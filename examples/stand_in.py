# SPDX-License-Identifier: Apache-2.0
"""A stand-in for an arm: it follows trajectories, and publishes joint states, images and its description.

    python examples/stand_in.py examples/so101/so101.yaml

Not a simulator: the joints are where the last trajectory says, without dynamics, and the images show a moving square.
It is for trying the executor, the recorder and a policy before the robot is on the desk. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from embodiment_descriptions import Embodiment, load_robot

JOINT_RATE, CAMERA_RATE = 50.0, 15.0  # [Hz]
HEIGHT, WIDTH = 240, 320  # [px]
AWAY = 0.1  # [rad] from home, where every arm joint is at the start


class StandIn(Node):
    """The arm of an embodiment; every command interface must be a `joint_trajectory`."""

    def __init__(self, robot: Embodiment) -> None:
        """Publish everything that the suite needs of a robot."""
        super().__init__("stand_in")
        self._robot = robot
        self._positions = {name: self._start_of(name) for name in robot.joint_names}  # [rad | m]
        # By joint: since when [s], times [s], positions.
        self._motions: dict[str, tuple[float, np.ndarray, np.ndarray]] = {}
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._description = self.create_publisher(String, "robot_description", latched)
        self._description.publish(String(data=robot.urdf))
        self._joint_states = self.create_publisher(JointState, robot.joint_states[0].topic, 10)
        self._images = [self.create_publisher(Image, c.topic, qos_profile_sensor_data) for c in robot.cameras]
        self._infos = [self.create_publisher(CameraInfo, c.info_topic, qos_profile_sensor_data) for c in robot.cameras]
        for command in robot.commands:
            self.create_subscription(JointTrajectory, command.topic, self._follow, 10)
        self.create_timer(1 / JOINT_RATE, self._publish_joints)
        self.create_timer(1 / CAMERA_RATE, self._publish_images)

    def _start_of(self, joint: str) -> float:
        limit, away = self._robot.limits[joint], AWAY if joint in self._robot.arms[0].joints else 0.0
        return float(np.clip(self._robot.home[joint] + away, limit.lower, limit.upper))

    def _follow(self, message: JointTrajectory) -> None:
        """Begin a trajectory where the joints are; an empty one stops them."""
        now, here = time.monotonic(), self._now()
        times = np.array([0.0, *(p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in message.points)])
        for column, joint in enumerate(message.joint_names):
            positions = np.array([here[joint], *(point.positions[column] for point in message.points)])
            self._motions[joint] = now, times, positions

    def _now(self) -> dict[str, float]:
        """Positions of all joints [rad | m]."""
        now = time.monotonic()
        for joint, (since, times, positions) in self._motions.items():
            self._positions[joint] = float(np.interp(now - since, times, positions))
        return self._positions

    def _publish_joints(self) -> None:
        positions = self._now()
        message = JointState(name=list(positions), position=list(positions.values()))
        message.header.stamp = self.get_clock().now().to_msg()
        self._joint_states.publish(message)

    def _publish_images(self) -> None:
        stamp, pixels = self.get_clock().now().to_msg(), np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        column = int(60 * time.monotonic()) % (WIDTH - 40)
        pixels[100:140, column : column + 40] = (200, 60, 40)
        for image, info in zip(self._images, self._infos, strict=True):
            message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH, data=pixels.tobytes())
            message.header.stamp = stamp
            image.publish(message)
            lens = CameraInfo(height=HEIGHT, width=WIDTH)
            lens.header.stamp = stamp
            info.publish(lens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("robot", type=Path, help="embodiment YAML, with its description beside it")
    robot = load_robot(parser.parse_args().robot)
    others = [command.backend for command in robot.commands if command.backend != "joint_trajectory"]
    if others:
        raise SystemExit(f"stand_in.py follows joint_trajectory commands only; {robot.name} has {', '.join(others)}")
    rclpy.init()
    try:
        rclpy.spin(StandIn(robot))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass


if __name__ == "__main__":
    main()
