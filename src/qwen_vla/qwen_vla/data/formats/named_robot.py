"""A robot as recipes name it: by its name, by the path of its embodiment YAML, or by both of its files."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from embodiment_descriptions import Embodiment, load_robot, read_description
from qwen_vla.data.formats.spec import DataError


class RobotFiles(BaseModel):
    """The two files of a robot of the user's, where they do not lie side by side."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    urdf: Path = Field(description="expanded URDF")
    embodiment: Path = Field(description="what the URDF does not say, as config/embodiments/*.yaml")


NamedRobot = str | RobotFiles


def load(robot: NamedRobot) -> Embodiment:
    """The robot; DataError, EmbodimentError or ResourceError when there is none, or its files are wrong."""
    if isinstance(robot, str):
        return load_robot(robot)
    if not robot.urdf.is_file():
        raise DataError(f"{robot.urdf}: no such URDF (seen from {Path.cwd()})")
    return Embodiment.from_urdf(read_description(robot.urdf), robot.embodiment)
