# SPDX-License-Identifier: Apache-2.0
"""Finds the source for a dataset by its content and opens it. Packages add sources as entry points.

An entry point of the group `qwen_vla.episode_sources` is a class that implements `EpisodeSource`. A source recognizes
its own format; a folder recognized by none, or by more than one, is refused.
"""

from __future__ import annotations

import os
from collections import Counter
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from embodiment_descriptions import Embodiment, EmbodimentError
from embodiment_descriptions.commands.installed import package_of
from qwen_vla.data.formats.episodes import DatasetError, EpisodeSource, SourceOptions

GROUP = "qwen_vla.episode_sources"
OFFERED = ("takes", "recognizes", "recordings", "robot", "succeeded", "open")
SHOWN = 8  # kinds of files of a folder in a message
NAME_ROBOT = "give the robot with --robot, or `robot` in a recipe"
PAGE = "docs/how-to/add_an_episode_source.md"


def find_source(path: Path) -> type[EpisodeSource]:
    """The source that recognizes a file or folder.

    Raises:
        DatasetError: there is nothing at the path, or not exactly one source recognizes it.
        ValueError: an installed source cannot be used.
    """
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder (relative to {Path.cwd()})")
    _refuse_unreadable(path)
    sources = _installed()
    found = [(entry, source) for entry, source in sources if source.recognizes(path)]
    if len(found) == 1:
        return found[0][1]
    there, installed = f"{path} {_content(path)}", _listed([entry for entry, _ in sources])
    if not found:
        raise DatasetError(f"{there}; no source recognizes it; installed: {installed}. To add one: {PAGE}")
    raise DatasetError(
        f"{there}; more than one source recognizes it: {_listed([entry for entry, _ in found])}; installed: "
        f"{installed}. Keep each format in a separate folder, or uninstall one of these packages"
    )


def _refuse_unreadable(path: Path) -> None:
    """DatasetError for what no source can read, before one asks for anything else."""
    if not os.access(path, os.R_OK):
        raise DatasetError(f"{path}: permission denied; change its permissions, or name another one")
    if path.is_file() and not path.stat().st_size:
        raise DatasetError(f"{path} is empty; copy it again, or name another one")


def robot_of(source: type[EpisodeSource], path: Path) -> Embodiment:
    """The robot that a dataset names; DatasetError if it names none, or that robot is not available."""
    try:
        embodiment = source.robot(path)
    except (EmbodimentError, OSError) as error:
        raise DatasetError(str(error), where=str(path), remedy=NAME_ROBOT) from error
    if embodiment is None:
        raise DatasetError("does not name its robot", where=str(path), remedy=NAME_ROBOT)
    return embodiment


def open_source(
    source: type[EpisodeSource], path: Path, embodiment: Embodiment, options: SourceOptions
) -> EpisodeSource:
    """Open a dataset with its source; DatasetError if it is unreadable, or the source does not support an option."""
    unheeded = [name for name in options.given if name not in source.takes]
    if unheeded:
        raise DatasetError(
            f"{path} is read by {source.__name__}, which does not support {', '.join(unheeded)}; it supports: "
            f"{', '.join(sorted(source.takes)) or 'no options'}"
        )
    return source.open(path, embodiment, options)


def _installed() -> list[tuple[EntryPoint, type[EpisodeSource]]]:
    return [(entry, _load(entry)) for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)]


def _load(entry: EntryPoint) -> type[EpisodeSource]:
    try:
        source = entry.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the episode source {entry.name} of package {package_of(entry)} cannot be imported: {error}; repair or "
            "uninstall the package"
        ) from error
    lacking = [name for name in OFFERED if not hasattr(source, name)]
    if lacking:
        raise ValueError(
            f"{entry.name} of package {package_of(entry)} is not an episode source: {entry.value} lacks "
            f"{', '.join(lacking)}; see {PAGE}"
        )
    return source


def _listed(entries: list[EntryPoint]) -> str:
    return ", ".join(f"{entry.name} (package {package_of(entry)})" for entry in entries) or "none (make setup)"


def _content(path: Path) -> str:
    """The content of a folder, by kinds."""
    if path.is_file():
        return f"is a file of {path.stat().st_size} bytes"
    kinds = Counter(_kind(one) for one in path.iterdir())
    listed = [f"{count} {kind}" if kind.startswith("*") else kind for kind, count in sorted(kinds.items())]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"contains {', '.join(listed[:SHOWN])}{more}" if listed else "is empty"


def _kind(path: Path) -> str:
    if path.is_dir():
        return f"{path.name}/"
    return f"*{path.suffix}" if path.suffix else path.name
