"""Where a node's Embodiment comes from: the robot description on the graph and the robot's YAML file. Free of rclpy."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from embodiment_descriptions import Embodiment, EmbodimentError, resource_path


def read_embodiment(urdf: str, config: str) -> Embodiment:
    """Derive the embodiment of a running robot.

    Args:
        urdf: content of robot_description.
        config: YAML file: absolute, relative to the working directory, or relative to the suite; empty means
            config/embodiments/<name of the robot in the URDF>.yaml of the suite. Nothing is guessed from the URDF.

    Raises:
        EmbodimentError, ResourceError: the text or the file is missing or wrong.
    """
    if config:
        path = Path(config).expanduser()
        return Embodiment.from_urdf(urdf, path if path.is_file() else resource_path(config))
    return Embodiment.from_urdf(urdf, resource_path(f"config/embodiments/{_robot_name(urdf)}.yaml"))


def _robot_name(urdf: str) -> str:
    try:
        name = ElementTree.fromstring(urdf).get("name")
    except ElementTree.ParseError as error:
        raise EmbodimentError(f"robot_description is not XML: {error}") from error
    if not name or "/" in name:
        raise EmbodimentError(f"the robot in robot_description is named {name!r}; set the parameter embodiment_config")
    return name
