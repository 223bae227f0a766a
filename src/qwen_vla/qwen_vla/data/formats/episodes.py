"""What a recording is, whatever file it came from: an `Episode` of one robot doing one thing, and sources of episodes.

LeRobotDataset v3.0 (lerobot.py) and rosbag2 / MCAP (rosbag.py) end here; nothing behind this point knows a file format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from qwen_vla.data.formats.spec import DataError


class DatasetError(DataError):
    """A data set that is missing, incomplete or not what its metadata says; names file and row where there is one."""


@dataclass(frozen=True)
class Channels:
    """A numeric column: values (T, C), one name and unit per channel. Unit "" where the file does not say."""

    values: np.ndarray
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    def select(self, names: Sequence[str], what: str) -> np.ndarray:
        """(T, len(names)) the channels with these names, in this order; DatasetError says which are missing."""
        missing = [name for name in names if name not in self.names]
        if missing:
            raise DatasetError(
                f"{what} has no channel {', '.join(missing)}; it has {', '.join(self.names) or 'no names for them'}"
            )
        return self.values[:, [self.names.index(name) for name in names]]


class Frames(Protocol):
    """The images of one camera during one episode, decoded when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> np.ndarray: ...  # H×W×3 uint8 RGB; DatasetError names file and row


@dataclass(frozen=True)
class Episode:
    """One recording. All members have one entry per row; rows are 1/rate_hz seconds apart.

    name: for messages. columns: every numeric column by its name in the file; `state` and `actions` are two of them,
    None where the source has none. images: by camera (key of the file, or tag). place: says file and row in words.
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

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).values)


@runtime_checkable
class EpisodeSource(Protocol):
    """Episodes of one data set, in a fixed order.

    root: file or folder. image_keys: cameras. features: names of the channels of every numeric column. fingerprint:
    hash of the content of all data files.
    """

    name: str
    root: Path
    rate_hz: float
    image_keys: tuple[str, ...]

    @property
    def fingerprint(self) -> str: ...

    @property
    def features(self) -> Mapping[str, tuple[str, ...]]: ...

    @property
    def episodes(self) -> np.ndarray: ...  # (E, 2) first and past-last row of every episode in the whole data set

    def __len__(self) -> int: ...  # episodes

    def __getitem__(self, index: int) -> Episode: ...

    def __iter__(self) -> Iterator[Episode]: ...

    def images(
        self, key: str, convert: Callable[[np.ndarray], np.ndarray], rows: np.ndarray | None = None
    ) -> Iterator[np.ndarray | DatasetError]: ...  # of `rows`, in ascending order; of all where they are not given
