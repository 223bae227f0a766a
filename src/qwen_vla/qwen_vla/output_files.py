"""How results get onto the disk: a file or folder is complete or not there, and a full disk is said in one sentence.

What is written stands under a temporary name beside its place until it is complete. After an error that is removed;
what a killed process left of it is removed by the next one that writes there. Where a command may write at all is
decided in `output_paths`.
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

TEMPORARY = ".qwen_vla.tmp"  # end of a temporary name; before it stand machine and process
REPLACED = ".qwen_vla.replaced"  # end of the name that an earlier folder has while its successor moves in
NO_ROOM = {  # what happened, and the remedy
    errno.ENOSPC: ("does not fit on its disk", "make room"),
    errno.EDQUOT: ("does not fit into your disk quota", "make room"),
    errno.EFBIG: ("is larger than its file system or `ulimit -f` allows", "choose another disk or raise the limit"),
}
RUST_ERRNO = re.compile(r"\(os error (\d+)\)")  # safetensors has errors of its own


class DiskFull(OSError):
    """There is no room for a file; the message names it, what is free, and the remedy."""


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to; it is renamed at the end, or removed when that is not reached.

    Until then `path` keeps what it had; a link keeps pointing where it does. Missing folders are made.

    Raises:
        DiskFull: there is no room for it.
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
    """Yields a new folder beside `folder` to fill; it is renamed at the end, or removed when that is not reached.

    Args:
        folder: what is there already is replaced.
        written_before: names in such a folder that were written by us. Everything else in it stays; None: it is not
            ours and nothing may be replaced.

    Raises:
        DiskFull: there is no room for it.
        FileExistsError: `folder` is not ours.
    """
    folder = folder.resolve()
    with disk_full_named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(folder)
        shutil.rmtree(temporary, ignore_errors=True)  # of an earlier process with the same number
        temporary.mkdir()
        try:
            yield temporary
            _move_in(temporary, folder, written_before)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; DiskFull when there is no room."""
    with complete_or_absent(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON that every parser reads: ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def disk_full_named(path: Path) -> Iterator[None]:
    """Errors inside that say that there is no room become a DiskFull with the file's name; others stay as they are."""
    try:
        yield
    except Exception as error:
        if sentence := no_room(error, path):
            raise DiskFull(f"{sentence}, then run the same command again") from error
        raise


def no_room(error: BaseException, path: Path) -> str:
    """What to say of an error that came of a full disk, a quota or a limit of the size of files; of others nothing."""
    number = _disk_errno(error)
    if number is None:
        return ""
    happened, remedy = NO_ROOM[number]
    return f"{path} {happened} ({decimal(free_bytes(path))} free); {remedy}"


def free_bytes(path: Path) -> int:
    """Room on the disk where `path` is, or would be."""
    return shutil.disk_usage(next(place for place in (path, *path.resolve().parents) if place.is_dir())).free


def temporary_name(path: Path, end: str = TEMPORARY) -> str:
    """Name that this process gives a file or folder until it takes the place of `path`."""
    return f"{path.name}.{platform.node()}-{os.getpid()}{end}"


def is_temporary(path: Path) -> bool:
    """Whether a name is one of those that stand for a file that is not complete."""
    return path.name.endswith(TEMPORARY)


def _disk_errno(error: BaseException | None) -> int | None:
    """Which of NO_ROOM is behind an error: libraries often raise their own on top of the one that says so."""
    while error is not None:
        found = RUST_ERRNO.search(str(error))
        number = int(found[1]) if found else getattr(error, "errno", None)
        if number in NO_ROOM:
            return number
        error = error.__cause__ or error.__context__
    return None


def _temporary(path: Path) -> Path:
    """A path beside `path` that only this process uses; what ended ones left under such a name is removed."""
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
    """Rename a complete folder to its place; what others had put into its predecessor moves over."""
    if not folder.exists():
        os.rename(temporary, folder)
        return
    replaced = written_before(folder) if any(folder.iterdir()) else ()
    if replaced is None:
        raise FileExistsError(f"{folder} is not one of ours and was left alone; move it away, then run this again")
    earlier = folder.with_name(temporary_name(folder, REPLACED))
    os.rename(folder, earlier)
    os.rename(temporary, folder)
    for path in earlier.iterdir():
        if path.name not in replaced and not (folder / path.name).exists():
            os.rename(path, folder / path.name)
    shutil.rmtree(earlier)
