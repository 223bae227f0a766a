"""How robots are commanded: one small class per command interface, chosen by the `commands` of the robot's YAML."""

from qwen_vla_ros.executor.command_interfaces.command_interface import Backend, Capabilities, Path
from qwen_vla_ros.executor.command_interfaces.robot_commands import CommandInterfaces, make_backend

__all__ = ["Backend", "Capabilities", "CommandInterfaces", "Path", "make_backend"]
