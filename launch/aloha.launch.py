# SPDX-License-Identifier: Apache-2.0
"""Brings up an ALOHA that executes instructions: its two followers and cameras, the policy, the executor, RViz.

    ros2 launch qwen_vla_ros aloha.launch.py                                   # simulated, with cameras
    ros2 launch qwen_vla_ros aloha.launch.py hardware:=mock                    # ros2_control without arms or cameras
    ros2 launch qwen_vla_ros aloha.launch.py hardware:=real policy:=none       # on the robot; the policy runs elsewhere

The real one is commanded through the xs_sdk of each arm, all others through ros2_control. `--show-args` explains every
argument; docs/how-to/bring_up.md explains the rest.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import GroupAction

from qwen_vla_ros.bringup.robot import Robot, bring_up, included

# The leaders are for teleoperation, the base of a mobile ALOHA is not driven here. A mobile one has no cam_low. The
# branch 2.0 of Interbotix' package has only the argument robot.
FOLLOWERS_AND_CAMERAS = {
    "is_mobile": "false",
    "robot": "aloha_stationary",
    "launch_leaders": "false",
    "use_gravity_compensation": "false",
    "use_base": "false",
}


def real(context: LaunchContext) -> list[GroupAction]:
    """ALOHA's own bring-up: an xs_sdk per follower and the driver of each camera."""
    return [included(ALOHA, "aloha", "aloha_bringup.launch.py", FOLLOWERS_AND_CAMERAS)]


ALOHA = Robot(
    name="aloha",
    controllers=("follower_left_controller", "follower_right_controller"),
    real=real,
    real_warning="its bring-up turns the motors of both followers on",
    real_packages=(
        "aloha",
        "interbotix_xs_sdk",
        "interbotix_xsarm_control",
        "interbotix_xsarm_descriptions",
        "realsense2_camera",
        "tf2_ros",
    ),
)


def generate_launch_description() -> LaunchDescription:
    return bring_up(ALOHA)
