"""How robots are commanded: one small class per command interface, chosen by the `commands` of the robot's YAML."""

from qwen_vla_ros.backends.backend import Backend, Capabilities, Path
from qwen_vla_ros.backends.command_interfaces import CommandInterfaces, make_backend

__all__ = ["Backend", "Capabilities", "CommandInterfaces", "Path", "make_backend"]
