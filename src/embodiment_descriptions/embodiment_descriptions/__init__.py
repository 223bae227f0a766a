# SPDX-License-Identifier: Apache-2.0
"""Robot descriptions and what is derived from them: embodiment, kinematics and prompt. Free of ROS and torch."""

from embodiment_descriptions.actions import ActionLayout, Channel, ChannelKind, ControlMode
from embodiment_descriptions.config import Arm, Base, Camera, EmbodimentConfig, Gripper
from embodiment_descriptions.deltas import delta_from_poses, pose_from_delta
from embodiment_descriptions.describe import describe
from embodiment_descriptions.description import expand_xacro, read_description, robot_description, xacro_arguments
from embodiment_descriptions.embodiment import Embodiment, JointLimit
from embodiment_descriptions.errors import EmbodimentError, KinematicsError, ResourceError
from embodiment_descriptions.kinematics import Kinematics
from embodiment_descriptions.prompt import build_prompt
from embodiment_descriptions.resources import known_robots, resource_path
from embodiment_descriptions.robots import description_of, embodiment_file, is_path, known_robot, load_robot, read_robot

__all__ = [
    "ActionLayout",
    "Arm",
    "Base",
    "Camera",
    "Channel",
    "ChannelKind",
    "ControlMode",
    "Embodiment",
    "EmbodimentConfig",
    "EmbodimentError",
    "Gripper",
    "JointLimit",
    "Kinematics",
    "KinematicsError",
    "ResourceError",
    "build_prompt",
    "delta_from_poses",
    "describe",
    "description_of",
    "embodiment_file",
    "expand_xacro",
    "is_path",
    "known_robot",
    "known_robots",
    "load_robot",
    "pose_from_delta",
    "read_description",
    "read_robot",
    "resource_path",
    "robot_description",
    "xacro_arguments",
]
