# SPDX-License-Identifier: Apache-2.0
"""Bring-up of any robot from its description and its embodiment YAML: robot.launch.py.

Both files are read before anything is started, so that errors in them end the launch with one line.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, GroupAction, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import PushRosNamespace, SetParameter
from launch_ros.parameter_descriptions import ParameterValue

from embodiment_descriptions import (
    Embodiment,
    EmbodimentError,
    description_of,
    embodiment_file,
    read_description,
    xacro_arguments,
)
from qwen_vla_ros.bringup import nodes, packages
from qwen_vla_ros.bringup.arguments import SWITCH, is_true, policy_arguments, value, viewer_arguments
from qwen_vla_ros.bringup.ending import exit_code
from qwen_vla_ros.bringup.nodes import ros_variables, rviz, share, suite_nodes
from qwen_vla_ros.bringup.preconditions import ArgumentError, check_policy, found

HARDWARE = {
    "running": "the robot's own bring-up is already running and provides the interfaces of its embodiment YAML",
    "mock": "ros2_control starts here with the ros2_control block of the description; needs controllers_file:= and "
    "controllers:=; with mock hardware in that block, no robot is needed",
}


def bring_up_any() -> LaunchDescription:
    """The launch description of a robot that is known only by its files."""
    return LaunchDescription(
        [*arguments(), *ros_variables(), exit_code(), OpaqueFunction(function=lambda context: [everything(context)])]
    )


def arguments() -> list[DeclareLaunchArgument]:
    """The facts about a robot, and what differs between deployments."""
    choices = "; ".join(f"{name}: {meaning}" for name, meaning in HARDWARE.items())
    return [
        DeclareLaunchArgument(
            "embodiment_config",
            description="The robot: path of its embodiment YAML (docs/how-to/describe_a_robot.md), or its name",
        ),
        DeclareLaunchArgument(
            "description",
            default_value="",
            description="URDF or xacro of the robot, published as robot_description; empty: with hardware:=mock the "
            "one beside the YAML (with its name or the robot's, or the only one there), otherwise none: the "
            "robot's own bring-up publishes it",
        ),
        DeclareLaunchArgument(
            "description_arguments",
            default_value="",
            description="Arguments of the xacro, e.g. 'hardware:=real prefix:=left_'; with hardware:=mock its "
            "argument hardware is mock",
        ),
        DeclareLaunchArgument(
            "hardware", default_value="running", choices=list(HARDWARE), description=f"Hardware or simulator. {choices}"
        ),
        DeclareLaunchArgument(
            "controllers_file",
            default_value="",
            description="Parameters of the controller manager and its controllers (hardware:=mock)",
        ),
        DeclareLaunchArgument(
            "controllers",
            default_value="",
            description="Controllers to activate besides joint_state_broadcaster, separated by spaces (hardware:=mock)",
        ),
        *policy_arguments("none: no policy_node here, because it runs on another machine"),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            choices=SWITCH,
            description="Use the time of /clock: true for a simulated robot",
        ),
        *viewer_arguments(),
    ]


def everything(context: LaunchContext) -> GroupAction:
    """The robot and the nodes of this suite, in one namespace and with one clock."""
    config = embodiment_file(value("embodiment_config", context))
    check_policy(value("policy", context), value("device", context))
    urdf = description(config, context)
    frame = Embodiment.from_urdf(urdf, config).base_frame if urdf else ""
    robot = ros2_control(context) if value("hardware", context) == "mock" else []
    packages.require(needed(urdf, context), f"robot.launch.py with hardware:={value('hardware', context)}")
    return GroupAction(
        [
            PushRosNamespace(LaunchConfiguration("namespace")),
            SetParameter("use_sim_time", is_true("use_sim_time", context)),
            *([nodes.state_publisher(ParameterValue(urdf, value_type=str))] if urdf else []),
            *robot,
            *suite_nodes(str(config), context, robot),
            *([rviz(rviz_file(), frame)] if is_true("rviz", context) else []),
        ]
    )


def needed(urdf: str, context: LaunchContext) -> list[str]:
    """Names of the ROS packages without which this start would fail midway."""
    transforms = ["robot_state_publisher"] if urdf else []
    viewer = ["rviz2"] if is_true("rviz", context) else []
    if value("hardware", context) != "mock":
        return [*transforms, *viewer]
    file = found(value("controllers_file", context), "controllers_file")
    names = value("controllers", context).split()
    return [*packages.CONTROL, *packages.of_controllers(file, names), *transforms, *viewer]


def description(config: Path, context: LaunchContext) -> str:
    """The expanded URDF of the robot with this YAML, "" where it is published by another bring-up.

    Raises:
        ArgumentError, EmbodimentError, ResourceError: there is none, it is ambiguous, or it cannot be expanded.
    """
    given, is_mock = value("description", context), value("hardware", context) == "mock"
    arguments = xacro_arguments(value("description_arguments", context).split())
    if given:
        path = found(given, "description")
        defaults = {"hardware": "mock"} if is_mock and path.suffix == ".xacro" else {}
        return read_description(path, defaults | arguments)
    urdf = description_of(config, "mock", arguments) if is_mock else ""
    if urdf is None:
        raise EmbodimentError(f"hardware:=mock needs description:=, a URDF or xacro; there is none beside {config}")
    return urdf


def ros2_control(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The controller manager and the robot's controllers."""
    missing = [name for name in ("controllers_file", "controllers") if not value(name, context)]
    if missing:
        raise ArgumentError(f"hardware:=mock needs {' and '.join(f'{name}:=' for name in missing)}")
    file = found(value("controllers_file", context), "controllers_file")
    names = [*value("controllers", context).split(), "joint_state_broadcaster"]
    return [nodes.controller_manager([str(file)]), nodes.spawner(names, str(file))]


def rviz_file() -> nodes.PathJoinSubstitution:
    """RViz configuration for a robot that is not one of ours."""
    return share("qwen_vla_ros", "config", "rviz", "robot.rviz")
