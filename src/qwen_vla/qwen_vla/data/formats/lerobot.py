# SPDX-License-Identifier: Apache-2.0
"""Reads LeRobotDataset v2.0, v2.1 and v3.0, ours and others': several files, images or videos, numeric or text columns.

lerobot_meta.py reads their metadata. Numeric columns are read as a whole; images and videos are decoded on demand. An
unreadable value is recorded as a defect of its row; the user of the data decides whether it is refused or skipped
(bad_rows.py).
"""

from __future__ import annotations

import functools
import io
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
from PIL import Image

from embodiment_descriptions import Embodiment, known_robot, load_robot
from qwen_vla.data.formats.cache import data_hash
from qwen_vla.data.formats.episodes import Channels, DatasetError, Episode, SourceOptions
from qwen_vla.data.formats.lerobot_meta import (
    IMAGE_KINDS,
    SCALARS,
    SI,
    VIDEO_PATH,
    Feature,
    Metadata,
    natural,
    open_parquet,
    read_info,
    unreadable,
)
from qwen_vla.data.formats.lerobot_video import VideoFiles
from qwen_vla_control.observation.image_decoding import DecodingError, to_rgb

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
ROBOT_FILE = "meta/embodiment.yaml"  # beside it the description, see recordings.write_robot
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
SHARDS_PER_FOLDER = 1000
INDEX_COLUMNS = {
    "timestamp": pa.float32(),
    "frame_index": pa.int64(),
    "episode_index": pa.int64(),
    "index": pa.int64(),
    "task_index": pa.int64(),
}
STATE, ACTION = "observation.state", "action"
ROW_GROUPS_KEPT = 4
DECODED_AHEAD = 64  # images decoded concurrently


class LeRobotReader:
    """A LeRobotDataset as whole columns, and as a source of episodes (see `EpisodeSource`).

    frames[name]: (N, ...) arrays of the numeric and text features; episodes: (E, 2) first and past-last frame index;
    instructions: (N,) that of every frame; tasks: that of every episode's first frame; image_keys: cameras, stored as
    images or as videos; defects[name]: by row, the fault of a cell (its value is 0, NaN or ""); unreadable[name]: why a
    feature is not in `frames`. Images are decoded on demand with `image` or `images`.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.name = self.root.name
        meta = self._meta = Metadata(self.root)
        self.info, self.columns, self.unreadable = meta.info, meta.features, meta.unreadable
        self.fps = self.rate_hz = meta.fps
        self.image_keys = tuple(name for name, f in self.columns.items() if f.dtype in IMAGE_KINDS)
        self._files = _DataFiles(self.root)
        found = len(self._files)
        if meta.total_frames not in (None, found):
            raise DatasetError(f"{self.root}: {found} frames in data/, {meta.total_frames} in meta/info.json")
        self.frames, self.defects = self._read_columns()
        self.episodes = meta.episode_ranges(found)
        self.instructions = self._read_instructions()
        self.tasks = [str(task) for task in self.instructions[self.episodes[:, 0]]]
        self._videos: dict[str, VideoFiles] = {}

    # --- as columns -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Frames of all episodes."""
        return len(self._files)

    @property
    def fingerprint(self) -> str:
        """Hash of the contents of all data, video and metadata files."""
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        kinds = ("data/**/*.parquet", "videos/**/*.mp4", "images/**/*.*", "meta/*.json*", "meta/**/*.parquet")
        return data_hash(self.root, itertools.chain.from_iterable(self.root.glob(kind) for kind in kinds))

    def place(self, row: int) -> str:
        """File and row in it, for messages."""
        return self._files.place(row)

    def image(self, key: str, row: int) -> np.ndarray:
        """H×W×3 uint8 RGB; DatasetError names file and row, or why a camera has no color images."""
        if video := self._video(key):
            return video.frame(row)
        return self._decode(key, row, self._files.cell(key, row))

    def images(
        self, key: str, convert: Callable[[np.ndarray], np.ndarray], rows: np.ndarray | None = None
    ) -> Iterator[np.ndarray | DatasetError]:
        """Yield convert(image) for these frames (default: all), in ascending order; the error itself for a frame that
        cannot be decoded; DatasetError if the camera has no color images."""
        wanted = np.arange(len(self)) if rows is None else rows
        if video := self._video(key):
            yield from (_attempt(lambda row=row, video=video: convert(video.frame(row))) for row in map(int, wanted))
            return
        with ThreadPoolExecutor(2) as pool:
            waiting: deque = deque()
            for row, cell in self._files.cells(key, wanted):
                if len(waiting) == DECODED_AHEAD:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(_attempt, lambda r=row, c=cell: convert(self._decode(key, r, c))))
            yield from (future.result() for future in waiting)

    def _decode(self, key: str, row: int, cell: dict | None) -> np.ndarray:
        try:
            return decode_image(self._data(key, row, cell))
        except DecodingError as error:
            raise DatasetError(f"{self.place(row)}: image {key} cannot be decoded: {error}") from error

    def _data(self, key: str, row: int, cell: dict | None) -> bytes:
        """The file of an image, inside the data or beside them."""
        cell = cell or {}
        data = cell.get("bytes")
        if data is None and cell.get("path"):
            path = self.root / cell["path"]
            data = path.read_bytes() if path.is_file() else None
        if not data:
            raise DatasetError(f"{self.place(row)}: image {key} is missing")
        return data

    def check_camera(self, key: str) -> None:
        """DatasetError if meta/info.json declares depth or gray images."""
        if why := self.columns[key].why_not_color:
            raise DatasetError(
                f"camera {key} {why}; only color images can be used",
                where=str(self.root),
                remedy="name another camera under `cameras`, or train without images (`use_images: false`)",
            )

    def codec(self, key: str) -> str:
        """In which a camera's first image is stored, such as h264 or PNG; DatasetError if that is unreadable."""
        if video := self._video(key):
            return video.codec()
        with Image.open(io.BytesIO(self._data(key, 0, self._files.cell(key, 0)))) as image:
            return str(image.format)

    def _video(self, key: str) -> VideoFiles | None:
        """The videos of a camera, None if it is stored as images; DatasetError for depth and gray images."""
        self.check_camera(key)
        feature = self.columns[key]
        if feature.dtype == "video" and key not in self._videos:
            places, stamps = self._meta.videos(key), self._stamps()
            self._videos[key] = VideoFiles(key, places, self.episodes, stamps, self.fps, self.place)
        return self._videos.get(key)

    def _stamps(self) -> np.ndarray:
        """(N,) time of each frame in its episode [s]."""
        if "timestamp" in self.frames:
            return self.frames["timestamp"]
        starts = np.repeat(self.episodes[:, 0], np.diff(self.episodes, axis=1)[:, 0])
        return (np.arange(len(self)) - starts) / self.fps

    # --- as episodes ----------------------------------------------------------------------------------------------

    @property
    def features(self) -> dict[str, tuple[str, ...]]:
        """Names of the channels of every numeric column."""
        return {name: f.channel_names for name, f in self.columns.items() if _is_numeric(f) and name in self.frames}

    def episode(self, index: int) -> Episode:
        """One episode; arrays are views."""
        first, end = map(int, self.episodes[index])
        columns = {
            name: Channels(self.frames[name][first:end].reshape(end - first, -1), names, self._units(name))
            for name, names in self.features.items()
        }
        defects = {
            name: {row - first: why for row, why in rows.items() if first <= row < end}
            for name, rows in self.defects.items()
        }
        return Episode(
            name=f"{self.root} episode {index}",
            instruction=self.tasks[index],
            instructions=self.instructions[first:end],
            rate_hz=self.fps,
            columns=columns,
            images={key: _EpisodeFrames(self, key, first, end) for key in self.image_keys},
            place=lambda row: self.place(first + row),
            state=columns.get(STATE),
            actions=columns.get(ACTION),
            defects={name: rows for name, rows in defects.items() if rows},
        )

    def _units(self, column: str) -> tuple[str, ...]:
        """Our own writer states that it writes SI units; others do not state theirs."""
        return (SI,) * self.columns[column].size if self.info.get("units") == SI else ()

    # --- reading --------------------------------------------------------------------------------------------------

    def _read_columns(self) -> tuple[dict[str, np.ndarray], dict[str, dict[int, str]]]:
        wanted = {name: f for name, f in self.columns.items() if f.dtype not in IMAGE_KINDS}
        for name, feature in wanted.items():
            if why := self._files.why_unreadable(name, feature):
                self.unreadable[name] = why
        table = self._files.table([name for name in wanted if name not in self.unreadable])
        frames, defects = {}, {}
        for name in table.column_names:
            frames[name], wrong = _column(table[name], wanted[name])
            if wrong:
                defects[name] = wrong
        return frames, defects

    def _read_instructions(self) -> np.ndarray:
        """(N,) from task_index and the table of tasks, else from the list of the episode if it has only one."""
        found = np.full(len(self), "", dtype=object)
        table = self._meta.instructions()
        if table and "task_index" in self.frames:
            numbers, which = np.unique(self.frames["task_index"], return_inverse=True)
            found = np.array([table.get(int(number)) or "" for number in numbers], dtype=object)[which.reshape(-1)]
        for episode, (first, end) in enumerate(self.episodes):
            missing = found[first:end] == ""
            if not missing.any():
                continue
            listed = self._meta.tasks_of(episode)
            if len(listed) != 1:
                has = "several tasks" if listed else "no task"
                raise DatasetError(
                    f"{self.root}: episode {episode} has {has}, and meta/tasks lacks the one of frame "
                    f"{first + int(np.argmax(missing))}; add it to meta/tasks"
                )
            found[first:end][missing] = listed[0]
        return found


class LeRobotEpisodes:
    """The episodes of a LeRobotDataset: `EpisodeSource`. They need no robot to be read."""

    takes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, root: Path | str) -> None:
        self.reader = reader = LeRobotReader(root)
        self.name, self.root, self.rate_hz = reader.name, reader.root, reader.fps
        self.image_keys, self.features, self.episodes = reader.image_keys, reader.features, reader.episodes
        self.images, self.unreadable, self.codec = reader.images, reader.unreadable, reader.codec
        self.check_camera = reader.check_camera

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Finished or not, and of any version: faults are reported when it is opened."""
        return (path / "meta/info.json").is_file() or any(path.glob("data/chunk-*/*.parquet"))

    @classmethod
    def recordings(cls, path: Path) -> list[Path]:
        """The whole dataset."""
        return [path]

    @classmethod
    def robot(cls, path: Path) -> Embodiment | None:
        """The robot whose files are in meta/, as written by convert; else the robot of the suite that it names."""
        if (path / ROBOT_FILE).is_file():
            return load_robot(path / ROBOT_FILE)
        name = read_info(path).get("robot_type")
        return known_robot(name) if isinstance(name, str) and name else None

    @classmethod
    def succeeded(cls, path: Path) -> bool | None:
        """None: recordings are not labeled."""
        return None

    @classmethod
    def open(cls, path: Path, embodiment: Embodiment, options: SourceOptions) -> Self:
        return cls(path)

    @property
    def fingerprint(self) -> str:
        return self.reader.fingerprint

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Episode:
        return self.reader.episode(range(len(self))[index])

    def __iter__(self) -> Iterator[Episode]:
        return map(self.reader.episode, range(len(self)))


@dataclass(frozen=True)
class _EpisodeFrames:
    reader: LeRobotReader
    key: str
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, row: int) -> np.ndarray:
        return self.reader.image(self.key, self.first + range(len(self))[row])


class _DataFiles:
    """The parquet files of data/ as one table, whose image columns are read by row group."""

    def __init__(self, root: Path) -> None:
        self.paths = sorted(root.glob("data/**/*.parquet"), key=natural)
        if not self.paths:
            raise DatasetError(f"{root}: no files in data/; run the command that makes it again, or download it again")
        self._open = [open_parquet(path) for path in self.paths]
        self.names = set(self._open[0].schema_arrow.names)
        for path, file in zip(self.paths, self._open, strict=True):
            if set(file.schema_arrow.names) != self.names:
                different = sorted(self.names ^ set(file.schema_arrow.names))
                raise DatasetError(f"{path}: columns differ from {self.paths[0].name} ({', '.join(different)})")
        groups = [
            (i, g, f.metadata.row_group(g).num_rows) for i, f in enumerate(self._open) for g in range(f.num_row_groups)
        ]
        self._groups = [(file, group) for file, group, _ in groups]
        self._ends = np.cumsum([rows for _, _, rows in groups], dtype=np.int64)
        self._file_starts = np.cumsum([0, *(f.metadata.num_rows for f in self._open)])
        self._column = functools.lru_cache(ROW_GROUPS_KEPT)(self._read_group)

    def __len__(self) -> int:
        return int(self._file_starts[-1])

    def place(self, row: int) -> str:
        file = int(np.searchsorted(self._file_starts, row, side="right")) - 1
        return f"{self.paths[file]} row {row - self._file_starts[file]}"

    def why_unreadable(self, name: str, feature: Feature) -> str:
        """Why a numeric or text column cannot be read; empty if it can."""
        if name not in self.names:
            return "meta/info.json lists it, but it is not in data/"
        kind = self._open[0].schema_arrow.field(name).type
        while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            kind = kind.value_type
        texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        if feature.dtype not in SCALARS or not (texts if feature.dtype == "string" else numbers):
            return f"it is {feature.dtype} in meta/info.json and {kind} in data/"
        return ""

    def table(self, columns: list[str]) -> pa.Table:
        tables = []
        for path, file in zip(self.paths, self._open, strict=True):
            try:
                tables.append(file.read(columns=columns).replace_schema_metadata(None))
            except (pa.ArrowInvalid, OSError) as error:
                raise unreadable(path, error) from error
        return pa.concat_tables(tables, promote_options="permissive")

    def cell(self, name: str, row: int) -> dict | None:
        group = int(np.searchsorted(self._ends, row, side="right"))
        first = self._ends[group - 1] if group else 0
        return self._column(name, group)[int(row - first)].as_py()

    def cells(self, name: str, rows: np.ndarray) -> Iterator[tuple[int, dict | None]]:
        """Row and cell of these rows, in ascending order."""
        for group, end in enumerate(self._ends):
            first = self._ends[group - 1] if group else 0
            begin, stop = np.searchsorted(rows, (first, end))
            if begin < stop:
                column = self._column(name, group)
                yield from ((int(row), column[int(row - first)].as_py()) for row in rows[begin:stop])

    def _read_group(self, name: str, group: int) -> pa.ChunkedArray:
        file, number = self._groups[group]
        try:
            return self._open[file].read_row_group(number, columns=[name])[name]
        except (pa.ArrowInvalid, OSError) as error:
            raise DatasetError(f"{self.paths[file]}: unreadable ({error}); download or record it again") from error


def download(repository: str) -> Path:
    """Folder of a dataset of the Hugging Face hub ("organization/name"); downloads what the local cache lacks.

    Raises:
        DatasetError: there is none of that name, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, repo_type="dataset"))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DatasetError(
            f"the dataset {repository!r} of the Hugging Face hub cannot be downloaded ({type(error).__name__}); check "
            "its name and the network, or give the path of a downloaded one"
        ) from error


@dataclass(frozen=True)
class _Compressed:
    """The fields of a sensor_msgs/CompressedImage."""

    data: bytes
    format: str = "stored in the dataset"


def decode_image(data: bytes) -> np.ndarray:
    """PNG, JPEG, … to H×W×3 uint8 RGB, as live; DecodingError for depth, gray and unreadable images."""
    return to_rgb(_Compressed(data))


def shard_path(root: Path, shard: int) -> Path:
    return root / DATA_PATH.format(chunk_index=shard // SHARDS_PER_FOLDER, file_index=shard % SHARDS_PER_FOLDER)


def video_path(root: Path, key: str, shard: int) -> Path:
    place = {"chunk_index": shard // SHARDS_PER_FOLDER, "file_index": shard % SHARDS_PER_FOLDER}
    return root / VIDEO_PATH.format(video_key=key, **place)


def column_to_numpy(column: pa.ChunkedArray, feature: Feature) -> np.ndarray:
    """A numeric or text column as (N, *shape), (N,) for shape (1,); DatasetError if a cell does not fit."""
    values, wrong = _column(column, feature)
    if wrong:
        row, why = next(iter(wrong.items()))
        raise DatasetError(f"row {row}: {why}")
    return values


def _column(column: pa.ChunkedArray, feature: Feature) -> tuple[np.ndarray, dict[int, str]]:
    """The column as an array, and, by row, the faults of cells that were filled with 0, NaN or ""."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # with no chunks or, if very large, several
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    wrong = {int(row): "is missing" for row in np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))}
    nested = pa.types.is_nested(array.type)
    if nested and (wrong or not _is_regular(array, feature.size)):
        return _irregular(array, feature)
    flat = array
    while pa.types.is_nested(flat.type):
        flat = flat.flatten()
    wrong |= {row // feature.size: "has a missing value" for row in np.flatnonzero(_nulls(flat)).tolist() if nested}
    values = _filled(flat, feature)
    return (values.reshape(len(array), *feature.shape) if feature.shape != (1,) else values.reshape(-1)), wrong


def _is_regular(array: pa.Array, size: int) -> bool:
    count, flat = len(array), array
    while pa.types.is_nested(flat.type):
        flat = flat.flatten()
    if len(flat) != count * size:
        return False
    return not pa.types.is_list(array.type) or len(set(array.value_lengths().to_pylist())) <= 1


def _irregular(array: pa.Array, feature: Feature) -> tuple[np.ndarray, dict[int, str]]:
    values, wrong = _empty(len(array), feature), {}
    for row, cell in enumerate(array.to_pylist()):
        flat = np.array([] if cell is None else cell, dtype=object).reshape(-1)
        if cell is None:
            wrong[row] = "is missing"
        elif len(flat) != feature.size or any(value is None for value in flat):
            wrong[row] = f"wrong width: {len(flat)} values, {feature.size} needed"
        else:
            values[row] = flat.astype(values.dtype).reshape(values.shape[1:])
    return values, wrong


def _empty(count: int, feature: Feature) -> np.ndarray:
    shape = (count, *feature.shape) if feature.shape != (1,) else (count,)
    if feature.dtype == "string":
        return np.full(shape, "", dtype=object)
    kind = np.dtype(feature.dtype)
    return np.full(shape, np.nan if kind.kind == "f" else 0, dtype=kind)


def _filled(flat: pa.Array, feature: Feature) -> np.ndarray:
    if feature.dtype == "string":
        return np.array([value or "" for value in flat.to_pylist()], dtype=object)
    if flat.null_count:
        flat = flat.fill_null(float("nan") if pa.types.is_floating(flat.type) else 0)
    return flat.to_numpy(zero_copy_only=False)


def _nulls(flat: pa.Array) -> np.ndarray:
    return flat.is_null().to_numpy(zero_copy_only=False) if flat.null_count else np.zeros(0, bool)


def _is_numeric(feature: Feature) -> bool:
    return feature.dtype not in (*IMAGE_KINDS, "string")


def _attempt(function: Callable[[], np.ndarray]) -> np.ndarray | DatasetError:
    try:
        return function()
    except DatasetError as error:
        return error
