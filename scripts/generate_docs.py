# SPDX-License-Identifier: Apache-2.0
"""Generates documentation from the code; ``--check`` only reports whether it is up to date.

docs/reference/configuration.md: every field of the model's configuration, the recipes and their data.
docs/reference/embodiment.md: every field of the YAML that describes a robot.
docs/reference/nodes.md: the interface of every node: parameters, topics, services, actions.
docs/reference/commands.md: every command of qwen-vla with its options.
docs/reference/interfaces.md: messages, services and actions.
docs/explanation/model.md: the table of sizes between its two markers.
docs/results.md: the tables between markers, from the files in docs/results.
README.md: the sentence about success between its two markers, from the same files.
checkpoints/<benchmark>/README.md: the table of results between its two markers, from the same files.

    .venv/bin/python scripts/generate_docs.py
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import itertools
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import command_pages
import results_page
from pydantic import BaseModel

from embodiment_descriptions import EmbodimentConfig
from embodiment_descriptions.commands import KINDS, CommandInterface
from qwen_vla.benchmark import parameter_table
from qwen_vla.model.configuration import ActionExpertConfig, QwenVLAConfig
from qwen_vla.training.recipe import Recipe
from qwen_vla_control.node_interface import NodeInterface
from qwen_vla_ros.drawing import trajectory_visualizer
from qwen_vla_ros.executor import executor_parameters
from qwen_vla_ros.policy import policy_node
from qwen_vla_ros.recording import episode_recorder
from qwen_vla_sim.aloha.node import AlohaSim
from qwen_vla_sim.mobile_base.node import MobileBaseSim
from qwen_vla_sim.widowx.node import WidowXSim

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ROOT / "docs/reference/configuration.md"
EMBODIMENT = ROOT / "docs/reference/embodiment.md"
NODES = ROOT / "docs/reference/nodes.md"
COMMANDS = ROOT / "docs/reference/commands.md"
INTERFACES = ROOT / "docs/reference/interfaces.md"
MODEL = ROOT / "docs/explanation/model.md"
RESULTS = ROOT / "docs/results.md"
README = ROOT / "README.md"
CHECKPOINTS = ROOT / "checkpoints"
NODE_INTERFACES = (
    *(policy_node.INTERFACE, executor_parameters.INTERFACE, trajectory_visualizer.INTERFACE),
    *(episode_recorder.INTERFACE, WidowXSim.interface(), AlohaSim.interface(), MobileBaseSim.interface()),
)
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "length ≥", "max_length": "length ≤"}
HEADER = """# Configuration

Generated from the code by `scripts/generate_docs.py`; edit the docstrings there, not this file.

A model's fields are in its `config.json` (`QwenVLAConfig`); a recipe (`config/training/*.yaml`) may set them under
`model`. Everything else of a training run is in the recipe (`Recipe`). Fields without a default must be given.
"""

EMBODIMENT_HEADER = """# Embodiment

Generated from the code by `scripts/generate_docs.py`; edit the docstrings there, not this file.

`config/embodiments/<robot>.yaml` has the data that a robot's URDF lacks. `<robot>_<hardware>.yaml`, if it
exists, replaces it for that hardware; it may start with `extends: <robot>.yaml` and then have only the differences,
each key as a whole. Unknown keys, names missing in the URDF and values outside its limits are errors that name the
place. `qwen-vla describe <robot>` shows the result.
"""

NODES_HEADER = """# Nodes

Generated from the code by `scripts/generate_docs.py`; edit the tables there, not this file. `<node> --help` prints the
same. Parameters are set at start (`--ros-args -p NAME:=VALUE`, or a launch argument) or while the node runs (`ros2
param set`), except for those marked "only at start" and, from configuring to cleaning up, "only while unconfigured":
the robot's safety depends on these. Names in <> are those of the robot's YAML (config/embodiments).
"""


class Row(NamedTuple):
    name: str
    type: str
    default: str
    meaning: str


def main() -> int:
    stale = [(path, text) for path, text in pages() if not path.is_file() or path.read_text() != text]
    for path, text in stale:
        if not check():
            path.write_text(text)
        print(f"{path.relative_to(ROOT)} {'is out of date: run scripts/generate_docs.py' if check() else 'written'}")
    return int(bool(stale) and check())


def pages() -> tuple[tuple[Path, str], ...]:
    """Every page that is generated, or has a generated part, as it should be."""
    return (
        (CONFIGURATION, configuration_page()),
        (EMBODIMENT, embodiment_page()),
        (NODES, nodes_page()),
        (COMMANDS, command_pages.commands_page()),
        (INTERFACES, command_pages.interfaces_page()),
        (MODEL, with_sizes(MODEL.read_text())),
        (RESULTS, results_page.with_results(RESULTS.read_text())),
        (README, results_page.with_success(README.read_text())),
        *_cards(),
    )


def _cards() -> Iterator[tuple[Path, str]]:
    for benchmark in results_page.BENCHMARKS.values():
        card = CHECKPOINTS / benchmark.name / "README.md"
        yield card, results_page.with_figures(card.read_text(), benchmark)


def check() -> bool:
    return "--check" in sys.argv


def configuration_page() -> str:
    """The whole of docs/reference/configuration.md."""
    parts = [HEADER]
    for cls in (QwenVLAConfig, ActionExpertConfig):
        rows = [_dataclass_row(cls, field) for field in dataclasses.fields(cls) if field.name in cls.__annotations__]
        parts.append(_section(cls, rows))
    for cls in models_below(Recipe):
        parts.append(_section(cls, [_model_row(cls, name) for name in cls.model_fields]))
    return "\n".join(parts)


def embodiment_page() -> str:
    """The whole of docs/reference/embodiment.md."""
    models = models_below(EmbodimentConfig, {CommandInterface: KINDS})
    sections = [_section(cls, [_model_row(cls, name) for name in cls.model_fields]) for cls in models]
    return "\n".join([EMBODIMENT_HEADER, *sections])


def nodes_page() -> str:
    """The whole of docs/reference/nodes.md."""
    return "\n".join([NODES_HEADER, *map(_node_section, NODE_INTERFACES)])


def _node_section(interface: NodeInterface) -> str:
    kind = " Lifecycle node." if interface.managed else ""
    lines = [f"## {interface.name}", "", f"{interface.summary}{kind} Package `{interface.package}`.", ""]
    lines += _table(
        ("parameter", "type", "default", "meaning"),
        (
            (f"`{row.name}`", row.type, f"`{row.default_text}`", _text("; ".join([row.description, *row.constraints])))
            for row in interface.parameters
        ),
    )
    for title, endpoints in interface.endpoints.items():
        names = [f"`{interface.default_name(endpoint)}`" for endpoint in endpoints]
        types = [", ".join(f"`{name}`" for name in endpoint.types) for endpoint in endpoints]
        texts = [_text(endpoint.meaning) for endpoint in endpoints]
        lines += _table((title, "type", "meaning"), zip(names, types, texts, strict=True))
    return "\n".join(lines)


def _text(plain: str) -> str:
    """Outside of code, Markdown takes <words> for HTML."""
    return plain.replace("<", "&lt;")


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    heads = tuple(heads)
    cells = [" | ".join(_cell(value) for value in row) for row in rows]
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {row} |" for row in cells), ""]


def models_below(root: type[BaseModel], kinds: Mapping[type, Iterable[type]] | None = None) -> list[type[BaseModel]]:
    """``root`` and every pydantic model in its fields, in order of first occurrence.

    kinds: subclasses of a base class.
    """
    found: list[type[BaseModel]] = []

    def visit(annotation: Any) -> None:
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            if annotation not in found:
                found.append(annotation)
                for field in annotation.model_fields.values():
                    visit(field.annotation)
                for kind in (kinds or {}).get(annotation, ()):
                    visit(kind)
        for argument in typing.get_args(annotation):
            visit(argument)

    visit(root)
    return found


def with_sizes(page: str) -> str:
    """``page`` with the table of component sizes between its markers."""
    tables = {preset: parameter_table(preset) for preset in ("4b", "tiny")}
    lines = ["| component | 4b | tiny |", "|---|---:|---:|"]
    lines += [f"| {name} | {tables['4b'][name]:,.2f} M | {tables['tiny'][name]:,.2f} M |" for name in tables["4b"]]
    return results_page.with_block(page, "sizes", "\n".join(lines))


def meanings(docstring: str, names: list[str]) -> dict[str, str]:
    """The description of each field in a docstring, written as ``name: text`` or ``name, other: text``."""
    one = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    pattern = re.compile(rf"(?:^[ \t]*|(?<=\. ))((?:{one})(?:,\s+(?:{one}))*):\s+", re.MULTILINE)
    found: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        matches = list(pattern.finditer(paragraph))
        for match, following in itertools.zip_longest(matches, matches[1:]):
            text = paragraph[match.end() : following.start() if following else None]
            for name in re.split(r",\s+", match.group(1)):
                found[name] = " ".join(text.split()).replace("``", "`")  # Markdown
    return found


def _section(cls: type, rows: list[Row]) -> str:
    summary = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0]
    lines = [f"## {cls.__name__}", "", " ".join(summary.split()), ""]
    return "\n".join(lines + _table(("field", "type", "default", "meaning"), rows))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _dataclass_row(cls: type, field: dataclasses.Field) -> Row:
    default = "required" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
    documented = meanings(cls.__doc__ or "", [f.name for f in dataclasses.fields(cls)])
    annotation = field.type if isinstance(field.type, str) else type_name(field.type)
    return Row(f"`{field.name}`", f"`{annotation}`", default, documented.get(field.name, ""))


def _model_row(cls: type[BaseModel], name: str) -> Row:
    field = cls.model_fields[name]
    documented = {}
    for parent in reversed(cls.__mro__):
        documented |= meanings(parent.__doc__ or "", list(cls.model_fields)) if parent.__doc__ else {}
    meaning = field.description or documented.get(name, "")
    limits = [f"{sign} {getattr(m, key)}" for m in field.metadata for key, sign in SIGNS.items() if hasattr(m, key)]
    meaning = f"{meaning} ({', '.join(limits)})".strip() if limits else meaning
    return Row(f"`{name}`", f"`{type_name(field.annotation)}`", _default(field), meaning)


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return f"see {type(value).__name__}"
    return f"`{value.value if isinstance(value, enum.Enum) else value!r}`"


def type_name(annotation: Any) -> str:
    """A type in source notation: ``Literal["a", "b"]``, ``list[int]``, ``float | None``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "Literal[" + ", ".join(repr(a) for a in arguments) + "]"
    if isinstance(annotation, type) and issubclass(annotation, enum.StrEnum):
        return "Literal[" + ", ".join(repr(member.value) for member in annotation) + "]"
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(a) for a in arguments)
    if origin is not None:
        inner = ", ".join("..." if a is Ellipsis else type_name(a) for a in arguments)
        return f"{getattr(origin, '__name__', str(origin))}[{inner}]"
    return "None" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


if __name__ == "__main__":
    sys.exit(main())
