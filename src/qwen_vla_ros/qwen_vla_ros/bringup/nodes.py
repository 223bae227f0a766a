"""The processes of a running robot as launch actions, whatever robot it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, SomeSubstitutionsType
from launch.actions import SetEnvironmentVariable, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from qwen_vla_ros.bringup.arguments import is_true, value
from qwen_vla_ros.ros.environment import ros_environment

# Transforms stay inside the namespace, so that two robots in one graph do not mix theirs.
LOCAL_TRANSFORMS = [("/tf", "tf"), ("/tf_static", "tf_static")]
# [s] from SIGTERM to SIGKILL: they bring the robot to rest before they go; on a busy machine that takes its time.
MANAGED_SIGTERM_TIMEOUT = "15"


def suite_nodes(config: str, context: LaunchContext, executor_remappings: Sequence[tuple[str, str]] = ()) -> list[Node]:
    """The nodes of this suite that a start asks for: policy, executor, visualizer, recorder."""
    return [
        *([policy_node(config)] if value("policy", context) != "none" else []),
        managed_node("executor_node", config, executor_remappings, **text("blending")),
        node("qwen_vla_ros", "trajectory_visualizer", **described(config)),
        *([managed_node("episode_recorder", config)] if is_true("record", context) else []),
    ]


def node(package: str, executable: str, **parameters: object) -> Node:
    """A node that is named as its executable."""
    return Node(package=package, executable=executable, name=executable, parameters=[parameters], **logging())


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
        **logging(),
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


def logging() -> dict:
    return {"ros_arguments": ["--log-level", LaunchConfiguration("log_level")], "output": "screen"}


def end_with(what: str) -> Callable[[ProcessExited, LaunchContext], Shutdown | None]:
    """Handler for `on_exit`: without this process nothing is left to do. During a shutdown its exit is no news."""

    def handler(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
        return None if context.is_shutdown else Shutdown(reason=f"{what} ended")

    return handler


def rviz(file: SomeSubstitutionsType, fixed_frame: str = "") -> Node:
    """RViz; its configuration names topics relative to the namespace."""
    frame = ["-f", fixed_frame] if fixed_frame else []
    return Node(package="rviz2", executable="rviz2", arguments=["-d", file, *frame], remappings=LOCAL_TRANSFORMS)


def state_publisher(description: ParameterValue | str) -> Node:
    """Publishes robot_description and the transforms of the joints."""
    return Node(
        package="robot_state_publisher",
        executable="robot_state_publisher",
        parameters=[{"robot_description": description}],
        remappings=LOCAL_TRANSFORMS,
        **logging(),
    )


def controller_manager(
    file: SomeSubstitutionsType, remappings: Sequence[tuple[str, str]] = (), **parameters: object
) -> Node:
    """Runs the controllers, where no simulator does. file: parameters of the manager and its controllers."""
    return Node(
        package="controller_manager",
        executable="ros2_control_node",
        parameters=[file, parameters],
        # Controllers of Humble and Jazzy take the remappings of the process, later ones those of the spawner.
        remappings=[("~/robot_description", "robot_description"), *LOCAL_TRANSFORMS, *remappings],
        on_exit=end_with("the controller manager"),
        **logging(),
    )


def spawner(
    controllers: Sequence[str], file: SomeSubstitutionsType, remappings: Sequence[tuple[str, str]] = ()
) -> Node:
    """Has the controller manager load and activate controllers; waits for it by itself."""
    rules = " ".join(f"-r {before}:={after}" for before, after in [*LOCAL_TRANSFORMS, *remappings])
    return Node(
        package="controller_manager",
        executable="spawner",
        arguments=[
            *controllers,
            "--param-file",
            file,
            *(["--controller-ros-args", rules] if takes_controller_arguments() else []),
        ],
        **logging(),
    )


def takes_controller_arguments() -> bool:
    """Whether this distribution's spawner knows --controller-ros-args; Humble's does not."""
    return os.environ.get("ROS_DISTRO") != "humble"


def ros_variables() -> list[SetEnvironmentVariable]:
    """What the nodes need beyond this process's environment: the DDS profile for images, library paths."""
    return [SetEnvironmentVariable(k, v) for k, v in ros_environment().items() if os.environ.get(k) != v]


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
