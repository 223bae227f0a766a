# SPDX-License-Identifier: Apache-2.0
"""Source of a node's Embodiment: robot_description and the robot's YAML file. Free of rclpy."""

from __future__ import annotations

from xml.etree import ElementTree

from embodiment_descriptions import Embodiment, EmbodimentError, embodiment_file, is_path


def read_embodiment(urdf: str, config: str) -> Embodiment:
    """Derive the embodiment of a running robot.

    Args:
        urdf: content of robot_description.
        config: the robot, see `embodiment_descriptions.embodiment_file`: its name, or the path of its YAML; if empty,
        the name in the URDF. Nothing is inferred from the URDF.

    Raises:
        EmbodimentError, ResourceError: the text or the file is missing or invalid.
    """
    return Embodiment.from_urdf(urdf, embodiment_file(config or _robot_name(urdf)))


def _robot_name(urdf: str) -> str:
    try:
        name = ElementTree.fromstring(urdf).get("name")
    except ElementTree.ParseError as error:
        raise EmbodimentError(f"robot_description is not XML: {error}") from error
    if not name or is_path(name):
        raise EmbodimentError(f"the robot in robot_description is named {name!r}; set the parameter embodiment_config")
    return name
