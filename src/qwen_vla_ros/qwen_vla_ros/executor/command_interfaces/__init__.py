# SPDX-License-Identifier: Apache-2.0
"""How robots are commanded: one small class per command interface, named by `ros_side` of its kind."""

from qwen_vla_ros.executor.command_interfaces.command_interface import (
    Backend,
    Capabilities,
    CommandedRobot,
    Path,
    Publishing,
)
from qwen_vla_ros.executor.command_interfaces.robot_commands import CommandInterfaces, make_backend
from qwen_vla_ros.executor.command_interfaces.setpoints import Setpoints

__all__ = [
    "Backend",
    "Capabilities",
    "CommandInterfaces",
    "CommandedRobot",
    "Path",
    "Publishing",
    "Setpoints",
    "make_backend",
]
