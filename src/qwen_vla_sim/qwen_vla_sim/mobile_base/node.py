# SPDX-License-Identifier: Apache-2.0
"""ROS node `mobile_base_sim`: a simulated mobile base behind the topics of a diff_drive_controller.

It takes velocities on cmd_vel, as TwistStamped (Jazzy and later) or Twist, and publishes odom, tf and joint_states. The
controller's parameters are those of config/controllers/mobile_base.yaml, so that simulator and robot have the same.
"""

from __future__ import annotations

import sys
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry

from embodiment_descriptions import Embodiment, resource_path
from qwen_vla_control.node_interface import Endpoint, Parameter
from qwen_vla_rclpy.qos import RELIABLE
from qwen_vla_sim.controllers.diff_drive import DiffDriveParameters
from qwen_vla_sim.controllers.simulated_robot import JointReading
from qwen_vla_sim.mobile_base.misbehavior import BaseMisbehavior
from qwen_vla_sim.mobile_base.simulated_base import SimulatedBase
from qwen_vla_sim.mobile_base.suite import MobileBaseSuite
from qwen_vla_sim.mobile_base.velocity_input import VelocityInput
from qwen_vla_sim.node.messages import velocity_limits_status
from qwen_vla_sim.node.real_time import Schedule
from qwen_vla_sim.node.sim_node import SimNode, run

CONTROLLERS = "config/controllers/mobile_base.yaml"
MESSAGES = {"twist_stamped": "geometry_msgs/msg/TwistStamped", "twist": "geometry_msgs/msg/Twist"}
VELOCITY = Endpoint(VelocityInput.topic, tuple(MESSAGES.values()), "Velocities; the type is that of cmd_vel_message")
ODOMETRY = Endpoint("<odometry>", Odometry, "Where it is, and how fast")
TRANSFORMS = Endpoint("tf", "tf2_msgs/msg/TFMessage", "The same as a transform, where tf2_msgs is installed")


class MobileBaseSim(SimNode):
    """The base."""

    robot_name = "mobile_base"
    robot: SimulatedBase
    misbehavior: BaseMisbehavior

    PARAMETERS = (
        *SimNode.PARAMETERS,
        Parameter(
            "cmd_vel_message",
            "twist_stamped",
            "Message type of the controller: twist_stamped from Jazzy on, twist before",
            read_only=True,
            choices=tuple(MESSAGES),
        ),
    )
    PUBLISHES = (*SimNode.PUBLISHES, ODOMETRY, TRANSFORMS)
    SUBSCRIBES = (VELOCITY,)

    def make_robot(self, embodiment: Embodiment, options: dict[str, bool]) -> SimulatedBase:
        parameters = DiffDriveParameters.from_controllers_file(resource_path(CONTROLLERS))
        velocity_type = MESSAGES[self.setting("cmd_vel_message")]
        world = MobileBaseSuite().make_world(self.shift, self.task, embodiment)
        return SimulatedBase(world, parameters, velocity_type, **options)

    def make_misbehavior(self) -> BaseMisbehavior:
        return BaseMisbehavior(self, self.robot)

    def read_joints(self) -> JointReading:
        return self.robot.joints()

    def judge(self, name: str) -> DiagnosticStatus:
        return velocity_limits_status(self.robot.velocities, name)

    def create_more(self) -> None:
        self._schedule = Schedule(self.robot.drive.parameters.publish_rate)
        if self.embodiment.odometry is None:
            raise ValueError(f"embodiment '{self.embodiment.name}' has no `odometry` in its YAML")
        self._odometry_publisher = self.create_publisher(ODOMETRY.kind, self.embodiment.odometry.topic, RELIABLE)
        self._transforms = self._create_transforms() if self.robot.drive.parameters.enable_odom_tf else None

    def publish_more(self, now_ns: int, stamp: Time, everything: bool) -> None:
        if not self._schedule.due(now_ns, everything):
            return
        odometry = self.misbehavior.odometry(stamp)
        self._odometry_publisher.publish(odometry)
        if self._transforms is not None:
            self._transforms.publish(self._transform(odometry))

    def _create_transforms(self):
        """The publisher of the transform from odometry to base, where tf2_msgs is installed."""
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            self.get_logger().info(
                "no transform of the base: tf2_msgs is missing (apt install ros-$ROS_DISTRO-tf2-msgs)"
            )
            return None
        self._transforms_type = TFMessage
        return self.create_publisher(TFMessage, TRANSFORMS.name, RELIABLE)

    def _transform(self, odometry: Odometry) -> Any:
        transform = TransformStamped(header=odometry.header, child_frame_id=odometry.child_frame_id)
        place = odometry.pose.pose.position
        transform.transform.translation.x, transform.transform.translation.y = place.x, place.y
        transform.transform.rotation = odometry.pose.pose.orientation
        return self._transforms_type(transforms=[transform])


def main(args: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run(MobileBaseSim, args)


if __name__ == "__main__":
    sys.exit(main())
