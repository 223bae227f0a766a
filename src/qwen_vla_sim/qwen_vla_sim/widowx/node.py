# SPDX-License-Identifier: Apache-2.0
"""ROS node `widowx_sim`: a simulated WidowX 250s at a table, behind the topics of the real one."""

from __future__ import annotations

import sys

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped

from embodiment_descriptions import Embodiment
from qwen_vla_control.node_interface import Endpoint, Parameter
from qwen_vla_rclpy.messages import time_message
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_sim.controllers.simulated_robot import SimulatedRobot
from qwen_vla_sim.node.messages import optical_pose
from qwen_vla_sim.node.sim_node import SimNode, run
from qwen_vla_sim.widowx.suite import WidowXPickSuite, WidowXSuite

SUITES = {suite.name: suite for suite in (WidowXSuite, WidowXPickSuite)}

CAMERA_POSE = Endpoint("~/ego_camera_pose", PoseStamped, "Pose of the fixed camera, for visualization, latched")


class WidowXSim(SimNode):
    """The arm and, for visualization, the pose of its fixed camera."""

    robot_name = "widowx"
    PARAMETERS = (
        *SimNode.PARAMETERS,
        Parameter("suite", "widowx", "Suite whose scenes the seeds select", read_only=True, choices=tuple(SUITES)),
    )
    PUBLISHES = (*SimNode.PUBLISHES, CAMERA_POSE)

    def make_robot(self, embodiment: Embodiment, options: dict[str, bool]) -> SimulatedRobot:
        suite = self.setting("suite")
        if suite not in SUITES:
            raise ValueError(f"this robot has no suite {suite!r}; choose one of: {', '.join(SUITES)}")
        return SimulatedRobot(SUITES[suite]().make_world(self.shift, self.task, embodiment), **options)

    def create_more(self) -> None:
        self._camera_pose_publisher = self.create_publisher(CAMERA_POSE.kind, CAMERA_POSE.name, LATCHED)
        self._publish_camera_pose(time_message(self.robot.time_ns))

    def publish_more(self, now_ns: int, stamp: Time, everything: bool) -> None:
        if everything:  # a new scene
            self._publish_camera_pose(stamp)

    def _publish_camera_pose(self, stamp: Time) -> None:
        """Ground truth for drawing into the images of `ego`; the camera is fixed between two resets."""
        message = PoseStamped(pose=optical_pose(self.world, "ego"))
        message.header.stamp, message.header.frame_id = stamp, self.frame
        self._camera_pose_publisher.publish(message)


def main(args: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run(WidowXSim, args)


if __name__ == "__main__":
    sys.exit(main())
