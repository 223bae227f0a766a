"""ROS node `mobile_base_sim`: a simulated mobile base behind the topics of a diff_drive_controller.

It takes velocities on cmd_vel, as TwistStamped (Jazzy and later) or Twist, and publishes odom, tf and joint_states. The
controller's parameters are those of config/controllers/mobile_base.yaml, so that simulator and robot have the same.
"""

from __future__ import annotations

import sys

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry

from embodiment_descriptions import Embodiment, resource_path
from qwen_vla_control.node_interface import Endpoint, Parameter
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_sim.controllers.diff_drive import DiffDriveParameters, VelocityRejected
from qwen_vla_sim.mobile_base.simulated_base import SimulatedBase
from qwen_vla_sim.mobile_base.suite import MobileBaseSuite
from qwen_vla_sim.node.messages import odometry_message
from qwen_vla_sim.node.real_time import Schedule
from qwen_vla_sim.node.sim_node import RELIABLE, SimNode, run

CONTROLLERS = "config/controllers/mobile_base.yaml"
MESSAGES = {"twist_stamped": TwistStamped, "twist": Twist}
VELOCITY = Endpoint("cmd_vel", tuple(MESSAGES.values()), "Commanded velocity; the type is that of cmd_vel_message")
ODOMETRY = Endpoint("<odometry>", Odometry, "Pose and velocity of the base")
TRANSFORMS = Endpoint("tf", "tf2_msgs/msg/TFMessage", "The same as a transform, where tf2_msgs is installed")


class MobileBaseSim(SimNode):
    """The base."""

    robot_name = "mobile_base"
    robot: SimulatedBase

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
        return SimulatedBase(MobileBaseSuite().make_world(self.shift, self.task, embodiment), parameters, **options)

    def create_more(self) -> None:
        kind = MESSAGES[self.get_parameter("cmd_vel_message").value]
        callback = self._on_stamped if kind is TwistStamped else lambda command: self._on_velocity(command, 0)
        self.create_subscription(kind, VELOCITY.name, callback, RELIABLE)
        self._schedule = Schedule(self.robot.drive.parameters.publish_rate)
        self._odometry_publisher = self.create_publisher(ODOMETRY.kind, self.embodiment.odometry.topic, RELIABLE)
        self._transforms = self._create_transforms() if self.robot.drive.parameters.enable_odom_tf else None

    def publish_more(self, now_ns: int, stamp: Time, everything: bool) -> None:
        if not self._schedule.due(now_ns, everything):
            return
        drive = self.robot.drive
        frames = (drive.parameters.odom_frame_id, drive.parameters.base_frame_id)
        odometry = odometry_message(drive.pose, drive.twist, stamp, *frames)
        self._odometry_publisher.publish(odometry)
        if self._transforms:
            self._publish_transform(odometry)

    def _on_stamped(self, message: TwistStamped) -> None:
        self._on_velocity(message.twist, nanoseconds(message.header.stamp))

    def _on_velocity(self, twist: Twist, stamp_ns: int) -> None:
        try:
            with self.lock:
                self.robot.command_velocity(twist.linear.x, twist.angular.z, stamp_ns)
        except VelocityRejected as reason:
            self.get_logger().warning(f"{VELOCITY.name}: command ignored: {reason}", throttle_duration_sec=1.0)

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

    def _publish_transform(self, odometry: Odometry) -> None:
        transform = TransformStamped(header=odometry.header, child_frame_id=odometry.child_frame_id)
        place = odometry.pose.pose.position
        transform.transform.translation.x, transform.transform.translation.y = place.x, place.y
        transform.transform.rotation = odometry.pose.pose.orientation
        self._transforms.publish(self._transforms_type(transforms=[transform]))


def main(args: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run(MobileBaseSim, args)


if __name__ == "__main__":
    sys.exit(main())
