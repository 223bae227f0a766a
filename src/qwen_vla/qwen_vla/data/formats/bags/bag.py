# SPDX-License-Identifier: Apache-2.0
"""A rosbag2 recording as it lies on disk: its files, their topics, and messages.

A recording is a folder with metadata.yaml, a single file, or the files of a split recording whose metadata are
missing. What a file is (MCAP, SQLite, compressed) is told by its first bytes, not by names or metadata.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qwen_vla.data.formats.bags import mcap_file, sqlite_file
from qwen_vla.data.formats.bags.mcap_file import McapFile
from qwen_vla.data.formats.bags.message_types import deserialized
from qwen_vla.data.formats.bags.sqlite_file import SqliteFile
from qwen_vla.data.formats.bags.storage import (
    ZSTD,
    Damage,
    Place,
    Storage,
    StoredMessage,
    StoredTopic,
    Unreadable,
    decompressed,
    expand,
)
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.recordings import UNFINISHED
from qwen_vla.data.formats.spec import as_text
from qwen_vla_control.stamps import NANOSECONDS

METADATA = "metadata.yaml"
ENDINGS = (".mcap", ".db3")
PACKED = (".zstd", ".zst")
ROS_1 = ".bag"
DEEPEST = 3  # folders below the one given in which bags are looked for
INFORMATION = b"rosbag2_bagfile_information"  # its first key
LARGEST_METADATA = 1 << 24  # bytes
ADJACENT = 1 * NANOSECONDS  # a file that begins this soon after another one ended continues it
PART = re.compile(r"(?P<name>.*)_(?P<number>\d+)")


class _Information(BaseModel):
    """What is used of metadata.yaml: the order of the files."""

    model_config = ConfigDict(extra="ignore")

    relative_file_paths: list[str] = Field(min_length=1)


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="ignore")

    rosbag2_bagfile_information: _Information


@dataclass(frozen=True)
class Recorded:
    """A message of a bag; log_ns: when it was recorded [ns, the recorder's clock]."""

    topic: str
    type: str
    log_ns: int
    place: Place
    message: Any


class Bag:
    """An open recording; a context manager.

    Attributes:
        path: the folder, or the (first) file.
        types: by topic, the types of its messages; more than one is unusual.
    """

    def __init__(self, path: Path) -> None:
        """Open all of its files; DatasetError names the file that cannot be read, and why."""
        self.path = path
        self._storages: list[Storage] = []
        with ExitStack() as stack:
            for number, file in enumerate(files_of_bag(path)):
                self._storages.append(_open_file(file, number, stack))
            self._stack = stack.pop_all()
        self.types: dict[str, set[str]] = {}
        for topic in self.topics:
            self.types.setdefault(topic.name, set()).add(topic.type)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its files, and delete decompressed copies of them."""
        self._stack.close()

    @property
    def topics(self) -> list[StoredTopic]:
        """The topics of all files; each may be there several times."""
        return [topic for storage in self._storages for topic in storage.topics]

    @property
    def damages(self) -> list[Damage]:
        """What could not be read so far."""
        return [damage for storage in self._storages for damage in storage.damages]

    def stored(self, topics: frozenset[str]) -> Iterator[StoredMessage]:
        """Messages as they lie in the files, in the order of writing."""
        for storage in self._storages:
            yield from storage.messages(topics)

    def messages(self, topics: frozenset[str]) -> Iterator[Recorded]:
        """Messages of these topics in the order of writing; DatasetError with topic, type and time for a bad one."""
        for stored in self.stored(topics):
            yield self._read(stored)

    def message(self, topic: StoredTopic | str, log_ns: int, place: Place) -> Any:
        """The message at a place."""
        if isinstance(topic, str):
            topic = next(known for known in self._storages[place.file].topics if known.name == topic)
        return self._read(StoredMessage(topic, log_ns, place, self._storages[place.file].data(place))).message

    def _read(self, stored: StoredMessage) -> Recorded:
        topic, log_ns, place, data = stored
        try:
            if data[:4] == ZSTD:
                data = decompressed(data, "zstd")
            return Recorded(topic.name, topic.type, log_ns, place, deserialized(topic, data))
        except Unreadable as error:
            raise self.error(topic.name, topic.type, log_ns, str(error)) from error

    def first_ns(self, topic: str) -> int:
        """When the first message on a topic was recorded [ns]; 0 without one."""
        return next((stored.log_ns for stored in self.stored(frozenset([topic]))), 0)

    def error(self, topic: str, kind: str, log_ns: int, why: str) -> DatasetError:
        """A DatasetError for one of its messages."""
        return DatasetError(f"{self.path}: a message on {topic} ({kind}), recorded {clock(log_ns)}: {why}")


def clock(time_ns: int) -> str:
    """A time of the recorder's clock, as text."""
    seconds = time_ns / NANOSECONDS
    try:
        return f"at {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC ({seconds:.3f} s)"
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return f"at {seconds:.3f} s"


# --- the files of a recording -----------------------------------------------------------------------------------------


def bag_paths(root: Path) -> list[Path]:
    """The bag at a path, or all bags in the folder and the folders below, ordered by path.

    A split recording without metadata is its first file. Recordings that are not finished are left out.
    """
    if root.is_file() or _is_bag_folder(root):
        return [root]
    levels = ["*/" * depth for depth in range(DEEPEST + 1)]
    metadata = (path for level in levels[1:] for path in root.glob(level + METADATA))
    folders = {path.parent for path in metadata if _is_bag_folder(path.parent)}
    files = {path for level in levels for path in root.glob(level + "*") if is_bag_file(path)}
    loose = {path for path in files if path.parent not in folders and path.parent.suffix != UNFINISHED}
    return sorted(folders | (loose - _continuing(loose)))


def is_bag_file(path: Path) -> bool:
    """Whether it is a file with the name of a bag's file, compressed or not, or of a recording of ROS 1."""
    return _kind(path) in (*ENDINGS, ROS_1) and path.is_file()


def _is_bag_folder(path: Path) -> bool:
    """Whether a folder has the metadata of a bag, and not of something else."""
    try:
        content = (path / METADATA).read_bytes() if (path / METADATA).is_file() else b""
    except OSError:  # said when it is opened
        return True
    return INFORMATION in content or (bool(content) and any(is_bag_file(file) for file in path.iterdir()))


def files_of_bag(path: Path) -> list[Path]:
    """The files of a recording in their order; DatasetError if there are none, or one is missing."""
    if path.is_file():
        if path.suffix == ROS_1:
            raise DatasetError(
                f"{path} is a recording of ROS 1; convert it: rosbags-convert --src {path.name} --dst {path.stem}"
            )
        return _continued(path)
    names = [PurePath(name).name for name in _metadata(path / METADATA).relative_file_paths]
    files = [path / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        there = ", ".join(sorted(file.name for file in path.iterdir() if file.is_file()))
        raise DatasetError(f"{path / METADATA} names {', '.join(missing)}, which is not there; the folder has {there}")
    return files


def _metadata(file: Path) -> _Information:
    try:
        if file.stat().st_size > LARGEST_METADATA:
            raise DatasetError(f"{file} has {file.stat().st_size} bytes, too many for metadata of a bag")
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return _Metadata.model_validate(content).rosbag2_bagfile_information
    except ValidationError as error:
        raise DatasetError(f"{file}: {as_text(error)}; write it anew: ros2 bag reindex {file.parent}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, OSError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{file} cannot be read: {as_text(error)}; write it anew: ros2 bag reindex {file.parent}"
        ) from error


def _kind(path: Path) -> str:
    """The ending of a name, without that of a compressed file."""
    return path.with_suffix("").suffix if path.suffix in PACKED else path.suffix


def _continuing(files: Iterable[Path]) -> set[Path]:
    """Those that continue another one."""
    return {later for file in files for later in _continued(file)[1:]}


def _continued(first: Path) -> list[Path]:
    """A file and those that continue it: NAME_0, NAME_1 …, each of which begins when the one before ends."""
    files = [first]
    match = PART.fullmatch(first.name.split(".")[0])
    if match is None or int(match["number"]) != 0 or (first.parent / METADATA).exists():
        return files
    ending = first.name[len(match[0]) :]
    while (following := first.with_name(f"{match['name']}_{len(files)}{ending}")).is_file():
        try:
            ended, begun = _span(files[-1])[1], _span(following)[0]
        except DatasetError:  # a damaged file is refused by its own name
            break
        if not abs(begun - ended) <= ADJACENT:
            break
        files.append(following)
    return files


def _span(file: Path) -> tuple[int, int]:
    """First and last time [ns] of a file's messages."""
    with ExitStack() as stack:
        storage = _open_file(file, 0, stack)
        return storage.span()


def _open_file(file: Path, number: int, stack: ExitStack) -> Storage:
    """Open a file by its first bytes; a compressed one is decompressed into a temporary folder."""
    try:
        start = _start(file)
        source = file
        if start[:4] == ZSTD:
            source = Path(stack.enter_context(TemporaryDirectory())) / "expanded"
            expand(file, source)
            start = _start(source)
        if start[: len(mcap_file.MAGIC)] == mcap_file.MAGIC:
            storage = McapFile(source, number, str(file))
        elif start == sqlite_file.MAGIC:
            storage = SqliteFile(source, number, str(file))
        else:
            what = "is empty" if not start else f"is neither MCAP nor SQLite: it begins with {start[:8]!r}"
            raise DatasetError(f"{file} {what}; copy it again")
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error}") from error
    stack.callback(storage.close)
    return storage


def _start(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(len(sqlite_file.MAGIC))
