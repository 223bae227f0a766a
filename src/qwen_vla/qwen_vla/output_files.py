# SPDX-License-Identifier: Apache-2.0
"""How results are written to disk: a file or folder is complete or absent, and a full disk is reported in one sentence.

Results are written under a temporary name in the same folder until they are complete. After an error it is removed;
what a killed process left is removed by the next one that writes there. Where a command may write at all is decided in
`output_paths`.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.filesize import decimal

TEMPORARY = ".qwen_vla.tmp"  # suffix of a temporary name, after machine and process
REPLACED = ".qwen_vla.replaced"  # suffix of the previous folder while the new one is moved in
NO_ROOM = {  # what happened, and the remedy
    errno.ENOSPC: ("does not fit on its disk", "make room"),
    errno.EDQUOT: ("does not fit into your disk quota", "make room"),
    errno.EFBIG: ("is larger than its file system or `ulimit -f` allows", "choose another disk or raise the limit"),
}
RUST_ERRNO = re.compile(r"\(os error (\d+)\)")  # safetensors raises its own errors


class DiskFull(OSError):
    """There is no space for a file; the message names it, the free space, and the remedy."""


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to; it is renamed at the end, or removed on an error.

    Until then `path` keeps its content; a link keeps its target. Missing folders are created.

    Raises:
        DiskFull: there is no space for it.
    """
    path = path.resolve()
    with disk_full_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def folder_complete_or_absent(folder: Path, written_before: Callable[[Path], Collection[str] | None]) -> Iterator[Path]:
    """Yields a new folder beside `folder` to fill; it is renamed at the end, or removed on an error.

    Args:
        folder: an existing one is replaced.
        written_before: names in such a folder that this command wrote. Everything else in it is kept; None: it is not
            ours and nothing may be replaced.

    Raises:
        DiskFull: there is no space for it.
        FileExistsError: `folder` is not ours.
    """
    folder = folder.resolve()
    with disk_full_named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(folder)
        shutil.rmtree(temporary, ignore_errors=True)  # of an earlier process with the same ID
        temporary.mkdir()
        try:
            yield temporary
            _move_in(temporary, folder, written_before)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; DiskFull when there is no space."""
    with complete_or_absent(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write standard JSON: ValueError for NaN and infinity, which it lacks."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def disk_full_named(path: Path) -> Iterator[None]:
    """Turn errors inside that mean a full disk into a DiskFull with the file's name; others pass unchanged."""
    try:
        yield
    except Exception as error:
        if sentence := no_room(error, path):
            raise DiskFull(f"{sentence}, then run the same command again") from error
        raise


@contextmanager
def resumable(kept: Path) -> Iterator[None]:
    """Ctrl-C inside says that what is done is in `kept`, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise interrupted(kept) from None


def interrupted(kept: Path) -> KeyboardInterrupt:
    """A Ctrl-C that says so."""
    return KeyboardInterrupt(f"interrupted; {kept} keeps what is done, the same command resumes")


def no_room(error: BaseException, path: Path) -> str:
    """The message for an error caused by a full disk, a quota or a file size limit; empty for any other."""
    number = _disk_errno(error)
    if number is None:
        return ""
    happened, remedy = NO_ROOM[number]
    return f"{path} {happened} ({decimal(free_bytes(path))} free); {remedy}"


def free_bytes(path: Path) -> int:
    """Free space on the disk where `path` is, or would be."""
    return shutil.disk_usage(next(place for place in (path, *path.resolve().parents) if place.is_dir())).free


def temporary_name(path: Path, end: str = TEMPORARY) -> str:
    """Name that this process gives a file or folder until it replaces `path`."""
    return f"{path.name}.{platform.node()}-{os.getpid()}{end}"


def is_temporary(path: Path) -> bool:
    """Whether a name is that of an incomplete file."""
    return path.name.endswith(TEMPORARY)


def _disk_errno(error: BaseException | None) -> int | None:
    """Which of NO_ROOM caused an error: libraries often wrap it in their own."""
    while error is not None:
        found = RUST_ERRNO.search(str(error))
        number = int(found[1]) if found else getattr(error, "errno", None)
        if number in NO_ROOM:
            return number
        error = error.__cause__ or error.__context__
    return None


def _temporary(path: Path) -> Path:
    """A path beside `path` that only this process uses; leftovers of ended processes under such names are removed."""
    start = f"{path.name}.{platform.node()}-"
    for left in path.parent.iterdir():
        process = left.name.removeprefix(start).removesuffix(TEMPORARY)
        if left.name == f"{start}{process}{TEMPORARY}" and process.isdecimal() and not psutil.pid_exists(int(process)):
            _remove(left)
    return path.with_name(temporary_name(path))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)  # another process may be removing it, too
    else:
        path.unlink(missing_ok=True)


def _move_in(temporary: Path, folder: Path, written_before: Callable[[Path], Collection[str] | None]) -> None:
    """Rename a complete folder to its place; files of others in the previous folder are moved over."""
    if not folder.exists():
        os.rename(temporary, folder)
        return
    replaced = written_before(folder) if any(folder.iterdir()) else ()
    if replaced is None:
        raise FileExistsError(f"{folder} is not one of ours and was left unchanged; move it away, then run this again")
    earlier = folder.with_name(temporary_name(folder, REPLACED))
    os.rename(folder, earlier)
    os.rename(temporary, folder)
    for path in earlier.iterdir():
        if path.name not in replaced and not (folder / path.name).exists():
            os.rename(path, folder / path.name)
    shutil.rmtree(earlier)
