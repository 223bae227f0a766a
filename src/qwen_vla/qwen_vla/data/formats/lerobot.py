"""Reads LeRobotDataset v3.0, ours and others': several files, images or videos, any numeric or text column.

Numeric columns are read as a whole; images and videos are decoded on demand. An unreadable value is recorded as a
defect of its row; the user of the data decides whether it is refused or skipped (bad_rows.py).
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embodiment_descriptions import Embodiment, known_robot, load_robot
from qwen_vla.data.formats.cache import data_hash
from qwen_vla.data.formats.episodes import Channels, DatasetError, Episode, SourceOptions
from qwen_vla.data.formats.lerobot_video import VideoFiles

CODEBASE_VERSION = "v3.0"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
ROBOT_FILE = "meta/embodiment.yaml"  # beside it the description, see recordings.write_robot
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
SHARDS_PER_FOLDER = 1000
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
INDEX_COLUMNS = {
    "timestamp": pa.float32(),
    "frame_index": pa.int64(),
    "episode_index": pa.int64(),
    "index": pa.int64(),
    "task_index": pa.int64(),
}
SCALARS = {
    **{
        kind: getattr(pa, kind)() for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    **{kind: getattr(pa, kind)() for kind in ("float16", "float32", "float64", "string")},
    "bool": pa.bool_(),
}
IMAGE_KINDS = ("image", "video")
STATE, ACTION = "observation.state", "action"
ROW_GROUPS_KEPT = 4
DECODED_AHEAD = 64  # images decoded concurrently


@dataclass(frozen=True)
class Feature:
    """One column: dtype "image", "video" or a scalar type, its shape, and the names of its elements (or axes)."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, spec: Mapping[str, Any]) -> Feature:
        return cls(spec["dtype"], tuple(spec["shape"]), _names(spec.get("names")))

    @property
    def size(self) -> int:
        """Elements per row."""
        return int(np.prod(self.shape))

    def arrow_type(self) -> pa.DataType:
        if self.dtype == "image":
            return IMAGE_TYPE
        scalar = SCALARS[self.dtype]
        return pa.list_(scalar, self.size) if self.shape != (1,) else scalar

    def to_json(self) -> dict:
        return {"dtype": self.dtype, "shape": list(self.shape), "names": list(self.names) or None}


class LeRobotReader:
    """A LeRobotDataset v3.0 as whole columns, and as a source of episodes (see `EpisodeSource`).

    frames[name]: (N, ...) arrays of the numeric and text features; episodes: (E, 2) first and past-last frame index;
    tasks: the instruction of every episode; image_keys: cameras, stored as images or as videos; defects[name]: by
    row, the fault of a cell (its value is 0, NaN or ""). Images are decoded on demand with `image` or `images`.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.name = self.root.name
        self.info = _read_info(self.root)
        self.fps = self.rate_hz = float(self.info["fps"])
        self.columns = {name: Feature.from_json(spec) for name, spec in self.info["features"].items()}
        self.image_keys = tuple(name for name, f in self.columns.items() if f.dtype in IMAGE_KINDS)
        self._files = _DataFiles(self.root)
        found, expected = len(self._files), self.info.get("total_frames", len(self._files))
        if found != expected:
            raise DatasetError(f"{self.root}: {found} frames in data/, {expected} in meta/info.json")
        self.frames, self.defects = self._read_columns()
        rows = _episode_rows(self.root)
        self.episodes = _ranges(self.root, rows, found)
        self.tasks = self._read_tasks(rows)
        self._videos = self._open_videos(rows)

    # --- as columns -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Frames of all episodes."""
        return len(self._files)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the contents of all data, video and metadata files."""
        kinds = ("data/**/*.parquet", "videos/**/*.mp4", "images/**/*.*", "meta/info.json", "meta/**/*.parquet")
        return data_hash(self.root, itertools.chain.from_iterable(self.root.glob(kind) for kind in kinds))

    def place(self, row: int) -> str:
        """File and row in it, for messages."""
        return self._files.place(row)

    def image(self, key: str, row: int) -> np.ndarray:
        """H×W×3 uint8 RGB; DatasetError names file and row."""
        if key in self._videos:
            return self._videos[key].frame(row)
        return self._decode(key, row, self._files.cell(key, row))

    def images(
        self, key: str, convert: Callable[[np.ndarray], np.ndarray], rows: np.ndarray | None = None
    ) -> Iterator[np.ndarray | DatasetError]:
        """Yield convert(image) for these frames (default: all), in ascending order; the error itself for a frame that
        cannot be decoded."""
        wanted = np.arange(len(self)) if rows is None else rows
        if key in self._videos:
            yield from (_attempt(lambda row=row: convert(self._videos[key].frame(row))) for row in map(int, wanted))
            return
        with ThreadPoolExecutor(2) as pool:
            waiting: deque = deque()
            for row, cell in self._files.cells(key, wanted):
                if len(waiting) == DECODED_AHEAD:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(_attempt, lambda r=row, c=cell: convert(self._decode(key, r, c))))
            yield from (future.result() for future in waiting)

    def _decode(self, key: str, row: int, cell: dict | None) -> np.ndarray:
        data = (cell or {}).get("bytes")
        if data is None and (cell or {}).get("path"):
            path = self.root / cell["path"]
            data = path.read_bytes() if path.is_file() else None
        image = decode_image(data) if data else None
        if image is None:
            why = "cannot be decoded" if data else "is missing"
            raise DatasetError(f"{self.place(row)}: image {key} {why}")
        return image

    # --- as episodes ----------------------------------------------------------------------------------------------

    @property
    def features(self) -> dict[str, tuple[str, ...]]:
        """Names of the channels of every numeric column."""
        return {name: _channel_names(f) for name, f in self.columns.items() if _is_numeric(f)}

    def episode(self, index: int) -> Episode:
        """One episode; arrays are views."""
        first, end = map(int, self.episodes[index])
        columns = {
            name: Channels(self.frames[name][first:end].reshape(end - first, -1), names)
            for name, names in self.features.items()
        }
        defects = {
            name: {row - first: why for row, why in rows.items() if first <= row < end}
            for name, rows in self.defects.items()
        }
        return Episode(
            name=f"{self.root} episode {index}",
            instruction=self.tasks[index],
            rate_hz=self.fps,
            columns=columns,
            images={key: _EpisodeFrames(self, key, first, end) for key in self.image_keys},
            place=lambda row: self.place(first + row),
            state=columns.get(STATE),
            actions=columns.get(ACTION),
            defects={name: rows for name, rows in defects.items() if rows},
        )

    # --- reading --------------------------------------------------------------------------------------------------

    def _read_columns(self) -> tuple[dict[str, np.ndarray], dict[str, dict[int, str]]]:
        wanted = {name: f for name, f in self.columns.items() if f.dtype not in IMAGE_KINDS}
        absent = [name for name in wanted if name not in self._files.names and name not in INDEX_COLUMNS]
        if absent:
            raise DatasetError(f"{self._files.paths[0]} lacks {', '.join(absent)}, which meta/info.json lists")
        table = self._files.table([name for name in wanted if name in self._files.names])
        frames, defects = {}, {}
        for name in table.column_names:
            frames[name], wrong = _column(table[name], wanted[name])
            if wrong:
                defects[name] = wrong
        return frames, defects

    def _read_tasks(self, rows: list[dict]) -> list[str]:
        """The instruction of every episode: from meta/episodes, else from its frames' task_index and meta/tasks."""
        sentences = _sentences(self.root)
        tasks = []
        for index, (row, (first, _)) in enumerate(zip(rows, self.episodes, strict=True)):
            listed = row.get("tasks")
            if isinstance(listed, str):
                listed = [listed]
            if not listed and "task_index" in self.frames:
                listed = [sentences.get(int(self.frames["task_index"][first]))]
            if not listed or not listed[0]:
                raise DatasetError(
                    f"{self.root}: episode {index} has no task; neither meta/episodes nor meta/tasks has it"
                )
            tasks.append(str(listed[0]))
        return tasks

    def _open_videos(self, rows: list[dict]) -> dict[str, VideoFiles]:
        template = self.info.get("video_path")
        keys = [key for key in self.image_keys if self.columns[key].dtype == "video"]
        if keys and not template:
            raise DatasetError(f"{self.root}/meta/info.json has videos ({', '.join(keys)}) but no video_path")
        stamps = self.frames.get("timestamp")
        if stamps is None:
            starts = np.repeat(self.episodes[:, 0], np.diff(self.episodes, axis=1)[:, 0])
            stamps = (np.arange(len(self)) - starts) / self.fps
        return {
            key: VideoFiles(self.root, key, template, rows, self.episodes, stamps, self.fps, self.place) for key in keys
        }


class LeRobotEpisodes:
    """The episodes of a LeRobotDataset v3.0: `EpisodeSource`. They need no robot to be read."""

    takes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, root: Path | str) -> None:
        self.reader = reader = LeRobotReader(root)
        self.name, self.root, self.rate_hz = reader.name, reader.root, reader.fps
        self.image_keys, self.features, self.episodes = reader.image_keys, reader.features, reader.episodes
        self.images = reader.images

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
        name = _read_info(path).get("robot_type")
        return known_robot(name) if name else None

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
        self.paths = sorted(root.glob("data/**/*.parquet"), key=_natural)
        if not self.paths:
            raise DatasetError(f"{root}: no files in data/; resume its collection, or download it again")
        self._open = [_open_parquet(path) for path in self.paths]
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

    def table(self, columns: list[str]) -> pa.Table:
        tables = []
        for path, file in zip(self.paths, self._open, strict=True):
            try:
                tables.append(file.read(columns=columns).replace_schema_metadata(None))
            except (pa.ArrowInvalid, OSError) as error:
                raise DatasetError(f"{path}: unreadable ({error}); delete it and resume the collection") from error
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
    """Folder of a dataset of the Hugging Face hub ("organization/name"); downloads what the local cache lacks."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, repo_type="dataset"))


def decode_image(data: bytes) -> np.ndarray | None:
    """PNG, JPEG, … to H×W×3 uint8 RGB; None if the bytes are not an image."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else image[:, :, ::-1]


def shard_path(root: Path, shard: int) -> Path:
    return root / DATA_PATH.format(chunk_index=shard // SHARDS_PER_FOLDER, file_index=shard % SHARDS_PER_FOLDER)


def video_path(root: Path, key: str, shard: int) -> Path:
    place = {"chunk_index": shard // SHARDS_PER_FOLDER, "file_index": shard % SHARDS_PER_FOLDER}
    return root / VIDEO_PATH.format(video_key=key, **place)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path}: unreadable ({error}); delete it and resume the collection") from error


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
    wrong |= {row // feature.size: "has a missing value" for row in np.flatnonzero(_nulls(flat)) if nested}
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


def _read_info(root: Path) -> dict:
    path = root / "meta/info.json"
    if not path.exists():
        raise DatasetError(f"{root}: no meta/info.json, not a finished LeRobotDataset; resume its collection")
    try:
        info = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path} is corrupt: {error}") from error
    version = info.get("codebase_version")
    if version != CODEBASE_VERSION:
        raise DatasetError(
            f"{path}: codebase_version {version!r}, need {CODEBASE_VERSION!r}; lerobot converts older ones with "
            "`python -m lerobot.datasets.v30.convert_dataset_v21_to_v30 --repo-id=…`"
        )
    missing = [key for key in ("fps", "features") if key not in info]
    if missing:
        raise DatasetError(f"{path} lacks {', '.join(missing)}")
    return info


def _episode_rows(root: Path) -> list[dict]:
    """The rows of all files of meta/episodes without their statistics, ordered by episode."""
    paths = sorted(root.glob("meta/episodes/**/*.parquet"), key=_natural)
    if not paths:
        raise DatasetError(f"{root}: no files in meta/episodes; resume its collection, or download it again")
    rows: list[dict] = []
    for path in paths:
        file = _open_parquet(path)
        names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        rows += file.read(columns=names).to_pylist()
    return sorted(rows, key=lambda row: row["episode_index"])


def _ranges(root: Path, rows: list[dict], frames: int) -> np.ndarray:
    """(E, 2) first and past-last frame; they must be contiguous and cover all frames."""
    ends = np.cumsum([row["length"] for row in rows])
    ranges = np.array(
        [
            (row.get("dataset_from_index", e - row["length"]), row.get("dataset_to_index", e))
            for row, e in zip(rows, ends, strict=True)
        ]
    )
    broken = np.flatnonzero((ranges[:, 1] <= ranges[:, 0]) | (ranges[:, 0] != np.concatenate([[0], ranges[:-1, 1]])))
    if len(broken) or ranges[-1, 1] != frames:
        where = (
            f"episode {rows[broken[0]]['episode_index']} is rows {ranges[broken[0]].tolist()}" if len(broken) else ""
        )
        raise DatasetError(
            f"{root}/meta/episodes does not cover the {frames} frames in data/ {where}; download it again"
        )
    return ranges


def _sentences(root: Path) -> dict[int, str]:
    """meta/tasks.parquet: the instruction is the pandas index, which pandas may have renamed."""
    path = root / "meta/tasks.parquet"
    if not path.exists():
        return {}
    table = read_table(path)
    texts = [
        name
        for name in table.column_names
        if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type)
    ]
    if "task_index" not in table.column_names or not texts:
        raise DatasetError(f"{path} needs the columns task_index and task, it has {', '.join(table.column_names)}")
    column = "task" if "task" in texts else texts[0]
    return dict(zip(table["task_index"].to_pylist(), table[column].to_pylist(), strict=True))


def _names(names: Any) -> tuple[str, ...]:
    """Feature names in their various forms: None, a list, or lists by group ({"motors": [...]})."""
    if isinstance(names, Mapping):
        names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
    return tuple(str(name) for name in names or ())


def _channel_names(feature: Feature) -> tuple[str, ...]:
    return feature.names if len(feature.names) == feature.size else ()


def _is_numeric(feature: Feature) -> bool:
    return feature.dtype not in (*IMAGE_KINDS, "string")


def _natural(path: Path) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.as_posix())]


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{path}: unreadable ({error}); delete it and resume the collection") from error


def _attempt(function: Callable[[], np.ndarray]) -> np.ndarray | DatasetError:
    try:
        return function()
    except DatasetError as error:
        return error
