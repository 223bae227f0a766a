# SPDX-License-Identifier: Apache-2.0
"""Which kinds of command interfaces are installed: entry points of a group, so that any package can add one."""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, SerializeAsAny

from embodiment_descriptions.commands.command_interface import CommandInterface

GROUP = "qwen_vla.command_interfaces"


def installed_kinds() -> tuple[str, ...]:
    """Names of all kinds, each once."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def find_kind(backend: Any) -> type[CommandInterface]:
    """The kind that an entry of `commands` names as its `backend`.

    Raises:
        ValueError: there is none, several packages provide it, or what is provided is no command interface of that
            name.
    """
    found = [entry for entry in entry_points(group=GROUP) if entry.name == backend]
    if not found:
        known = ", ".join(repr(name) for name in installed_kinds()) or "none (make setup)"
        raise ValueError(
            f"no command interface is called {backend!r}; installed: {known}. Correct `backend`, or install the "
            "package that adds it"
        )
    if len(found) > 1:
        packages = ", ".join(sorted(map(package_of, found)))
        raise ValueError(f"more than one package provides the command interface {backend!r}: {packages}; uninstall one")
    return _load(found[0])


def package_of(entry: EntryPoint) -> str:
    """The distribution that provides an entry point."""
    return entry.dist.name if entry.dist else "unknown"


def _load(entry: EntryPoint) -> type[CommandInterface]:
    try:
        kind = entry.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"command interface {entry.name!r} of package {package_of(entry)} cannot be imported: {error}"
        ) from error
    is_kind = isinstance(kind, type) and issubclass(kind, CommandInterface)
    if not is_kind or get_args(kind.model_fields["backend"].annotation) != (entry.name,):
        raise ValueError(
            f"{entry.value} of package {package_of(entry)} is not the command interface {entry.name!r}: it has to be a "
            f'subclass of CommandInterface with `backend: Literal["{entry.name}"]`'
        )
    return kind


def _of_its_kind(value: Any) -> Any:
    """Read an entry of `commands` as the kind that it names."""
    if not isinstance(value, Mapping):
        return value
    if "backend" not in value:
        raise ValueError(f"`backend` is missing; installed: {', '.join(map(repr, installed_kinds()))}")
    return find_kind(value["backend"]).model_validate(value)


Command = Annotated[SerializeAsAny[CommandInterface], BeforeValidator(_of_its_kind)]
