"""What the launch files share: their arguments, and the actions for each part of a running robot.

A launch file describes its robot in a `Robot`; `bring_up` makes the launch description of it. Needs `launch` and
`launch_ros`, which come with a ROS installation; only the launch files import this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import Command, FindExecutable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node, PushRosNamespace, SetParameter
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from embodiment_descriptions import embodiment_file
from qwen_vla.suites import SHIFTS
from qwen_vla_ros.blending import Blending
from qwen_vla_ros.environment import ros_environment

HARDWARE = {
    "mujoco": "simulated by this suite, with cameras",
    "mock": "ros2_control without a robot: joints follow their commands, no cameras (simulated where ros2_control is "
    "not installed)",
    "gazebo": "Gazebo, with ros2_control inside",
    "isaac": "a running Isaac Sim, through its topics",
    "real": "the robot",
}
DESCRIBED_AS = {"mujoco": "mock"}  # the simulator describes itself as mock hardware
WITH_SIMULATED_TIME = ("mujoco", "gazebo", "isaac")
SWITCH = ["true", "false"]
# Transforms stay inside the namespace, so that two robots in one graph do not mix theirs.
LOCAL_TRANSFORMS = [("/tf", "tf"), ("/tf_static", "tf_static")]
# [s] from SIGTERM to SIGKILL: they bring the robot to rest before they go; on a busy machine that takes its time.
MANAGED_SIGTERM_TIMEOUT = "15"


@dataclass(frozen=True)
class Robot:
    """What is particular about a robot.

    Attributes:
        name: its name in embodiment_descriptions; its simulator, controllers, worlds and RViz file are named after it.
        controllers: ros2_control controllers to start beside joint_state_broadcaster.
        real: what drives the real robot.
        real_warning: what the user should know before starting the real one; part of --show-args.
        suites: task suites whose scenes its simulator can show, where there are several; the first is the default.
        controller_remappings: topics of the controllers that are called differently in the embodiment.
        executor_remappings: topics of executor_node that differ where something is not installed.
        arguments: further arguments.
    """

    name: str
    controllers: tuple[str, ...]
    real: Callable[[LaunchContext], list[LaunchDescriptionEntity]]
    real_warning: str
    suites: tuple[str, ...] = ()
    controller_remappings: tuple[tuple[str, str], ...] = ()
    executor_remappings: Callable[[LaunchContext], list[tuple[str, str]]] = lambda context: []
    arguments: Sequence[DeclareLaunchArgument] = ()


def bring_up(robot: Robot) -> LaunchDescription:
    """The launch description of a robot, with the arguments that all robots have."""
    return LaunchDescription(
        [
            *arguments(robot),
            *ros_variables(),
            OpaqueFunction(function=lambda context: [everything(robot, context)]),
        ]
    )


def arguments(robot: Robot) -> list[DeclareLaunchArgument]:
    """Arguments are what differs between deployments; tuning is in config/."""
    choices = "; ".join(f"{name}: {meaning}" for name, meaning in HARDWARE.items())
    return [
        DeclareLaunchArgument(
            "hardware",
            default_value="mujoco",
            choices=list(HARDWARE),
            description=f"What moves. {choices} ({robot.real_warning})",
        ),
        *policy_arguments("none: no policy_node here, it runs on another machine"),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="auto",
            choices=["auto", *SWITCH],
            description="Take time from /clock; auto: where the simulator publishes it "
            f"({', '.join(WITH_SIMULATED_TIME)})",
        ),
        embodiment_argument(),
        DeclareLaunchArgument(
            "rviz", default_value="false", choices=SWITCH, description="Start RViz with the robot's configuration"
        ),
        DeclareLaunchArgument(
            "record",
            default_value="false",
            choices=SWITCH,
            description="Start episode_recorder, whose services start and end the recording of an episode",
        ),
        DeclareLaunchArgument(
            "seed", default_value="0", description="Seed of the first simulated scene (hardware:=mujoco)"
        ),
        DeclareLaunchArgument(
            "task",
            default_value="",
            description="Task of every simulated scene (hardware:=mujoco); empty: that which its seed means",
        ),
        DeclareLaunchArgument(
            "shift",
            default_value="",
            choices=["", *SHIFTS],
            description="Simulated scenes of another kind than those trained on (hardware:=mujoco); empty: none",
        ),
        *suite_argument(robot),
        *robot.arguments,
    ]


def suite_argument(robot: Robot) -> list[DeclareLaunchArgument]:
    """Whose scenes a simulator shows, where there is a choice."""
    if not robot.suites:
        return []
    about = "Task suite whose scenes are simulated (hardware:=mujoco)"
    return [DeclareLaunchArgument("suite", default_value=robot.suites[0], choices=robot.suites, description=about)]


def embodiment_argument() -> DeclareLaunchArgument:
    """The YAML of a robot that is set up in another way than the shipped one."""
    return DeclareLaunchArgument(
        "embodiment_config",
        default_value="",
        description="YAML file of the robot, absolute or relative to the suite; empty: the one in config/embodiments "
        "for this robot and hardware",
    )


def policy_arguments(no_policy: str = "") -> list[DeclareLaunchArgument]:
    """What the start of policy_node depends on, wherever it runs."""
    return [
        DeclareLaunchArgument(
            "policy",
            default_value="tiny",
            description="Name of a shipped checkpoint (tiny), or path to a checkpoint"
            + (f"; {no_policy}" if no_policy else ""),
        ),
        DeclareLaunchArgument("device", default_value="cpu", description="Where the model runs: cpu, cuda, cuda:1 ..."),
        DeclareLaunchArgument(
            "blending",
            default_value="synchronous",
            choices=list(Blending),
            description="How chunks follow one another, for policy and robot alike: docs/explanation/blending.md",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of all nodes and topics"),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            choices=SWITCH,
            description="Configure and activate the managed nodes; false: by hand, with ros2 lifecycle set",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Least severity that is logged",
        ),
    ]


def ros_variables() -> list[SetEnvironmentVariable]:
    """What the nodes need beyond this process's environment: the DDS profile for images, library paths."""
    return [SetEnvironmentVariable(k, v) for k, v in ros_environment().items() if os.environ.get(k) != v]


def everything(robot: Robot, context: LaunchContext) -> GroupAction:
    """The robot that `hardware` chooses and the nodes of this suite, in one namespace and on one clock."""
    simulated_mock = value("hardware", context) == "mock" and not installed("controller_manager")
    config = embodiment_config(robot, context)
    return GroupAction(
        [
            PushRosNamespace(LaunchConfiguration("namespace")),
            SetParameter("use_sim_time", uses_simulated_time(context) or simulated_mock),
            *(mock_without_ros2_control(robot, config) if simulated_mock else hardware(robot, config, context)),
            *([policy_node(config)] if value("policy", context) != "none" else []),
            managed_node("executor_node", config, robot.executor_remappings(context), **text("blending")),
            node("qwen_vla_ros", "trajectory_visualizer", **described(config)),
            *([managed_node("episode_recorder", config)] if is_true("record", context) else []),
            *(rviz(robot) if is_true("rviz", context) else []),
        ]
    )


# Values of arguments --------------------------------------------------------------------------------------------------


def value(argument: str, context: LaunchContext) -> str:
    """Value of a launch argument in this start."""
    return LaunchConfiguration(argument).perform(context)


def is_true(argument: str, context: LaunchContext) -> bool:
    """Whether a switch is on."""
    return value(argument, context) == "true"


def uses_simulated_time(context: LaunchContext) -> bool:
    """`use_sim_time`, where auto means: as the hardware has it."""
    choice = value("use_sim_time", context)
    return value("hardware", context) in WITH_SIMULATED_TIME if choice == "auto" else choice == "true"


def embodiment_config(robot: Robot, context: LaunchContext) -> str:
    """The YAML that describes the robot as this hardware has it."""
    chosen = value("embodiment_config", context)
    variant = DESCRIBED_AS.get(value("hardware", context), value("hardware", context))
    return chosen or str(embodiment_file(robot.name, variant))


def installed(package: str) -> bool:
    """True when the ROS package is in the ament index."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def share(package: str, *path: str) -> PathJoinSubstitution:
    """Path of an installed file."""
    return PathJoinSubstitution([FindPackageShare(package), *path])


# Nodes ----------------------------------------------------------------------------------------------------------------


def node(package: str, executable: str, **parameters: object) -> Node:
    """A node that is named as its executable."""
    return Node(package=package, executable=executable, name=executable, parameters=[parameters], **_logging())


def managed_node(executable: str, config: str, remappings: Sequence[tuple[str, str]] = (), **parameters) -> Node:
    """A lifecycle node of this suite. It configures itself as soon as the robot's description is there."""
    autostart = ParameterValue(LaunchConfiguration("autostart"), value_type=bool)
    return LifecycleNode(
        package="qwen_vla_ros",
        executable=executable,
        name=executable,
        namespace="",
        parameters=[{"autostart": autostart, **described(config), **parameters}],
        remappings=list(remappings),
        sigterm_timeout=MANAGED_SIGTERM_TIMEOUT,
        **_logging(),
    )


def policy_node(config: str) -> Node:
    """The node that holds the model."""
    return managed_node("policy_node", config, **text("policy", "device", "blending"))


def text(*arguments: str) -> dict[str, ParameterValue]:
    """Parameters that are called as the launch arguments that give their values."""
    return {name: ParameterValue(LaunchConfiguration(name), value_type=str) for name in arguments}


def described(config: str) -> dict[str, str]:
    """The parameter that names the robot's YAML; without one a node finds it by the name in the URDF."""
    return {"embodiment_config": config} if config else {}


def rviz(robot: Robot) -> list[Node]:
    """RViz; its configuration names topics relative to the namespace."""
    file = share("qwen_vla_ros", "config", "rviz", f"{robot.name}.rviz")
    return [Node(package="rviz2", executable="rviz2", arguments=["-d", file], remappings=LOCAL_TRANSFORMS)]


def _logging() -> dict:
    return {"ros_arguments": ["--log-level", LaunchConfiguration("log_level")], "output": "screen"}


def end_with(what: str) -> Callable[[ProcessExited, LaunchContext], Shutdown | None]:
    """Handler for `on_exit`: without this process nothing is left to do. During a shutdown its exit is no news."""

    def handler(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
        return None if context.is_shutdown else Shutdown(reason=f"{what} ended")

    return handler


# Robots ---------------------------------------------------------------------------------------------------------------


def hardware(robot: Robot, config: str, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """What `hardware` chooses, with its transforms."""
    choice = value("hardware", context)
    if choice == "mujoco":  # transforms are for RViz only: do without them where the package is missing
        transforms = [state_publisher(robot, "mock")] if installed("robot_state_publisher") else []
        return [simulator(robot, **described(config)), *transforms]
    if choice == "gazebo":
        return [state_publisher(robot, choice), *gazebo(robot, context), controllers(robot, "joint_state_broadcaster")]
    if choice == "real":
        return [state_publisher(robot, choice), *robot.real(context)]
    return [
        state_publisher(robot, choice),
        controller_manager(robot),
        controllers(robot, "joint_state_broadcaster"),
    ]


def mock_without_ros2_control(robot: Robot, config: str) -> list[LaunchDescriptionEntity]:
    """The simulator without cameras in the place of mock hardware, and a word about it."""
    message = (
        "hardware:=mock: ros2_control is not installed, so the MuJoCo simulator answers on the controllers' topics, "
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
        executable=executable,
        name=executable,
        parameters=[{**scenes, **parameters}],
        on_exit=end_with("the simulator"),
        **_logging(),
    )


def description(robot: Robot, variant: str) -> ParameterValue:
    """Content of robot_description: the robot's xacro with its ros2_control block for a kind of hardware."""
    xacro = share("embodiment_descriptions", "urdf", robot.name, f"{robot.name}.urdf.xacro")
    command = [FindExecutable(name="xacro"), " ", xacro, f" hardware:={variant}"]
    if variant == "gazebo":
        command += [" controllers_file:=", controllers_file(robot)]
    return ParameterValue(Command(command), value_type=str)


def state_publisher(robot: Robot, variant: str) -> Node:
    """Publishes robot_description and the transforms of the joints."""
    return Node(
        package="robot_state_publisher",
        executable="robot_state_publisher",
        parameters=[{"robot_description": description(robot, variant)}],
        remappings=LOCAL_TRANSFORMS,
        **_logging(),
    )


def controllers_file(robot: Robot) -> PathJoinSubstitution:
    """Parameters of the controller manager and its controllers."""
    return share("qwen_vla_ros", "config", "controllers", f"{robot.name}.yaml")


def controller_manager(robot: Robot, **parameters: object) -> Node:
    """Runs the controllers, where no simulator does."""
    return Node(
        package="controller_manager",
        executable="ros2_control_node",
        parameters=[controllers_file(robot), parameters],
        # Controllers of Humble and Jazzy take the remappings of the process, later ones those of the spawner.
        remappings=[("~/robot_description", "robot_description"), *LOCAL_TRANSFORMS, *robot.controller_remappings],
        on_exit=end_with("the controller manager"),
        **_logging(),
    )


def controllers(robot: Robot, *more: str) -> Node:
    """Has the controller manager load and activate the robot's controllers; waits for it by itself."""
    rules = [*LOCAL_TRANSFORMS, *robot.controller_remappings]
    remappings = " ".join(f"-r {before}:={after}" for before, after in rules)
    return Node(
        package="controller_manager",
        executable="spawner",
        arguments=[
            *robot.controllers,
            *more,
            "--param-file",
            controllers_file(robot),
            *(["--controller-ros-args", remappings] if takes_controller_arguments() else []),
        ],
        **_logging(),
    )


def takes_controller_arguments() -> bool:
    """Whether this distribution's spawner knows --controller-ros-args; Humble's does not."""
    return os.environ.get("ROS_DISTRO") != "humble"


def gazebo(robot: Robot, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Gazebo with the robot's world, the robot in it, and the bridge for clock, cameras and odometry."""
    if value("namespace", context):
        raise ValueError(
            f"namespace:={value('namespace', context)} does not go with hardware:=gazebo: the controller manager in "
            "Gazebo and the topics of its sensors have no namespace; leave it out"
        )
    world = share("qwen_vla_ros", "config", "gazebo", f"{robot.name}.sdf")
    bridge = share("qwen_vla_ros", "config", "gazebo", f"{robot.name}_bridge.yaml")
    start = PythonLaunchDescriptionSource(share("ros_gz_sim", "launch", "gz_sim.launch.py"))
    return [
        IncludeLaunchDescription(
            start, launch_arguments={"gz_args": ["-r ", world], "on_exit_shutdown": "true"}.items()
        ),
        Node(
            package="ros_gz_sim",
            executable="create",
            arguments=["-topic", "robot_description", "-name", robot.name],
            **_logging(),
        ),
        Node(
            package="ros_gz_bridge",
            executable="parameter_bridge",
            name="gazebo_bridge",
            parameters=[{"config_file": bridge}],
            remappings=LOCAL_TRANSFORMS,
            on_exit=end_with("the bridge to Gazebo"),
            **_logging(),
        ),
    ]
