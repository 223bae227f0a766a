# SPDX-License-Identifier: Apache-2.0
"""Finds the robot that a command names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embodiment_descriptions import Embodiment, load_robot, read_robot
from embodiment_descriptions import xacro_arguments as parse_arguments
from embodiment_descriptions.description import Hardware


def find_robot(robot: str, config: Path | None, hardware: Hardware, xacro_arguments: Sequence[str] = ()) -> Embodiment:
    """A robot of the suite by name, or a user's robot by the path of its YAML, URDF or xacro.

    Args:
        robot: name or path.
        config: embodiment YAML for a URDF.
        hardware: hardware or simulator of a robot of the suite.
        xacro_arguments: of a xacro, each name:=value.

    Raises:
        FileNotFoundError: there is no such URDF.
        ValueError: an embodiment YAML or arguments for a robot that has its own, or an invalid description.
    """
    path = Path(robot).expanduser()
    if path.suffix in (".urdf", ".xml", ".xacro"):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such URDF (relative to {Path.cwd()})")
        return read_robot(path, config, parse_arguments(xacro_arguments))
    if config or xacro_arguments:
        given = "--config" if config else "--arguments"
        raise ValueError(f"{given} requires the path of a URDF; {robot!r} has its own configuration")
    return load_robot(robot, hardware)
