# SPDX-License-Identifier: Apache-2.0
"""Arguments shared by the launch files, and their values in one start."""

from __future__ import annotations

from launch import LaunchContext
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration

from qwen_vla_control.motion.blending import Blending

SWITCH = ["true", "false"]


def embodiment_argument() -> DeclareLaunchArgument:
    """The YAML of a robot whose setup differs from the shipped one."""
    return DeclareLaunchArgument(
        "embodiment_config",
        default_value="",
        description="Path of another embodiment YAML of the robot; empty: the one in config/embodiments for this robot "
        "and hardware",
    )


def policy_arguments(no_policy: str = "") -> list[DeclareLaunchArgument]:
    """Arguments of policy_node, wherever it runs."""
    return [
        DeclareLaunchArgument(
            "policy",
            default_value="tiny",
            description="Name of a shipped checkpoint (tiny), path to a checkpoint, or NAME://ADDRESS of a policy"
            + (f"; {no_policy}" if no_policy else ""),
        ),
        DeclareLaunchArgument("device", default_value="cpu", description="Where the model runs: cpu, cuda, cuda:1 ..."),
        DeclareLaunchArgument(
            "accelerate",
            default_value="auto",
            choices=["auto", "graphs", "compile", "off"],
            description="auto: compiled, in CUDA graphs, on a GPU; graphs: CUDA graphs only; compile: also on a CPU",
        ),
        DeclareLaunchArgument(
            "quantize",
            default_value="none",
            choices=["none", "fp8"],
            description="fp8: 8-bit weights; less memory, more rounding",
        ),
        DeclareLaunchArgument(
            "blending",
            default_value="synchronous",
            choices=[blending.value for blending in Blending],
            description="Transition between chunks, for both policy and executor: docs/explanation/blending.md",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of all nodes and topics"),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            choices=SWITCH,
            description="Configure and activate the managed nodes; false: manually, with ros2 lifecycle set",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Minimum severity that is logged",
        ),
    ]


def viewer_arguments() -> list[DeclareLaunchArgument]:
    """What is started in addition to the robot for visualization or recording."""
    return [
        DeclareLaunchArgument(
            "rviz", default_value="false", choices=SWITCH, description="Start RViz with the robot's configuration"
        ),
        DeclareLaunchArgument(
            "record",
            default_value="false",
            choices=SWITCH,
            description="Start episode_recorder, whose services start and end the recording of episodes",
        ),
    ]


def value(argument: str, context: LaunchContext) -> str:
    """Value of a launch argument in this start."""
    return LaunchConfiguration(argument).perform(context)


def is_true(argument: str, context: LaunchContext) -> bool:
    """Whether a switch is on."""
    return value(argument, context) == "true"
