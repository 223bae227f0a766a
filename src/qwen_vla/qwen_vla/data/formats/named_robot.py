# SPDX-License-Identifier: Apache-2.0
"""A robot in a recipe: by name, by the path of its embodiment YAML, or by both of its files."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from embodiment_descriptions import Embodiment, load_robot, read_robot
from qwen_vla.data.formats.spec import DataError


class RobotFiles(BaseModel):
    """The two files of a user's robot that are in different folders."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    urdf: Path = Field(description="URDF or xacro")
    embodiment: Path = Field(description="embodiment YAML, as in config/embodiments")


NamedRobot = str | RobotFiles


def load(robot: NamedRobot) -> Embodiment:
    """The robot; DataError, EmbodimentError or ResourceError if there is none, or its files are invalid."""
    if isinstance(robot, str):
        return load_robot(robot)
    if not robot.urdf.is_file():
        raise DataError(f"{robot.urdf}: no such URDF (relative to {Path.cwd()})")
    return read_robot(robot.urdf, robot.embodiment)
