# SPDX-License-Identifier: Apache-2.0
"""The processes of any running robot as launch actions."""

from __future__ import annotations

import os
from collections.abc import Sequence

from launch import LaunchContext, LaunchDescriptionEntity, SomeSubstitutionsType
from launch.actions import SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from qwen_vla_ros.bringup.arguments import is_true, value
from qwen_vla_ros.bringup.ending import end_with, last, with_launch
from qwen_vla_ros.ros.environment import ros_environment, without_shared_memory

# Transforms stay inside the namespace, so that those of two robots in one graph are not mixed.
LOCAL_TRANSFORMS = [("/tf", "tf"), ("/tf_static", "tf_static")]
# [s] from SIGTERM to SIGKILL: they bring the robot to rest before they exit, which takes longer on a busy machine.
MANAGED_SIGTERM_TIMEOUT = "15"


def suite_nodes(
    config: str,
    context: LaunchContext,
    robot: Sequence[LaunchDescriptionEntity] = (),
    executor_remappings: Sequence[tuple[str, str]] = (),
) -> list[LaunchDescriptionEntity]:
    """The requested nodes of this suite: policy, executor, visualizer, recorder.

    Args:
        config: the robot's YAML.
        context: of this start.
        robot: actions started for the robot; its processes `of_robot` are ended after the executor has exited.
        executor_remappings: of the executor's topics.
    """
    executor = managed_node(
        "executor_node", config, executor_remappings, on_exit=end_with("executor_node"), **text("blending")
    )
    return [
        *([policy_node(config)] if value("policy", context) != "none" else []),
        executor,
        node("qwen_vla_ros", "trajectory_visualizer", **described(config)),
        *([managed_node("episode_recorder", config)] if is_true("record", context) else []),
        *last([process for process in robot if isinstance(process, RobotProcess)], executor),
    ]


class RobotProcess(Node):
    """A process needed to bring the robot to rest: in its own process group, it ends after the executor."""

    def __init__(self, executable: str, **options) -> None:
        super().__init__(
            executable=executable,
            exec_name=executable,
            prefix=with_launch(own_group=True),
            sigterm_timeout=MANAGED_SIGTERM_TIMEOUT,
            additional_env=udp_only(),
            **logging(),
            **options,
        )


def node(package: str, executable: str, **parameters: object) -> Node:
    """A node with the name of its executable."""
    return Node(package=package, name=executable, parameters=[parameters], **process(executable))


def managed_node(
    executable: str, config: str, remappings: Sequence[tuple[str, str]] = (), on_exit=None, **parameters
) -> Node:
    """A lifecycle node of this suite. It configures itself as soon as robot_description is available."""
    autostart = ParameterValue(LaunchConfiguration("autostart"), value_type=bool)
    return LifecycleNode(
        package="qwen_vla_ros",
        name=executable,
        namespace="",
        parameters=[{"autostart": autostart, **described(config), **parameters}],
        remappings=list(remappings),
        sigterm_timeout=MANAGED_SIGTERM_TIMEOUT,
        on_exit=on_exit,
        **process(executable),
    )


def policy_node(config: str) -> Node:
    """The node with the model."""
    return managed_node("policy_node", config, **text("policy", "device", "accelerate", "quantize", "blending"))


def text(*arguments: str) -> dict[str, ParameterValue]:
    """Parameters with the names of the launch arguments that provide their values."""
    return {name: ParameterValue(LaunchConfiguration(name), value_type=str) for name in arguments}


def described(config: str) -> dict[str, str]:
    """The parameter with the path of the robot's YAML; without it, a node finds the YAML by the name in the URDF."""
    return {"embodiment_config": config} if config else {}


def logging() -> dict:
    return {"ros_arguments": ["--log-level", LaunchConfiguration("log_level")], "output": "screen"}


def process(executable: str) -> dict:
    """Common options of all processes except the robot's own; in the log they have their executables' names."""
    return {**logging(), "executable": executable, "exec_name": executable, "prefix": with_launch()}


def rviz(file: SomeSubstitutionsType, fixed_frame: str = "") -> Node:
    """RViz; its configuration names topics relative to the namespace."""
    frame = ["-f", fixed_frame] if fixed_frame else []
    return Node(
        package="rviz2",
        executable="rviz2",
        exec_name="rviz2",
        arguments=["-d", file, *frame],
        remappings=LOCAL_TRANSFORMS,
        prefix=with_launch(),
    )


def state_publisher(description: ParameterValue) -> Node:
    """Publish robot_description and the transforms of the joints."""
    return Node(
        package="robot_state_publisher",
        parameters=[{"robot_description": description}],
        remappings=LOCAL_TRANSFORMS,
        additional_env=udp_only(),
        **process("robot_state_publisher"),
    )


def controller_manager(files: Sequence[SomeSubstitutionsType]) -> Node:
    """Run the controllers, where no simulator does. files: parameters of the manager; later ones override earlier ones.

    Topics of the controllers are remapped by their spawner; the manager's own need no rule, and would pass it on.
    """
    return RobotProcess(
        package="controller_manager",
        executable="ros2_control_node",
        parameters=list(files),
        on_exit=end_with("the controller manager"),
    )


def spawner(
    controllers: Sequence[str], file: SomeSubstitutionsType, remappings: Sequence[tuple[str, str]] = ()
) -> Node:
    """Have the controller manager load and activate controllers; it waits for the manager."""
    rules = " ".join(f"-r {before}:={after}" for before, after in [*LOCAL_TRANSFORMS, *remappings])
    return Node(
        package="controller_manager",
        arguments=[*controllers, "--param-file", file, "--controller-ros-args", rules],
        on_exit=end_with("the spawner of the controllers", only_failed=True),
        **process("spawner"),
    )


def ros_variables() -> list[SetEnvironmentVariable]:
    """Additions to this process's environment for the nodes: the DDS profile for images, library paths."""
    return [SetEnvironmentVariable(k, v) for k, v in ros_environment().items() if os.environ.get(k) != v]


def udp_only() -> dict[str, str]:
    """Changes to that environment for the robot's own processes, which others' deaths must not hold up."""
    environment = ros_environment()
    return dict(without_shared_memory(environment).items() - environment.items())


def share(package: str, *path: str) -> PathJoinSubstitution:
    """Path of an installed file."""
    return PathJoinSubstitution([FindPackageShare(package), *path])
