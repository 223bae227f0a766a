# SPDX-License-Identifier: Apache-2.0
"""Brings up any robot that has a description and an embodiment YAML: the policy, the executor, RViz, and on request
ros2_control.

    ros2 launch qwen_vla_ros robot.launch.py embodiment_config:=my_robot.yaml policy:=/path/to/checkpoint
    ros2 launch qwen_vla_ros robot.launch.py embodiment_config:=my_robot.yaml description:=my_robot.urdf.xacro \
        description_arguments:="hardware:=real"
    ros2 launch qwen_vla_ros robot.launch.py hardware:=mock embodiment_config:=my_robot.yaml \
        controllers_file:=controllers.yaml controllers:="arm_controller"

The first starts beside a robot that is running; the last needs no robot, and takes the description that lies beside the
YAML. `--show-args` explains every argument; docs/how-to/describe_a_robot.md tells how the two files are written,
examples/ has some.
"""

from launch import LaunchDescription

from qwen_vla_ros.bringup.any_robot import bring_up_any


def generate_launch_description() -> LaunchDescription:
    return bring_up_any()
