"""Brings up a WidowX 250s that obeys sentences: the robot (simulated, mock or real), the policy, the executor, RViz.

    ros2 launch qwen_vla_ros widowx.launch.py                        # simulated arm with cameras
    ros2 launch qwen_vla_ros widowx.launch.py hardware:=mock         # ros2_control without an arm or cameras
    ros2 launch qwen_vla_ros widowx.launch.py hardware:=real namespace:=wx250s policy:=/path/to/checkpoint

`--show-args` explains every argument; docs/how-to/bring_up.md explains the rest.
"""

from launch import LaunchContext, LaunchDescription
from launch_ros.actions import Node

from qwen_vla_ros.bringup.nodes import end_with, share
from qwen_vla_ros.bringup.robot import Robot, bring_up, controller_manager, controllers, description

XS_RATE = 10  # [Hz] at which xs_sdk exchanges commands with ros2_control; a higher rate would only repeat them


def real(context: LaunchContext) -> list[Node]:
    """The arm: xs_sdk drives the motors and publishes joint_states, the controllers command it through ros2_control."""
    driver = Node(
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
        output="screen",
        on_exit=end_with("the arm's driver"),
    )
    return [driver, controller_manager(WIDOWX, update_rate=XS_RATE), controllers(WIDOWX)]


WIDOWX = Robot(
    name="widowx",
    controllers=("arm_controller", "gripper_controller"),
    real=real,
    suites=("widowx", "widowx_pick"),
    real_warning="the driver moves the arm to its sleep pose at once",
)


def generate_launch_description() -> LaunchDescription:
    return bring_up(WIDOWX)
