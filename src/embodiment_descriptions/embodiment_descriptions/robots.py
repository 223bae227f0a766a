# SPDX-License-Identifier: Apache-2.0
"""Robots by name or by the path of their embodiment YAML: resolves the files and loads the `Embodiment`.

The description of a YAML is the URDF or xacro beside it with the name of the file or of the robot in it, otherwise the
only one there; without one, the suite's description of the robot that the YAML names.
"""

from collections.abc import Mapping
from pathlib import Path

from embodiment_descriptions.config import load_config
from embodiment_descriptions.description import Hardware, read_description, robot_description, xacro_of
from embodiment_descriptions.embodiment import Embodiment
from embodiment_descriptions.errors import EmbodimentError, ResourceError
from embodiment_descriptions.resources import known_robots, resource_path

YAML = (".yaml", ".yml")
DESCRIPTIONS = (".urdf.xacro", ".urdf")
REMEDY = "for your own robot, give the path of its embodiment YAML (docs/how-to/describe_a_robot.md)"


def load_robot(robot: str | Path, hardware: Hardware = "mock") -> Embodiment:
    """Load a robot by its name, or by the path of its embodiment YAML.

    Args:
        robot: name of a robot of the suite, or path; see `embodiment_file`.
        hardware: selects the ros2_control plugin, and among the YAML files of a robot of the suite.

    Raises:
        EmbodimentError: unknown robot, no description for the YAML, or invalid files.
        ResourceError: the YAML is missing.
    """
    file = embodiment_file(robot, hardware)
    urdf = description_of(file, hardware)
    if urdf is None:
        raise EmbodimentError(
            f"{file}: no description of the robot {load_config(file).name!r} beside it; put its URDF or xacro "
            f"there as {file.stem}.urdf or {file.stem}.urdf.xacro"
        )
    return _derived(str(file), urdf, file)


def read_robot(
    description: str | Path, yaml: str | Path | None = None, arguments: Mapping[str, str] | None = None
) -> Embodiment:
    """Load a robot from the file of its description.

    Args:
        description: URDF or xacro.
        yaml: embodiment YAML; None guesses one.
        arguments: values of a xacro's <xacro:arg>.

    Raises:
        EmbodimentError: as `read_description` and `Embodiment.from_urdf`; names the files.
    """
    origin = f"{description} with {yaml}" if yaml else str(description)
    return _derived(origin, read_description(description, arguments), yaml)


def known_robot(name: str, hardware: Hardware = "mock") -> Embodiment:
    """Load a robot of the suite by name only: for names from files and messages.

    Raises:
        EmbodimentError: unknown robot; the message lists the known ones.
    """
    return Embodiment.from_urdf(robot_description(name, hardware), _file_of_suite(name, hardware))


def embodiment_file(robot: str | Path, hardware: str = "mock") -> Path:
    """Find the embodiment YAML of a robot.

    Args:
        robot: name of a robot of the suite: config/embodiments/<name>_<hardware>.yaml where there is one, else
            <name>.yaml. Or the path of a YAML: absolute, or relative to the working directory, or to the suite.
        hardware: the hardware of a robot of the suite.

    Raises:
        EmbodimentError: unknown robot, or not the path of a YAML.
        ResourceError: the file does not exist.
    """
    path = Path(robot).expanduser()
    if not is_path(robot) and (str(robot) in known_robots() or not path.exists()):
        return _file_of_suite(str(robot), hardware)
    if path.suffix not in YAML:
        raise EmbodimentError(f"{path} is not the path of an embodiment YAML; known robots: {_known()}; {REMEDY}")
    if path.is_dir():
        raise EmbodimentError(f"{path} is a folder; give the path of the embodiment YAML in it")
    if path.is_file():
        return path.resolve()
    try:
        return resource_path(path)
    except ResourceError as error:
        raise ResourceError(
            f"{path}: no such embodiment YAML (relative to {Path.cwd()}); known robots: {_known()}; {REMEDY}"
        ) from error


def is_path(robot: str | Path) -> bool:
    """Whether a robot was given as a path, not as a name."""
    path = Path(robot)
    return path.suffix in YAML or path.name.endswith(DESCRIPTIONS) or len(path.parts) > 1


def description_of(file: Path, hardware: Hardware = "mock", arguments: Mapping[str, str] | None = None) -> str | None:
    """URDF text of an embodiment YAML's robot; None without a description.

    Args:
        file: the YAML.
        hardware: value of the xacro argument of this name.
        arguments: values of other arguments; may override `hardware`.

    Raises:
        EmbodimentError: several descriptions beside it, or the only one cannot be read.
    """
    name = load_config(file).name
    beside = _beside(file, name)
    if beside is None and name not in known_robots():
        return None
    path, given = beside or xacro_of(name), dict(arguments or {})
    return read_description(path, {"hardware": hardware} | given if path.suffix == ".xacro" else given)


def _beside(file: Path, name: str) -> Path | None:
    found = sorted(path for path in file.parent.iterdir() if path.name.endswith(DESCRIPTIONS))
    for stem in (file.stem, name):
        same = [path for path in found if path.name in {stem + suffix for suffix in DESCRIPTIONS}]
        if same:
            break
    else:
        same = found
    if len(same) > 1:
        listed = ", ".join(path.name for path in same)
        raise EmbodimentError(
            f"{file}: several descriptions beside it ({listed}); rename the one that belongs to it to "
            f"{file.stem}.urdf or {file.stem}.urdf.xacro"
        )
    return same[0] if same else None


def _derived(origin: str, urdf: str, yaml: str | Path | None) -> Embodiment:
    try:
        return Embodiment.from_urdf(urdf, yaml)
    except EmbodimentError as error:
        raise EmbodimentError(f"{origin}: {error}") from error


def _file_of_suite(name: str, hardware: str) -> Path:
    if name not in known_robots():
        raise EmbodimentError(f"unknown robot {name!r}; known robots: {_known()}; {REMEDY}")
    try:
        return resource_path(f"config/embodiments/{name}_{hardware}.yaml")
    except ResourceError:
        return resource_path(f"config/embodiments/{name}.yaml")


def _known() -> str:
    return ", ".join(known_robots()) or "none"
