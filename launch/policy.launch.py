# SPDX-License-Identifier: Apache-2.0
"""Starts only the policy, on a machine with a GPU, for a robot whose executor runs elsewhere.

    ros2 launch qwen_vla_ros policy.launch.py policy:=/path/to/checkpoint device:=cuda

The robot's machine runs its own launch file with policy:=none. docs/how-to/two_machines.md explains the network.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import PushRosNamespace, SetParameter

from embodiment_descriptions import embodiment_file
from qwen_vla_ros.bringup.arguments import SWITCH, embodiment_argument, is_true, policy_arguments, value
from qwen_vla_ros.bringup.ending import exit_code
from qwen_vla_ros.bringup.nodes import policy_node, ros_variables
from qwen_vla_ros.bringup.preconditions import check_policy


def policy_alone(context) -> list[GroupAction]:
    """policy_node in the robot's namespace and with its clock."""
    config = value("embodiment_config", context)
    check_policy(value("policy", context), value("device", context))
    return [
        GroupAction(
            [
                PushRosNamespace(LaunchConfiguration("namespace")),
                SetParameter("use_sim_time", is_true("use_sim_time", context)),
                policy_node(str(embodiment_file(config)) if config else ""),
            ]
        )
    ]


def generate_launch_description() -> LaunchDescription:
    use_sim_time = DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        choices=SWITCH,
        description="Use the time of /clock: true for a simulated robot",
    )
    return LaunchDescription(
        [
            *policy_arguments(),
            use_sim_time,
            embodiment_argument(),
            *ros_variables(),
            exit_code(),
            OpaqueFunction(function=policy_alone),
        ]
    )
