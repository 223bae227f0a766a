"""Finding the robot that a command names."""

from __future__ import annotations

from pathlib import Path

from embodiment_descriptions import Embodiment, load_robot
from embodiment_descriptions.description import Hardware


def find_robot(robot: str, config: Path | None, hardware: Hardware) -> Embodiment:
    """A robot of the suite by its name, or one of the user's by the path of its YAML or URDF.

    Raises:
        FileNotFoundError: there is no such URDF.
        ValueError: an embodiment YAML beside what brings its own, or a description that is wrong.
    """
    path = Path(robot).expanduser()
    if path.suffix not in (".urdf", ".xml"):
        if config:
            raise ValueError(f"--config goes with the path of a URDF; {robot!r} brings its own configuration")
        return load_robot(robot, hardware)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such URDF (seen from {Path.cwd()})")
    return Embodiment.from_urdf(path.read_text(encoding="utf-8"), config)
