# SPDX-License-Identifier: Apache-2.0
"""Brings up a mobile base that executes instructions: the base and its camera, the policy, the executor, RViz.

    ros2 launch qwen_vla_ros mobile_base.launch.py                             # simulated, with a camera
    ros2 launch qwen_vla_ros mobile_base.launch.py hardware:=mock              # ros2_control without a base or camera
    ros2 launch qwen_vla_ros mobile_base.launch.py hardware:=real policy:=none # on the robot; the policy runs elsewhere

With nav2:=true, velocities go through Nav2's velocity smoother and collision monitor. `--show-args` explains every
argument; docs/how-to/bring_up.md explains the rest.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch_ros.actions import Node

from qwen_vla_ros.bringup.arguments import SWITCH, is_true
from qwen_vla_ros.bringup.robot import Robot, bring_up
from qwen_vla_ros.ros.distributions import distribution

# Setting that Nav2 needs where it publishes Twist by default: diff_drive_controller only accepts TwistStamped.
STAMPED = "" if distribution().nav2_sends_stamped else "; set enable_stamped_cmd_vel: true in each of its nodes"


def real(context: LaunchContext) -> list[Node]:
    """Nothing: the base has a driver of its own, with cmd_vel, odom and joint_states, that is already running."""
    return []


def past_nav2(context: LaunchContext) -> list[tuple[str, str]]:
    """Without Nav2 the executor drives the base itself."""
    return [] if is_true("nav2", context) else [("cmd_vel_nav", "cmd_vel")]


MOBILE_BASE = Robot(
    name="mobile_base",
    controllers=("diff_drive_controller",),
    controller_remappings=(
        ("diff_drive_controller/cmd_vel", "cmd_vel"),
        ("diff_drive_controller/odom", "odom"),
    ),
    real=real,
    real_warning="start its own driver and camera first",
    executor_remappings=past_nav2,
    arguments=(
        DeclareLaunchArgument(
            "nav2",
            default_value="false",
            choices=SWITCH,
            description="true: Nav2 is running, command its velocity smoother, cmd_vel_nav"
            f"{STAMPED}; false: command the base, cmd_vel",
        ),
    ),
)


def generate_launch_description() -> LaunchDescription:
    return bring_up(MOBILE_BASE)
