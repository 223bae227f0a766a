# SPDX-License-Identifier: Apache-2.0
"""A process with the topics of a WidowX: joint states that follow the trajectories, and camera images of noise.

Without physics and rendering it costs little, so that the measurement is of the nodes.
"""

from __future__ import annotations

import argparse
import array
import time

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from embodiment_descriptions import load_robot, robot_description
from embodiment_descriptions.commands import JointTrajectoryCommand
from qwen_vla_control.stamps import NANOSECONDS, nanoseconds
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_ros.ros.plain_node import run

JOINT_RATE = 50.0  # [Hz]
FRAMES = 8  # different images per camera: a repeated image counts as frozen


class Robot(Node):
    """Publishes until interrupted."""

    def __init__(self, name: str, width: int, height: int, camera_rate: float) -> None:
        """`name`: robot of the suite; images of `width` x `height` pixels at `camera_rate` [Hz]."""
        super().__init__("benchmark_robot")
        self._embodiment = load_robot(name)
        self._joints = list(self._embodiment.joint_names)
        self._positions = np.array([self._embodiment.home[joint] for joint in self._joints])
        self._paths: list[tuple[float, list[int], np.ndarray, np.ndarray]] = []
        self._description = self.create_publisher(String, "robot_description", LATCHED)
        self._description.publish(String(data=robot_description(name)))
        self._joint_publisher = self.create_publisher(JointState, "joint_states", 10)
        for command in self._embodiment.commands:
            if isinstance(command, JointTrajectoryCommand):
                self.create_subscription(JointTrajectory, command.topic, self._follow, 10)
        self._open_cameras(width, height)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1 / JOINT_RATE, self._publish_joints, clock=steady)
        self.create_timer(1 / camera_rate, self._publish_images, clock=steady)

    def _open_cameras(self, width: int, height: int) -> None:
        rng = np.random.default_rng(0)
        shape = (FRAMES, height, width, 3)
        frames = [array.array("B", frame.tobytes()) for frame in rng.integers(0, 256, shape, np.uint8)]
        self._images = [
            Image(height=height, width=width, encoding="rgb8", step=3 * width, data=frame) for frame in frames
        ]
        self._info = CameraInfo(height=height, width=width)
        self._cameras = [
            (
                camera.tag,
                self.create_publisher(Image, camera.topic, qos_profile_sensor_data),
                self.create_publisher(CameraInfo, camera.info_topic, qos_profile_sensor_data),
            )
            for camera in self._embodiment.cameras
        ]
        self._shown = 0

    def _follow(self, message: JointTrajectory) -> None:
        columns = [self._joints.index(name) for name in message.joint_names]
        times = [nanoseconds(p.time_from_start) / NANOSECONDS for p in message.points]
        rows = [self._positions[columns], *(p.positions for p in message.points)]
        self._paths = [path for path in self._paths if path[1] != columns]  # it replaces the previous one
        self._paths.append((time.monotonic(), columns, np.array([0.0, *times]), np.array(rows)))

    def _publish_joints(self) -> None:
        now = time.monotonic()
        for start, columns, times, rows in self._paths:
            for i, column in enumerate(columns):
                self._positions[column] = np.interp(now - start, times, rows[:, i])
        message = JointState(name=self._joints, position=self._positions.tolist())
        message.header.stamp = self.get_clock().now().to_msg()
        self._joint_publisher.publish(message)

    def _publish_images(self) -> None:
        self._shown += 1
        image = self._images[self._shown % FRAMES]
        image.header.stamp = self._info.header.stamp = self.get_clock().now().to_msg()
        for tag, publisher, info_publisher in self._cameras:
            image.header.frame_id = self._info.header.frame_id = tag
            publisher.publish(image)
            info_publisher.publish(self._info)


def main() -> None:
    """Run until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robot", default="widowx")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--camera-rate", type=float, default=30.0)
    options = parser.parse_args()
    run(lambda: Robot(options.robot, options.width, options.height, options.camera_rate))


if __name__ == "__main__":
    main()
