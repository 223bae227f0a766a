# SPDX-License-Identifier: Apache-2.0
"""Brings up a WidowX 250s that executes instructions: the robot (simulated, mock or real), policy, executor, RViz.

    ros2 launch qwen_vla_ros widowx.launch.py                        # simulated arm with cameras
    ros2 launch qwen_vla_ros widowx.launch.py hardware:=mock         # ros2_control without an arm or cameras
    ros2 launch qwen_vla_ros widowx.launch.py hardware:=real namespace:=wx250s policy:=/path/to/checkpoint

`--show-args` explains every argument; docs/how-to/bring_up.md explains the rest.
"""

from launch import LaunchContext, LaunchDescription
from launch_ros.actions import Node

from qwen_vla_ros.bringup.ending import end_with
from qwen_vla_ros.bringup.nodes import RobotProcess, share
from qwen_vla_ros.bringup.robot import Robot, bring_up, controller_manager, controllers, description


def real(context: LaunchContext) -> list[Node]:
    """The arm: xs_sdk drives the motors and publishes joint_states, the controllers command it through ros2_control."""
    driver = RobotProcess(
        package="interbotix_xs_sdk",
        executable="xs_sdk",
        name="xs_sdk",
        parameters=[
            {
                "motor_configs": share("interbotix_xsarm_control", "config", "wx250s.yaml"),
                "mode_configs": share("interbotix_xsarm_ros_control", "config", "modes.yaml"),
                "load_configs": False,
                "robot_description": description(WIDOWX, "real"),
            }
        ],
        on_exit=end_with("the arm's driver"),
    )
    different = share("qwen_vla_ros", "config", "controllers", "widowx_real.yaml")
    return [driver, controller_manager(WIDOWX, different), controllers(WIDOWX)]


WIDOWX = Robot(
    name="widowx",
    controllers=("arm_controller", "gripper_controller"),
    real=real,
    suites=("widowx", "widowx_pick"),
    real_warning="it moves at once: to its sleep pose, and no further",
    real_packages=(
        "controller_manager",
        "interbotix_xs_ros_control",
        "interbotix_xs_sdk",
        "interbotix_xsarm_control",
        "interbotix_xsarm_ros_control",
    ),
)


def generate_launch_description() -> LaunchDescription:
    return bring_up(WIDOWX)
