# SPDX-License-Identifier: Apache-2.0
"""Bring-up of a robot that ships with the suite, with any kind of hardware.

A launch file describes its robot in a `Robot`; `bring_up` builds its launch description.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity, SomeSubstitutionsType
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    UnsetLaunchConfiguration,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node, PushRosNamespace, SetParameter
from launch_ros.parameter_descriptions import ParameterValue

from embodiment_descriptions import embodiment_file, resource_path, robot_description
from embodiment_descriptions.description import Hardware
from qwen_vla.suites import SHIFTS
from qwen_vla_ros.bringup import nodes, packages
from qwen_vla_ros.bringup.arguments import (
    SWITCH,
    embodiment_argument,
    is_true,
    policy_arguments,
    value,
    viewer_arguments,
)
from qwen_vla_ros.bringup.ending import end_with, exit_code
from qwen_vla_ros.bringup.nodes import (
    LOCAL_TRANSFORMS,
    described,
    process,
    ros_variables,
    rviz,
    share,
    suite_nodes,
    text,
)
from qwen_vla_ros.bringup.preconditions import ArgumentError, check_policy, check_scene

HARDWARE = {
    "mujoco": "simulated by this suite, with cameras",
    "mock": "ros2_control without a robot: joints follow their commands, no cameras (simulated if ros2_control is "
    "not installed)",
    "gazebo": "Gazebo, with ros2_control inside",
    "isaac": "a running Isaac Sim, through its topics",
    "real": "the robot",
}
DESCRIBED_AS = {"mujoco": "mock"}  # the simulator describes itself as mock hardware
WITH_SIMULATED_TIME = ("mujoco", "gazebo", "isaac")


@dataclass(frozen=True)
class Robot:
    """The properties of one robot.

    Attributes:
        name: its name in embodiment_descriptions, and of its simulator, controllers, worlds and RViz file.
        controllers: ros2_control controllers to start in addition to joint_state_broadcaster.
        real: the driver of the real robot.
        real_warning: what the user should know before starting the real robot; part of --show-args.
        real_packages: ROS packages that the real robot needs in addition to those of its description.
        suites: task suites whose scenes its simulator has, if there are several; the first is the default.
        controller_remappings: topics of the controllers whose names differ in the embodiment.
        executor_remappings: topics of executor_node that differ if something is not installed.
        arguments: additional arguments.
    """

    name: str
    controllers: tuple[str, ...]
    real: Callable[[LaunchContext], list[LaunchDescriptionEntity]]
    real_warning: str
    real_packages: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    controller_remappings: tuple[tuple[str, str], ...] = ()
    executor_remappings: Callable[[LaunchContext], list[tuple[str, str]]] = lambda context: []
    arguments: Sequence[DeclareLaunchArgument] = ()


def bring_up(robot: Robot) -> LaunchDescription:
    """The launch description of a robot, with the arguments common to all robots."""
    return LaunchDescription(
        [
            *arguments(robot),
            *ros_variables(),
            exit_code(),
            OpaqueFunction(function=lambda context: [everything(robot, context)]),
        ]
    )


def arguments(robot: Robot) -> list[DeclareLaunchArgument]:
    """Arguments for what differs between deployments; tuning parameters are in config/."""
    choices = "; ".join(f"{name}: {meaning}" for name, meaning in HARDWARE.items())
    return [
        DeclareLaunchArgument(
            "hardware",
            default_value="mujoco",
            choices=list(HARDWARE),
            description=f"Hardware or simulator. {choices} ({robot.real_warning})",
        ),
        *policy_arguments("none: no policy_node here, because it runs on another machine"),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="auto",
            choices=["auto", *SWITCH],
            description="Use the time of /clock; auto: if the simulator publishes it "
            f"({', '.join(WITH_SIMULATED_TIME)})",
        ),
        embodiment_argument(),
        *viewer_arguments(),
        DeclareLaunchArgument(
            "seed", default_value="0", description="Seed of the first simulated scene (hardware:=mujoco)"
        ),
        DeclareLaunchArgument(
            "task",
            default_value="",
            description="Task of every simulated scene (hardware:=mujoco); empty: the one that its seed selects",
        ),
        DeclareLaunchArgument(
            "shift",
            default_value="",
            choices=["", *SHIFTS],
            description="Kind of simulated scenes that differ from training (hardware:=mujoco); empty: none",
        ),
        *suite_argument(robot),
        *robot.arguments,
    ]


def suite_argument(robot: Robot) -> list[DeclareLaunchArgument]:
    """Suite of the simulator's scenes, if there is a choice."""
    if not robot.suites:
        return []
    about = "Task suite whose scenes are simulated (hardware:=mujoco)"
    return [DeclareLaunchArgument("suite", default_value=robot.suites[0], choices=robot.suites, description=about)]


def everything(robot: Robot, context: LaunchContext) -> GroupAction:
    """The robot selected by `hardware` and the nodes of this suite, in one namespace and with one clock.

    Raises:
        ArgumentError, MissingPackages: it would fail midway. Nothing has been started then.
    """
    simulated_mock = value("hardware", context) == "mock" and not packages.installed("controller_manager")
    config = embodiment_config(robot, context)
    check(robot, context, simulated_mock)
    parts = mock_without_ros2_control(robot, config) if simulated_mock else hardware(robot, config, context)
    return GroupAction(
        [
            PushRosNamespace(LaunchConfiguration("namespace")),
            SetParameter("use_sim_time", uses_simulated_time(context) or simulated_mock),
            *parts,
            *suite_nodes(config, context, parts, robot.executor_remappings(context)),
            *([rviz(rviz_file(robot))] if is_true("rviz", context) else []),
        ]
    )


def check(robot: Robot, context: LaunchContext, simulated_mock: bool) -> None:
    """Check everything that can be known to fail before anything is started."""
    check_policy(value("policy", context), value("device", context))
    if value("hardware", context) == "mujoco":
        suite = value("suite", context) if robot.suites else robot.name
        check_scene(suite, value("seed", context), value("task", context), value("shift", context))
    packages.require(
        needed(robot, "mujoco" if simulated_mock else value("hardware", context), is_true("rviz", context)),
        f"{robot.name} with hardware:={value('hardware', context)}",
    )


def needed(robot: Robot, hardware: str, with_rviz: bool) -> list[str]:
    """Names of the ROS packages without which such a start would fail midway."""
    controlled = hardware in ("mock", "gazebo", "isaac") or "controller_manager" in robot.real_packages
    file = resource_path(f"config/controllers/{robot.name}.yaml")
    return [
        *packages.HARDWARE[hardware],
        *(robot.real_packages if hardware == "real" else ()),
        *(packages.of_controllers(file, robot.controllers) if controlled and hardware != "mujoco" else ()),
        *(["rviz2"] if with_rviz else []),
    ]


# Values of arguments --------------------------------------------------------------------------------------------------


def uses_simulated_time(context: LaunchContext) -> bool:
    """`use_sim_time`; auto: depends on the hardware."""
    choice = value("use_sim_time", context)
    return value("hardware", context) in WITH_SIMULATED_TIME if choice == "auto" else choice == "true"


def embodiment_config(robot: Robot, context: LaunchContext) -> str:
    """The YAML of the robot for this hardware."""
    chosen = value("embodiment_config", context)
    variant = DESCRIBED_AS.get(value("hardware", context), value("hardware", context))
    return str(embodiment_file(chosen or robot.name, variant))


# Robots ---------------------------------------------------------------------------------------------------------------


def hardware(robot: Robot, config: str, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The hardware selected by `hardware`, with its transforms."""
    choice = value("hardware", context)
    if choice == "mujoco":  # transforms are only for RViz: omitted if the package is missing
        transforms = (
            [nodes.state_publisher(description(robot, "mock"))] if packages.installed("robot_state_publisher") else []
        )
        return [simulator(robot, **described(config)), *transforms]
    if choice == "gazebo":
        return [
            nodes.state_publisher(description(robot, choice)),
            *gazebo(robot, context),
            controllers(robot, "joint_state_broadcaster"),
        ]
    if choice == "real":
        return [nodes.state_publisher(description(robot, choice)), *robot.real(context)]
    return [
        nodes.state_publisher(description(robot, choice)),
        controller_manager(robot),
        controllers(robot, "joint_state_broadcaster"),
    ]


def mock_without_ros2_control(robot: Robot, config: str) -> list[LaunchDescriptionEntity]:
    """The simulator without cameras instead of mock hardware, and a log message about it."""
    message = (
        "hardware:=mock: ros2_control is not installed, so the MuJoCo simulator provides the controllers' topics, "
        "without cameras. For mock hardware: sudo apt install ros-$ROS_DISTRO-ros2-control "
        "ros-$ROS_DISTRO-ros2-controllers"
    )
    return [LogInfo(msg=message), simulator(robot, image_rate=0.0, **described(config))]


def simulator(robot: Robot, **parameters: object) -> Node:
    """The simulated robot; it also publishes robot_description and /clock."""
    executable = f"{robot.name}_sim"
    scenes = {
        "seed": ParameterValue(LaunchConfiguration("seed"), value_type=int),
        **text("shift", "task", *(["suite"] if robot.suites else [])),
    }
    return Node(
        package="qwen_vla_sim",
        name=executable,
        parameters=[{**scenes, **parameters}],
        on_exit=end_with("the simulator"),
        **process(executable),
    )


def description(robot: Robot, variant: str) -> ParameterValue:
    """Content of robot_description: the robot's xacro with its ros2_control block for a kind of hardware."""
    urdf = robot_description(
        robot.name, cast(Hardware, variant), resource_path(f"config/controllers/{robot.name}.yaml")
    )
    return ParameterValue(urdf, value_type=str)


def rviz_file(robot: Robot) -> PathJoinSubstitution:
    """RViz configuration of the robot."""
    return share("qwen_vla_ros", "config", "rviz", f"{robot.name}.rviz")


def controllers_file(robot: Robot) -> PathJoinSubstitution:
    """Parameters of the controller manager and its controllers."""
    return share("qwen_vla_ros", "config", "controllers", f"{robot.name}.yaml")


def controller_manager(robot: Robot, *more: SomeSubstitutionsType) -> Node:
    """Run the robot's controllers. more: parameter files that override the robot's own."""
    return nodes.controller_manager([controllers_file(robot), *more])


def controllers(robot: Robot, *more: str) -> Node:
    """Activate the robot's controllers."""
    return nodes.spawner([*robot.controllers, *more], controllers_file(robot), robot.controller_remappings)


def included(robot: Robot, package: str, file: str, values: Mapping[str, SomeSubstitutionsType]) -> GroupAction:
    """Include another package's launch file. It receives only these values, not our arguments of the same name."""
    ours = [UnsetLaunchConfiguration(argument.name) for argument in arguments(robot)]
    source = PythonLaunchDescriptionSource(share(package, "launch", file))
    return GroupAction([*ours, IncludeLaunchDescription(source, launch_arguments=values.items())])


def gazebo(robot: Robot, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Gazebo with the robot's world, the robot in it, and the bridge for clock, cameras and odometry."""
    if value("namespace", context):
        raise ArgumentError(
            f"namespace:={value('namespace', context)} does not work with hardware:=gazebo: the controller manager in "
            "Gazebo and the topics of its sensors have no namespace; omit it"
        )
    world = share("qwen_vla_ros", "config", "gazebo", f"{robot.name}.sdf")
    bridge = share("qwen_vla_ros", "config", "gazebo", f"{robot.name}_bridge.yaml")
    return [
        included(robot, "ros_gz_sim", "gz_sim.launch.py", {"gz_args": ["-r ", world], "on_exit_shutdown": "true"}),
        Node(
            package="ros_gz_sim",
            arguments=["-topic", "robot_description", "-name", robot.name],
            **process("create"),
        ),
        Node(
            package="ros_gz_bridge",
            name="gazebo_bridge",
            parameters=[{"config_file": bridge}],
            remappings=LOCAL_TRANSFORMS,
            on_exit=end_with("the bridge to Gazebo"),
            **process("parameter_bridge"),
        ),
    ]
