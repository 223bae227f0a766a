"""Finding the robot that a command names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embodiment_descriptions import Embodiment, load_robot, read_description
from embodiment_descriptions import xacro_arguments as parse_arguments
from embodiment_descriptions.description import Hardware


def find_robot(robot: str, config: Path | None, hardware: Hardware, xacro_arguments: Sequence[str] = ()) -> Embodiment:
    """A robot of the suite by its name, or one of the user's by the path of its YAML, URDF or xacro.

    Args:
        robot: the name, or the path.
        config: embodiment YAML of a URDF.
        hardware: what answers for a robot of the suite.
        xacro_arguments: name:=value each, of a xacro.

    Raises:
        FileNotFoundError: there is no such URDF.
        ValueError: an embodiment YAML or arguments beside what brings its own, or a description that is wrong.
    """
    path = Path(robot).expanduser()
    if path.suffix in (".urdf", ".xml", ".xacro"):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such URDF (seen from {Path.cwd()})")
        return Embodiment.from_urdf(read_description(path, parse_arguments(xacro_arguments)), config)
    if config or xacro_arguments:
        given = "--config" if config else "--arguments"
        raise ValueError(f"{given} goes with the path of a URDF; {robot!r} brings its own configuration")
    return load_robot(robot, hardware)
