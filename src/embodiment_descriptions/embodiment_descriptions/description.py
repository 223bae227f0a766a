"""Expanded URDF text of a robot, from its xacro and the hardware behind ros2_control."""

from pathlib import Path
from typing import Literal, get_args
from xml.dom import Node
from xml.parsers.expat import ExpatError

import xacro

from embodiment_descriptions.errors import EmbodimentError
from embodiment_descriptions.resources import known_robots, resource_path

Hardware = Literal["mock", "gazebo", "isaac", "real"]


def robot_description(name: str, hardware: Hardware = "mock", controllers_file: str | Path = "") -> str:
    """Expand the xacro of a robot.

    Args:
        name: a robot of this package, see known_robots().
        hardware: selects the ros2_control plugin.
        controllers_file: parameter file of the controller manager that Gazebo starts; others ignore it.

    Returns:
        URDF text without xacro elements, mesh files or package:// URIs.

    Raises:
        EmbodimentError: unknown robot or hardware, or the xacro does not expand.
    """
    known = known_robots()
    if name not in known:
        raise EmbodimentError(f"unknown robot {name!r}; known robots: {', '.join(known) or 'none'}")
    if hardware not in get_args(Hardware):
        raise EmbodimentError(f"unknown hardware {hardware!r}; choose one of {', '.join(get_args(Hardware))}")
    return expand_xacro(xacro_of(name), {"hardware": hardware, "controllers_file": str(controllers_file)})


def xacro_of(name: str) -> Path:
    """Find the xacro of a robot of this package."""
    return resource_path(f"urdf/{name}/{name}.urdf.xacro")


def expand_xacro(path: str | Path, arguments: dict[str, str] | None = None) -> str:
    """Expand one xacro file to URDF text.

    Args:
        path: the top-level file; its includes are resolved relative to it.
        arguments: values of its <xacro:arg>.

    Raises:
        EmbodimentError: the file is malformed or its evaluation failed.
    """
    try:
        document = xacro.process_file(str(path), mappings=dict(arguments or {}))
    except (xacro.XacroException, ExpatError, OSError) as error:
        raise EmbodimentError(f"cannot expand {path}: {_reason(error)}") from error
    # The comments before <robot> contain the path of the source file, which does not belong on a topic.
    for node in [n for n in document.childNodes if n.nodeType == Node.COMMENT_NODE]:
        document.removeChild(node)
    return document.toprettyxml(indent="  ")


def _reason(error: Exception) -> str:
    """What went wrong; an XacroException may have its message only in the exception that it wraps."""
    inner = getattr(error, "exc", None)
    parts = [str(part) for part in error.args if part] + ([str(inner)] if inner else [])
    return ": ".join(dict.fromkeys(parts)) or type(error).__name__
