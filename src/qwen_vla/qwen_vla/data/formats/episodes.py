# SPDX-License-Identifier: Apache-2.0
"""The format-independent recording: an `Episode` of one robot and one task, and sources of episodes.

LeRobotDataset v3.0 (lerobot.py), rosbag2 / MCAP (rosbag.py) and the formats of other packages end here; nothing
downstream knows a file format. opening.py finds the source of a folder.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from embodiment_descriptions import Embodiment
from qwen_vla.data.formats.cache import CACHE, data_hash
from qwen_vla.data.formats.spec import DataError


class DatasetError(DataError):
    """A dataset that is missing, incomplete or inconsistent with its metadata; names file and row, if any."""


@dataclass(frozen=True)
class Channels:
    """A numeric column: values (T, C), one name and unit per channel. Unit "" if the file does not define it."""

    values: np.ndarray
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    def select(self, names: Sequence[str], what: str) -> np.ndarray:
        """(T, len(names)) the channels with these names, in this order; DatasetError names missing ones."""
        missing = [name for name in names if name not in self.names]
        if missing:
            raise DatasetError(
                f"{what} has no channel {', '.join(missing)}; it has {', '.join(self.names) or 'no names for them'}"
            )
        return self.values[:, [self.names.index(name) for name in names]]


class Frames(Protocol):
    """The images of one camera during one episode, decoded on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> np.ndarray: ...  # H×W×3 uint8 RGB; DatasetError names file and row


@dataclass(frozen=True)
class Episode:
    """One recording. All members have one entry per row; rows are 1/rate_hz seconds apart.

    name: for messages. instructions: per row, where they change within the episode. columns: every numeric column by
    its name in the file; `state` and `actions` are two of them, None if the source has none. images: by camera (key of
    the file, or tag). place: file and row as text.
    """

    name: str
    instruction: str
    rate_hz: float
    columns: Mapping[str, Channels]
    images: Mapping[str, Frames]
    place: Callable[[int], str]
    state: Channels | None = None
    actions: Channels | None = None
    defects: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    instructions: Sequence[str] | np.ndarray | None = None

    def __post_init__(self) -> None:
        rows = {name: len(channels.values) for name, channels in self.columns.items()}
        rows |= {key: len(frames) for key, frames in self.images.items()}
        if len(set(rows.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise DatasetError(
                f"{self.name}: columns and cameras must have the same number of rows; they have: {listed}"
            )

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).values)

    @property
    def row_instructions(self) -> Sequence[str] | np.ndarray:
        """The instruction of every row."""
        return [self.instruction] * len(self) if self.instructions is None else self.instructions


class SourceOptions(BaseModel):
    """What a recording does not define itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instruction: str | None = Field(default=None, description="instruction of episodes without one")
    namespace: str = Field(default="", description="of the robot's topics, in bags that do not define it")
    instruction_topic: str | None = Field(default=None, description="std_msgs/String with the instruction")
    marker_topic: str | None = Field(
        default=None,
        description="std_msgs/String that starts an episode with its instruction and ends it with an empty one, or "
        "std_msgs/Bool, true from begin to end; without it a bag is one episode",
    )

    @property
    def given(self) -> list[str]:
        """Names of the options that are set."""
        return [name for name, field in SourceOptions.model_fields.items() if getattr(self, name) != field.default]


@runtime_checkable
class EpisodeSource(Protocol):
    """Episodes of one dataset, in a fixed order. The class recognizes its format and opens it.

    takes: supported options. root: file or folder. image_keys: cameras. features: channel names of every numeric
    column. unreadable: why columns of the file are not among them. fingerprint: hash of the content of all data files.
    """

    takes: ClassVar[frozenset[str]]
    name: str
    root: Path
    rate_hz: float
    image_keys: tuple[str, ...]
    unreadable: Mapping[str, str]

    @classmethod
    def recognizes(cls, path: Path) -> bool: ...  # whether an existing file or folder has this format

    @classmethod
    def recordings(cls, path: Path) -> list[Path]: ...  # those in it, each of which can be opened separately

    @classmethod
    def robot(cls, path: Path) -> Embodiment | None: ...  # the robot that the dataset names

    @classmethod
    def succeeded(cls, path: Path) -> bool | None: ...  # label of a recording; None: not labeled

    @classmethod
    def open(cls, path: Path, embodiment: Embodiment, options: SourceOptions) -> Self: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def features(self) -> Mapping[str, tuple[str, ...]]: ...

    def check_camera(self, key: str) -> None: ...  # DatasetError if it has no color images

    def codec(self, key: str) -> str: ...  # in which a camera's images are stored; empty if unknown

    @property
    def episodes(self) -> np.ndarray: ...  # (E, 2) first and past-last row of every episode in the whole dataset

    def __len__(self) -> int: ...  # episodes

    def __getitem__(self, index: int) -> Episode: ...

    def __iter__(self) -> Iterator[Episode]: ...

    def images(
        self, key: str, convert: Callable[[np.ndarray], np.ndarray], rows: np.ndarray | None = None
    ) -> Iterator[np.ndarray | DatasetError]: ...  # of `rows`, in ascending order; default: all


class EpisodeList:
    """A source with its episodes in memory, except images: base class for formats.

    A subclass defines `recognizes` and `recordings`, and opens recordings; `rate_hz`, cameras and
    columns are those of the first episode.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"instruction"})
    unreadable: Mapping[str, str] = MappingProxyType({})
    recordings: ClassVar[Callable[[Path], list[Path]]]

    def __init__(self, root: Path, episodes: Sequence[Episode]) -> None:
        """DatasetError without episodes."""
        if not episodes:
            raise DatasetError(f"{root}: contains no episodes")
        self.root, self.name, self.rate_hz = root, root.stem, episodes[0].rate_hz
        self.image_keys = tuple(episodes[0].images)
        self._episodes = episodes
        ends = np.cumsum([len(episode) for episode in episodes])
        self.episodes = np.stack([ends - [len(episode) for episode in episodes], ends], axis=1)

    @classmethod
    def robot(cls, path: Path) -> Embodiment | None:
        """None: the user names the robot."""
        return None

    @classmethod
    def succeeded(cls, path: Path) -> bool | None:
        """None: recordings are not labeled."""
        return None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the contents of all files of the recordings, and of the requested rate and cameras."""
        paths = [file for path in type(self).recordings(self.root) for file in files_of(path)]
        return hash_of(data_hash(self.root, paths), self.rate_hz, self.image_keys)

    @property
    def features(self) -> dict[str, tuple[str, ...]]:
        """Names of the channels of every column."""
        return {name: channels.names for name, channels in self._episodes[0].columns.items()}

    def check_camera(self, key: str) -> None:
        """Images are in color: formats that know better say so."""

    def codec(self, key: str) -> str:
        """Unknown."""
        return ""

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: int) -> Episode:
        return self._episodes[index]

    def __iter__(self) -> Iterator[Episode]:
        return iter(self._episodes)

    def images(
        self, key: str, convert: Callable[[np.ndarray], np.ndarray], rows: np.ndarray | None = None
    ) -> Iterator[np.ndarray | DatasetError]:
        """Yield convert(image) of these rows (default: all of all episodes); the error itself if there is none."""
        for episode, (first, end) in zip(self._episodes, self.episodes, strict=True):
            wanted = np.arange(first, end) if rows is None else rows[(rows >= first) & (rows < end)]
            for row in wanted - first:
                try:
                    yield convert(episode.images[key][int(row)])
                except DatasetError as error:
                    yield error


def files_of(path: Path) -> list[Path]:
    """The files of a recording, which may be a single one, without cached files beside them."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and file.relative_to(path).parts[0] != CACHE)


def hash_of(*parts: Any) -> str:
    """Hash (16 hexadecimal digits) of the printed values on which a dataset's content depends."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
