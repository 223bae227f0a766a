# SPDX-License-Identifier: Apache-2.0
"""The interface of a ROS node of the suite as data: parameters, topics, services, actions. Free of ROS.

A node declares its parameters and creates its topics from these tables; `--help`, the reference page of the nodes and
the tests are generated from the same tables.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any

TYPES = {bool: "bool", int: "integer", float: "double", str: "string"}  # ROS's names
WIDTHS = range(60, 101)  # [characters] of help texts
LONGEST_TEXT = 4096  # [characters] of a parameter's value


def type_name(kind: Any) -> str:
    """The full name of an interface class, for example "geometry_msgs/msg/Twist"; a name is returned unchanged."""
    if isinstance(kind, str):
        return kind
    package, group, *_ = kind.__module__.split(".")
    return f"{package}/{group}/{kind.__name__}"


@dataclass(frozen=True)
class Parameter:
    """A ROS parameter; the type is that of the default.

    Attributes:
        minimum, maximum: range of a number; ROS rejects values outside.
        read_only: can be set only at start.
        safety: the robot's safety depends on it: it can be set only while the node is unconfigured.
        choices: the allowed strings; empty: any.
    """

    name: str
    default: bool | int | float | str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    read_only: bool = False
    safety: bool = False
    choices: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """The ROS name of its type."""
        return TYPES[type(self.default)]

    @property
    def default_text(self) -> str:
        """The default as written on a command line."""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default) or "''"

    @property
    def constraints(self) -> list[str]:
        """Further constraints on a value, as text."""
        found = [f"one of: {self._choices_text}"] if self.choices else []
        if self.minimum is not None and self.maximum is not None:
            found.append(f"{_number(self.minimum)} to {_number(self.maximum)}")
        found += ["only while unconfigured"] if self.safety else []
        return found + (["only at start"] if self.read_only else [])

    def refusal(self, value: object) -> str:
        """Why a value is too long or not one of the choices; empty when it is allowed."""
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            return f"{self.name} has {len(value)} characters (limit {LONGEST_TEXT})"
        if not self.choices or value in self.choices:
            return ""
        return f"{self.name} '{value}' is not one of: {self._choices_text}"

    @property
    def _choices_text(self) -> str:
        return ", ".join(choice or "''" for choice in self.choices)

    def descriptor(self, messages: ModuleType) -> Any:
        """What `ros2 param describe` shows; `messages` is rcl_interfaces.msg, which this package does not import."""
        descriptor = messages.ParameterDescriptor(description=self.description, read_only=self.read_only)
        descriptor.additional_constraints = f"one of: {self._choices_text}" if self.choices else ""
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.default, int):
                limits = messages.IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum))
                descriptor.integer_range = [limits]
            else:
                limits = messages.FloatingPointRange(from_value=float(self.minimum), to_value=float(self.maximum))
                descriptor.floating_point_range = [limits]
        return descriptor


@dataclass(frozen=True)
class Endpoint:
    """A topic, service or action that a node offers or uses.

    Attributes:
        name: as the node requests it: relative, private (~/name) or absolute; {parameter}: the value of that parameter;
            in angle brackets: from the robot's YAML.
        kind: its class, or the full name of a type whose package may be missing; several where it depends.
        meaning: what it is for.
    """

    name: str
    kind: Any
    meaning: str

    @property
    def types(self) -> list[str]:
        """Full names, for example qwen_vla_msgs/msg/ActionChunk."""
        return [type_name(kind) for kind in (self.kind if isinstance(self.kind, tuple) else (self.kind,))]

    def name_for(self, parameters: Any) -> str:
        """The name with the parameters' values (attributes of `parameters`) filled in."""
        return self.name.format_map(_Attributes(parameters))


@dataclass(frozen=True)
class NodeInterface:
    """The whole interface of a node.

    Attributes:
        package, name: of the executable, which has the node's name.
        docstring: of its module; the first paragraph describes the node.
        managed: it is a lifecycle node.
        example: what follows --ros-args in an example command.
    """

    package: str
    name: str
    docstring: str | None
    parameters: tuple[Parameter, ...] = ()
    publishes: tuple[Endpoint, ...] = ()
    subscribes: tuple[Endpoint, ...] = ()
    services: tuple[Endpoint, ...] = ()
    actions: tuple[Endpoint, ...] = ()
    calls: tuple[Endpoint, ...] = ()
    managed: bool = False
    example: str = "-p use_sim_time:=true"

    @property
    def summary(self) -> str:
        """What the node does."""
        paragraph = " ".join((self.docstring or "").strip().split("\n\n")[0].split())
        text = paragraph.split(f"{self.name}`: ")[-1].split(f"{self.name}: ")[-1]
        return text[0].upper() + text[1:]

    @property
    def endpoints(self) -> dict[str, tuple[Endpoint, ...]]:
        """The endpoints, by what the node does with them."""
        kinds = {
            "publishes": self.publishes,
            "subscribes to": self.subscribes,
            "offers services": self.services,
            "offers actions": self.actions,
            "calls": self.calls,
        }
        return {title: found for title, found in kinds.items() if found}

    def default_name(self, endpoint: Endpoint) -> str:
        """The name of an endpoint with the parameters' defaults, and the parameters that change it."""
        if "{" not in endpoint.name:
            return endpoint.name
        used = [row for row in self.parameters if f"{{{row.name}}}" in endpoint.name]
        name = endpoint.name.format_map({row.name: row.default for row in used})
        return f"{name} ({', '.join(f'parameter {row.name}' for row in used)})"

    def help(self, width: int = WIDTHS[-1]) -> str:
        """What `--help` prints, in lines of `width` characters."""
        return "\n".join(self._lines(width))

    def _lines(self, width: int) -> Iterator[str]:
        yield f"usage: {self.name} [--help] [--version] [--ros-args -p NAME:=VALUE ... -r NAME:=NEW_NAME ...]"
        yield from ("", *textwrap.wrap(self.summary, width))
        if self.managed:
            steps = f"ros2 lifecycle set /{self.name} configure, then activate; or -p autostart:=true"
            yield from ("", *textwrap.wrap(f"It is a lifecycle node: {steps}.", width))
        yield from ("", "example:", f"  ros2 run {self.package} {self.name} --ros-args {self.example}")
        yield from ("", "parameters:")
        for row in self.parameters:
            facts = [row.type, f"default {row.default_text}", *row.constraints]
            yield from _entry(f"{row.name} ({', '.join(facts)})", row.description, width)
        for title, endpoints in self.endpoints.items():
            yield from ("", f"{title}:")
            for endpoint in endpoints:
                name = f"{self.default_name(endpoint)}  {' or '.join(endpoint.types)}"
                yield from _entry(name, endpoint.meaning, width)
        yield from ("", "Names in <> are those of the robot's YAML (config/embodiments).")


def answer_options(interface: NodeInterface, arguments: Sequence[str] | None = None) -> None:
    """Answer `--help` and `--version` of a node's executable and exit.

    Args:
        interface: of the node.
        arguments: without the executable's name; sys.argv by default. Those for ROS (`--ros-args ...`) are left to it.

    Raises:
        SystemExit: after an answer, and for an unknown argument.
    """
    own = list(_own_arguments(sys.argv[1:] if arguments is None else arguments))
    if {"-h", "--help"} & set(own):
        _print(interface.help(min(max(shutil.get_terminal_size().columns, WIDTHS[0]), WIDTHS[-1])))
        raise SystemExit(0)
    if "--version" in own:
        _print(f"{interface.name} {version(interface.package)}")
        raise SystemExit(0)
    if own:
        print(
            f"{interface.name}: unknown argument {own[0]!r}; parameters are given with --ros-args -p NAME:=VALUE, "
            f"see {interface.name} --help",
            file=sys.stderr,
        )
        raise SystemExit(2)


def _own_arguments(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments that are not for ROS, which owns everything between --ros-args and --."""
    for_ros = False
    for argument in arguments:
        if argument in ("--ros-args", "--"):
            for_ros = argument == "--ros-args"
        elif not for_ros:
            yield argument


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's flush at exit fails


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _entry(first: str, meaning: str, width: int) -> list[str]:
    lines = textwrap.wrap(first, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False)
    return lines + textwrap.wrap(meaning, width, initial_indent="      ", subsequent_indent="      ")


class _Attributes(dict):
    """Attributes of an object as a mapping."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __missing__(self, name: str) -> Any:
        return getattr(self._source, name)
