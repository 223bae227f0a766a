"""Robot descriptions, and what is derived from them: embodiment, kinematics and prompt. Free of ROS and torch."""

from embodiment_descriptions.description import expand_xacro, robot_description
from embodiment_descriptions.errors import EmbodimentError, KinematicsError, ResourceError
from embodiment_descriptions.resources import known_robots, resource_path

__all__ = [
    "EmbodimentError",
    "KinematicsError",
    "ResourceError",
    "expand_xacro",
    "known_robots",
    "resource_path",
    "robot_description",
]
