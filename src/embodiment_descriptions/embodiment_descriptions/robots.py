"""A robot by its name, or by the path of its embodiment YAML: which files are meant, and the `Embodiment` of them.

A YAML is of the description that lies beside it: a URDF or xacro called as the file or as the robot in it, else the
only one there; where none lies there, of the suite's description of the robot that it names.
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
REMEDY = "a robot of your own is named by the path of its embodiment YAML (docs/how-to/describe_a_robot.md)"


def load_robot(robot: str | Path, hardware: Hardware = "mock") -> Embodiment:
    """Load a robot by its name, or by the path of its embodiment YAML.

    Args:
        robot: name of a robot of the suite, or path; see `embodiment_file`.
        hardware: chooses the ros2_control plugin, and among YAML files of a robot of the suite.

    Raises:
        EmbodimentError: no robot has that name, no description belongs to the YAML, or its files are wrong.
        ResourceError: the YAML is missing.
    """
    file = embodiment_file(robot, hardware)
    urdf = description_of(file, hardware)
    if urdf is None:
        raise EmbodimentError(
            f"{file}: no description of the robot {load_config(file).name!r} lies beside it; put its URDF or xacro "
            f"there as {file.stem}.urdf or {file.stem}.urdf.xacro"
        )
    return Embodiment.from_urdf(urdf, file)


def known_robot(name: str, hardware: Hardware = "mock") -> Embodiment:
    """Load a robot of the suite by its name alone: for names that come out of files and messages.

    Raises:
        EmbodimentError: unknown robot; names those that are known.
    """
    return Embodiment.from_urdf(robot_description(name, hardware), _file_of_suite(name, hardware))


def embodiment_file(robot: str | Path, hardware: str = "mock") -> Path:
    """Find the embodiment YAML of a robot.

    Args:
        robot: name of a robot of the suite: config/embodiments/<name>_<hardware>.yaml where there is one, else
            <name>.yaml. Or the path of a YAML: absolute, or relative to the working directory, or to the suite.
        hardware: what answers for a robot of the suite.

    Raises:
        EmbodimentError: no robot has that name, or the path is not one of a YAML.
        ResourceError: there is no such file.
    """
    if not is_path(robot):
        return _file_of_suite(str(robot), hardware)
    path = Path(robot).expanduser()
    if path.suffix not in YAML:
        raise EmbodimentError(f"{path} is not the path of an embodiment YAML; known robots: {_known()}; {REMEDY}")
    if path.is_file():
        return path.resolve()
    try:
        return resource_path(path)
    except ResourceError as error:
        raise ResourceError(
            f"{path}: there is no such embodiment YAML (seen from {Path.cwd()}); known robots: {_known()}; {REMEDY}"
        ) from error


def is_path(robot: str | Path) -> bool:
    """Whether a user's word for a robot is a path, and not a name."""
    path = Path(robot)
    return path.suffix in YAML or path.name.endswith(DESCRIPTIONS) or len(path.parts) > 1


def description_of(file: Path, hardware: Hardware = "mock", arguments: Mapping[str, str] | None = None) -> str | None:
    """URDF text of the robot that an embodiment YAML is of; None where there is no description of it.

    Args:
        file: the YAML.
        hardware: value of a xacro's argument of this name.
        arguments: values of others, or of that one.

    Raises:
        EmbodimentError: several descriptions lie beside it, or the one that does cannot be read.
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
            f"{file}: several descriptions lie beside it ({listed}); call the one that belongs to it "
            f"{file.stem}.urdf or {file.stem}.urdf.xacro"
        )
    return same[0] if same else None


def _file_of_suite(name: str, hardware: str) -> Path:
    if name not in known_robots():
        raise EmbodimentError(f"unknown robot {name!r}; known robots: {_known()}; {REMEDY}")
    try:
        return resource_path(f"config/embodiments/{name}_{hardware}.yaml")
    except ResourceError:
        return resource_path(f"config/embodiments/{name}.yaml")


def _known() -> str:
    return ", ".join(known_robots()) or "none"
