# SPDX-License-Identifier: Apache-2.0
"""The topics and actions required by a robot's YAML. Free of ROS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from embodiment_descriptions import Camera, EmbodimentConfig
from qwen_vla_ros.ros.names import resolve

DESCRIPTION, DIAGNOSTICS, CLOCK = "robot_description", "/diagnostics", "/clock"
POLICY, EXECUTOR, CONTROLLER_MANAGER = "policy_node", "executor_node", "controller_manager"
EMERGENCY_STOP = "estop"
HEARTBEAT, ANNOUNCEMENT = f"{POLICY}/heartbeat", f"{POLICY}/embodiment"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
JOINT_STATE, CAMERA_INFO, ODOMETRY = (
    "sensor_msgs/msg/JointState",
    "sensor_msgs/msg/CameraInfo",
    "nav_msgs/msg/Odometry",
)


class Role(Enum):
    """The suite's role at a topic, which determines the quality of service."""

    STREAM = "subscribes as sensor data, best effort"
    LATCHED = "subscribes reliably, including previous messages"
    RELIABLE = "subscribes reliably"
    ANYHOW = "subscribes with whatever the publisher offers"
    COMMAND = "publishes there, reliably"


@dataclass(frozen=True)
class Watch:
    """A topic to observe: full name, types that the suite supports, and the suite's own role there."""

    topic: str
    types: tuple[str, ...]
    role: Role


def image_types(camera: Camera) -> tuple[str, ...]:
    """Return the type of a camera's topic."""
    return (COMPRESSED,) if camera.transport == "compressed" else (IMAGE,)


def watches(config: EmbodimentConfig, namespace: str) -> Iterator[Watch]:
    """All topics relevant to a robot."""

    def watch(name: str, types: tuple[str, ...], role: Role) -> Watch:
        return Watch(resolve(namespace, name), types, role)

    yield watch(CLOCK, ("rosgraph_msgs/msg/Clock",), Role.STREAM)
    yield watch(DIAGNOSTICS, ("diagnostic_msgs/msg/DiagnosticArray",), Role.RELIABLE)
    yield watch(DESCRIPTION, ("std_msgs/msg/String",), Role.LATCHED)
    yield watch(HEARTBEAT, ("std_msgs/msg/Header",), Role.RELIABLE)
    yield watch(ANNOUNCEMENT, ("qwen_vla_msgs/msg/Embodiment",), Role.LATCHED)
    yield watch(EMERGENCY_STOP, ("std_msgs/msg/Bool",), Role.ANYHOW)
    for source in config.joint_states:
        yield watch(source.topic, (JOINT_STATE,), Role.STREAM)
    if config.odometry is not None:
        yield watch(config.odometry.topic, (ODOMETRY,), Role.STREAM)
    for camera in config.cameras:
        yield watch(camera.image_topic, image_types(camera), Role.STREAM)
        yield watch(camera.info_topic, (CAMERA_INFO,), Role.STREAM)
    for command in config.commands:
        if not command.is_action:
            yield watch(command.endpoint, command.types, Role.COMMAND)
