# SPDX-License-Identifier: Apache-2.0
"""Where a command may write: never over what it did not make itself.

- A file may be new, or marked as made by the same command (`maker_line`); any other needs --overwrite.
- A folder may be new, empty, or marked as made by the same command (`Marker`).
- /, system folders, the home folder, the working folder and their parents accept no results.

Commands check this before any work begins. How results are then written is in `output_files`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_vla.output_files import is_temporary, temporary_name, write_json

# Including everything below them.
SYSTEM = "/bin /boot /dev /etc /lib /lib32 /lib64 /libx32 /proc /run /sbin /sys /usr/bin /usr/include /usr/lib"
SYSTEM += " /usr/lib32 /usr/lib64 /usr/libexec /usr/sbin /usr/share /var/cache /var/log /var/spool"
# Below the former, but for users.
NOT_SYSTEM = "/dev/shm /run/media /run/mount /run/user"
# Shared, or only parents of other folders: results may go below them, but not into them.
SHARED = "/ /dev/shm /home /media /mnt /opt /root /run/media /run/mount /run/user /srv /tmp /usr /usr/local /usr/src"
SHARED += " /var /var/lib /var/tmp"
HEAD = 1 << 20  # [bytes] of a file that are searched for its maker; even long videos have it there


class OutputRefused(ValueError):
    """A command may not write to a given path; the message names the path, the reason and the remedy."""


@dataclass(frozen=True)
class Marker:
    """The JSON file that marks a folder as made by a command: its name, and its required keys.

    If it names its maker, it must be this one.
    """

    file: str
    keys: frozenset[str]
    maker: str

    def read(self, folder: Path) -> dict[str, Any] | None:
        """The content of the file in a folder; None if there is none, or something else of that name."""
        try:
            content = json.loads((folder / self.file).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(content, dict) or not self.keys <= content.keys():
            return None
        return content if content.get("generator", self.maker) == self.maker else None


def check_files(maker: str, overwrite: bool, files: Mapping[str, Path | None]) -> None:
    """Refuse output files, given by their option (--json …); None is no file.

    Raises:
        OutputRefused: a file not made by `maker` would be replaced (unless `overwrite`), two are the same, or one
            cannot be written.
    """
    named: dict[Path, str] = {}
    for name, path in files.items():
        if path is None:
            continue
        place = _resolved(path)
        if place in named:
            raise OutputRefused(f"{named[place]} and {name} are the same file, {path}; name a different file for each")
        named[place] = name
        _check_file(path, place, maker, overwrite)


def check_folder(folder: Path, marker: Marker) -> dict[str, Any] | None:
    """Refuse a folder for results not made by `marker.maker`; returns the content of its marker, None in a new one.

    Raises:
        OutputRefused: the folder has other content, may not have results, or cannot be written.
    """
    place = check_place(folder)
    found = marker.read(place)
    if found is None and place.exists() and not all(map(is_temporary, place.iterdir())):
        what = "is the top of a git repository" if (place / ".git").exists() else "is not empty"
        raise OutputRefused(f"{folder} {what} and was not made by {marker.maker}; choose another folder")
    return found


def plain_marker(maker: str) -> Marker:
    """The marker of a folder whose results include none."""
    return Marker(".qwen_vla.json", frozenset({"generator"}), maker)


def claim_folder(folder: Path, marker: Marker) -> None:
    """Create a folder, or use an empty one or the maker's own, and mark it; OutputRefused as for `check_folder`."""
    check_folder(folder, marker)
    write_json(folder / marker.file, with_maker(marker.maker, {}))


def check_place(folder: Path) -> Path:
    """Refuse a folder that may not have results whatever its content; returns its absolute path with links resolved.

    Raises:
        OutputRefused: it is a system, home or working folder, a file, or cannot be written.
    """
    place = _resolved(folder)
    for what, path in (("the home folder", Path(os.path.expanduser("~"))), ("the working folder", Path.cwd())):
        if place in (path.resolve(), *path.resolve().parents):
            how = "is" if place == path.resolve() else "contains"
            raise OutputRefused(f"{folder} {how} {what}; choose a new folder for the results")
    if str(place) in SHARED.split():
        raise OutputRefused(f"{folder} is a system folder; choose a new folder for the results")
    _check_writable(folder, place)
    return place


def maker_line(maker: str) -> str:
    """Mark in a file's first bytes or metadata that allows `maker` to replace it later."""
    return f"generator: {maker};"


def with_maker(maker: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """A result to be written as JSON, marked with its maker."""
    return {"generator": maker, **result}


def png_text(maker: str) -> dict[str, str]:
    """Text chunks of a PNG file that name its maker."""
    return {"generator": f"{maker};"}


def in_markdown(maker: str, text: str) -> str:
    """Markdown that names its maker in a comment."""
    return f"{text}\n<!-- {maker_line(maker)} -->\n"


def is_made_by(path: Path, maker: str) -> bool:
    """Whether a file is marked as made by `maker`: by one of the above, HTML's generator, or rerun's application."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    name = re.escape(maker.encode())
    return re.search(rb"generator.{1,12}" + name + rb"[\";]|^RRF2.{1,200}" + name, head, re.DOTALL) is not None


def _check_file(path: Path, place: Path, maker: str, overwrite: bool) -> None:
    _check_writable(path, place.parent)
    if not place.exists():
        return
    if place.is_dir():
        raise OutputRefused(f"{path} is a folder; name a file")
    if not place.is_file():
        raise OutputRefused(f"{path} is not a regular file; name another file")
    if not os.access(place, os.R_OK | os.W_OK):
        raise OutputRefused(f"{path} is write-protected for you; name another file, or change its permissions")
    if not overwrite and not is_made_by(place, maker):
        raise OutputRefused(f"{path} was not made by {maker}; name another file, or replace it with --overwrite")


def _check_writable(path: Path, folder: Path) -> None:
    """Refuse `path` when nothing can, or may, be written in `folder`, which need not exist yet."""
    below = {str(parent) for parent in (folder, *folder.parents)}
    if below & set(SYSTEM.split()) and not below & set(NOT_SYSTEM.split()):
        raise OutputRefused(f"{path} is in a system folder; choose another folder")
    present = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))
    if not present.is_dir():
        raise OutputRefused(f"{path} cannot be created: {present} is a file")
    if not os.access(present, os.W_OK | os.X_OK):
        raise OutputRefused(f"{path} cannot be written: {present} is write-protected for you; choose another folder")


def _resolved(path: Path) -> Path:
    """The absolute path with links resolved; OutputRefused if it cannot be that of a file."""
    try:
        place = path.resolve()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.lstat(place.parent / temporary_name(place))
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a null byte
        raise OutputRefused(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    return place
