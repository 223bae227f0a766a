# SPDX-License-Identifier: Apache-2.0
"""URDF text of a robot: from the file of a URDF, or from a xacro and what it is to be expanded for."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, cast, get_args
from xml.dom import Node, minidom
from xml.parsers.expat import ExpatError

import xacro

from embodiment_descriptions.errors import EmbodimentError
from embodiment_descriptions.resources import known_robots, resource_path

ALWAYS_GIVEN = {"hardware", "controllers_file"}  # to every xacro, whether it takes them or not
Hardware = Literal["mock", "gazebo", "isaac", "real"]
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_DECLARATION = re.compile(r"\s*<\?xml\s[^>]*\?>")
_ENCODING = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.-]+)""")

# By what a xacro evaluates, and by files that are not UTF-8 (ValueError).
RAISED_BY_EXPRESSIONS = (OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)


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


def read_description(path: str | Path, arguments: Mapping[str, str] | None = None) -> str:
    """Read URDF text from a file, whatever encoding its XML declares; a .xacro is expanded.

    Args:
        path: of a URDF or a xacro.
        arguments: values of a xacro's <xacro:arg>.

    Raises:
        EmbodimentError: the file cannot be read or expanded, or there are arguments and it is no xacro.
    """
    path = Path(path)
    if path.suffix == ".xacro":
        return expand_xacro(path, dict(arguments or {}))
    if arguments:
        raise EmbodimentError(f"{path} takes no arguments ({', '.join(arguments)}): it is not a .xacro")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EmbodimentError(f"cannot read {path}: {error.strerror}") from error
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except (UnicodeError, LookupError) as error:
        raise EmbodimentError(
            f"{path} is not written in the encoding that its first line tells, {encoding}: {error}; "
            "save it as UTF-8, or declare its own"
        ) from error
    return text if encoding.upper().startswith("UTF-8") else _DECLARATION.sub("", text, count=1)  # no longer true


def _encoding(data: bytes) -> str:
    """Encoding of a file: what its first bytes tell counts more than what its XML declares; otherwise UTF-8."""
    declared = _ENCODING.match(data)
    if data.startswith(_UTF_16):
        return "UTF-16"
    return "UTF-8-SIG" if declared is None else declared[1].decode()


def xacro_arguments(words: Iterable[str]) -> dict[str, str]:
    """Arguments as `xacro` takes them, name:=value each; EmbodimentError for anything else."""
    pairs = [word.partition(":=") for word in words]
    wrong = [name + sign + given for name, sign, given in pairs if not (name and sign)]
    if wrong:
        raise EmbodimentError(f"xacro arguments: {wrong[0]!r} is not of the form name:=value")
    return {name: given for name, _, given in pairs}


def expand_xacro(path: str | Path, arguments: dict[str, str] | None = None) -> str:
    """Expand one xacro file to URDF text.

    Args:
        path: the top-level file; its includes are resolved relative to it.
        arguments: values of its <xacro:arg>.

    Raises:
        EmbodimentError: the file is malformed or its evaluation failed.
    """
    given = _Arguments(arguments or {})
    try:
        document = cast(minidom.Document, xacro.process_file(str(path), mappings=given))
    except (xacro.XacroException, ExpatError, *RAISED_BY_EXPRESSIONS) as error:
        raise EmbodimentError(f"cannot expand {path}: {_reason(error)}{_remedy(error)}") from error
    unknown = [name for name in arguments or {} if name not in given.asked | ALWAYS_GIVEN]
    if unknown:
        known = sorted(given.asked - ALWAYS_GIVEN)
        raise EmbodimentError(f"{path} takes no argument {unknown[0]!r}; it takes: {', '.join(known) or 'none'}")
    # The comments before <robot> carry the path of the source file, which has no place on a topic.
    for node in [n for n in document.childNodes if n.nodeType == Node.COMMENT_NODE]:
        document.removeChild(node)
    return document.toprettyxml(indent="  ")


class _Arguments(dict[str, str]):
    """Arguments of a xacro that remember which ones it asks for; it ignores others, and so a typing error."""

    def __init__(self, given: Mapping[str, str]) -> None:
        super().__init__(given)
        self.asked: set[str] = set()

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return super().__contains__(name)


def _reason(error: Exception) -> str:
    """What went wrong; an XacroException may have its message only in the exception that it wraps."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, UnicodeError):  # of which the arguments are the whole file
        return str(error)
    inner = getattr(error, "exc", None)
    if isinstance(inner, OSError):
        return _reason(inner)
    parts = [str(part) for part in error.args if part and str(inner) not in str(part)] + ([str(inner)] if inner else [])
    return ": ".join(dict.fromkeys(parts)) or type(error).__name__


def _remedy(error: Exception) -> str:
    text = _reason(error)
    no_packages = ("AMENT_PREFIX_PATH", "not found, searching", "No module named 'ament_index_python'")
    if any(said in text for said in no_packages):
        return "; source the ROS workspace that holds the package, or expand it there: xacro FILE > my_robot.urdf"
    if isinstance(error, UnicodeError):
        return "; save it as UTF-8"
    undefined = re.match(r"Undefined substitution argument:? (\S+)", text)
    return f"; give it a value: {undefined[1]}:=..." if undefined else ""
