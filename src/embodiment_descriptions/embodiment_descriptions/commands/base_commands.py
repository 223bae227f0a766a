# SPDX-License-Identifier: Apache-2.0
"""The kinds of command interfaces that drive a base and come with the suite."""

from typing import ClassVar, Literal

from embodiment_descriptions.commands.command_interface import ActionCommand, TopicCommand
from embodiment_descriptions.commands.joint_commands import READERS, ROS_SIDES
from embodiment_descriptions.schema import Name

STAND_IN = "qwen_vla_sim.mobile_base.velocity_input:VelocityInput"
TWIST, TWIST_STAMPED = "geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"


class BaseVelocityCommand(TopicCommand):
    """Velocities of a base; `auto` takes the message type that the subscriber in the graph has."""

    message_types: ClassVar = (TWIST, TWIST_STAMPED)
    moves_base: ClassVar = True
    start_hint: ClassVar = "start the base (diff_drive_controller) or Nav2, or correct the topic in the YAML"
    ros_side: ClassVar = f"{ROS_SIDES}.base_velocity:BaseVelocityBackend"
    recorded: ClassVar = f"{READERS}:base_velocity"
    simulated: ClassVar = STAND_IN

    backend: Literal["base_velocity"]
    topic: Name = "cmd_vel_nav"
    message: Literal["auto", "twist", "twist_stamped"] = "auto"

    @property
    def types(self) -> tuple[str, ...]:
        """That of `message`, or both."""
        return {"auto": self.message_types, "twist": (TWIST,), "twist_stamped": (TWIST_STAMPED,)}[self.message]

    def type_hint(self, found: str) -> str:
        """Twist and TwistStamped are a matter of settings."""
        if found not in self.message_types:
            return super().type_hint(found)
        setting = "twist_stamped" if found == TWIST_STAMPED else "twist"
        return f"set message: {setting} (or auto) in the YAML, or enable_stamped_cmd_vel in Nav2 to match"


class Nav2FollowPathCommand(ActionCommand):
    """Waypoints as a path for Nav2's controller server (nav2_msgs/FollowPath)."""

    message_types: ClassVar = ("nav2_msgs/action/FollowPath",)
    moves_base: ClassVar = True
    start_hint: ClassVar = "start Nav2's controller server"
    ros_side: ClassVar = f"{ROS_SIDES}.nav2:Nav2FollowPathBackend"
    recorded: ClassVar = f"{READERS}:measured_poses"
    simulated: ClassVar = STAND_IN  # Nav2 itself is as with the robot, and sends it velocities

    backend: Literal["nav2_follow_path"]
    action: Name = "follow_path"


class Nav2PoseCommand(ActionCommand):
    """The last waypoint as a goal for Nav2's navigator (nav2_msgs/NavigateToPose)."""

    message_types: ClassVar = ("nav2_msgs/action/NavigateToPose",)
    moves_base: ClassVar = True
    start_hint: ClassVar = "start Nav2"
    ros_side: ClassVar = f"{ROS_SIDES}.nav2:Nav2PoseBackend"
    recorded: ClassVar = f"{READERS}:measured_poses"
    simulated: ClassVar = STAND_IN  # as above

    backend: Literal["nav2_pose"]
    action: Name = "navigate_to_pose"
