# SPDX-License-Identifier: Apache-2.0
"""The folder meta/ of a LeRobotDataset v2.0, v2.1 or v3.0: info.json, features, episodes, tasks, and paths of videos.

Others' metadata are read leniently where nothing depends on them, and strictly where something does: a feature that
cannot be read is an error only for its user.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qwen_vla.data.formats.episodes import DatasetError

CODEBASE_VERSION = "v3.0"
OLDER_VERSIONS = ("v2.0", "v2.1")  # a file per episode, JSON Lines instead of parquet
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
OLDER_VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
SI = "SI"  # of `units` in info.json: angles are in rad, lengths in m; a key of ours
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGE_KINDS = ("image", "video")
SCALARS = {
    **{
        kind: getattr(pa, kind)() for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    **{kind: getattr(pa, kind)() for kind in ("float16", "float32", "float64", "string")},
    "bool": pa.bool_(),
}
COLORS = (3, 4)  # channels of a color image, without and with transparency
LFS_POINTER = b"version https://git-lfs"
INTEGER_FORMAT = re.compile(r"(0?\d{1,2}d)?")
CONVERSION = (
    "lerobot converts v2.1 to v3.0: 0.6 with `python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id NAME "
    "--root FOLDER --push-to-hub false`, 0.4 with `python -m lerobot.datasets.v30.convert_dataset_v21_to_v30` and the "
    "same options; 0.3.3 converts v2.0 to v2.1 with `python -m lerobot.datasets.v21.convert_dataset_v20_to_v21 "
    "--repo-id NAME`"
)

Count = Annotated[int, Field(ge=0)]


class _Info(BaseModel):
    """What is used of info.json; the rest is kept as it is."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    fps: float = Field(gt=0, allow_inf_nan=False)
    features: dict[str, Any]
    total_frames: Count | None = None
    chunks_size: Annotated[int, Field(ge=1)] = 1000
    robot_type: str | None = None
    video_path: str | None = None


class _Feature(BaseModel):
    """One entry of `features`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    dtype: str
    shape: tuple[Count, ...]
    names: Any = None
    info: dict[str, Any] | None = None
    video_info: dict[str, Any] | None = None


@dataclass(frozen=True)
class Feature:
    """One column: dtype "image", "video" or a scalar type, its shape, and the names of its elements (or axes).

    depth: whether its images are distances.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    depth: bool = False

    @classmethod
    def from_json(cls, spec: Any) -> Feature:
        """ValueError for an entry that cannot be read."""
        found = _Feature.model_validate(spec)
        about = {**(found.video_info or {}), **(found.info or {})}
        depth = bool(about.get("is_depth_map") or about.get("video.is_depth_map"))
        return cls(found.dtype, found.shape, element_names(found.names), depth)

    @property
    def size(self) -> int:
        """Elements per row."""
        return int(np.prod(self.shape))

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the elements; none if the file names only the axes, such as ["state"]."""
        axes = len(self.names) == len(self.shape) and len(self.names) != self.size
        return () if axes else self.names

    @property
    def why_not_color(self) -> str:
        """Why images of this feature are no input of a policy that is trained on color; empty if they are."""
        if self.depth:
            return "has depth"
        if len(self.shape) != 3 or not {self.shape[0], self.shape[-1]} & set(COLORS):
            return f"has images of shape {list(self.shape)}, not of three colors"
        return ""

    def arrow_type(self) -> pa.DataType:
        if self.dtype == "image":
            return IMAGE_TYPE
        scalar = SCALARS[self.dtype]
        return pa.list_(scalar, self.size) if self.shape != (1,) else scalar

    def to_json(self) -> dict:
        return {"dtype": self.dtype, "shape": list(self.shape), "names": list(self.names) or None}


@dataclass(frozen=True)
class VideoPlace:
    """Where the video of an episode begins: file, and time in it [s]."""

    path: Path
    start: float


class Metadata:
    """What meta/ says. info: info.json as it is; features: those that can be read; unreadable: the others, and why."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info = read_info(root)
        self.older = self.info["codebase_version"] in OLDER_VERSIONS
        self._checked = _validated(root, self.info)
        self.fps, self.total_frames = self._checked.fps, self._checked.total_frames
        self.features: dict[str, Feature] = {}
        self.unreadable: dict[str, str] = {}
        for name, spec in self._checked.features.items():
            try:
                self.features[name] = Feature.from_json(spec)
            except ValidationError as error:
                problem = error.errors()[0]
                self.unreadable[name] = f"its {'.'.join(map(str, problem['loc']))} in meta/info.json: {problem['msg']}"
        self._rows = list(_episode_rows(root, self.older))

    def episode_ranges(self, frames: int) -> np.ndarray:
        """(E, 2) first and past-last frame; they must be contiguous and cover all frames."""
        return _ranges(self.root, self._rows, frames)

    def tasks_of(self, episode: int) -> list[str]:
        """Instructions that meta/episodes lists for an episode, without duplicates."""
        listed = self._rows[episode].get("tasks")
        listed = [listed] if isinstance(listed, str) else listed or []
        return list(dict.fromkeys(str(task) for task in listed if task))

    def instructions(self) -> dict[int, str]:
        """The instruction of every task_index; empty without a table of tasks."""
        return _tasks_of_lines(self.root) if self.older else _tasks_of_table(self.root)

    def videos(self, key: str) -> list[VideoPlace | None]:
        """The video of a camera for every episode; None for an episode without one.

        Raises:
            DatasetError: `video_path` of info.json is missing, has other fields, or leads out of the dataset.
        """
        template = self._checked.video_path
        if not template:
            raise DatasetError(f"{self.root}/meta/info.json has a video ({key}) but no video_path")
        return [self._video(key, template, row) for row in self._rows]

    def _video(self, key: str, template: str, row: Mapping[str, Any]) -> VideoPlace | None:
        if self.older:
            number = row["episode_index"]
            numbers = {"episode_chunk": number // self._checked.chunks_size, "episode_index": number}
            return VideoPlace(_filled(self.root, template, key, numbers, OLDER_VIDEO_PATH), 0.0)
        names = ("chunk_index", "file_index", "from_timestamp")
        chunk, file, start = (row.get(f"videos/{key}/{name}") for name in names)
        path = _filled(self.root, template, key, {"chunk_index": chunk or 0, "file_index": file or 0}, VIDEO_PATH)
        return None if chunk is None or file is None or start is None else VideoPlace(path, float(start))


def read_info(root: Path) -> dict[str, Any]:
    """meta/info.json; DatasetError if it is missing, not JSON, or of a version that is not read here."""
    path = root / "meta/info.json"
    if not path.exists():
        raise DatasetError(
            f"{root}: no meta/info.json, not a finished LeRobotDataset; run the command that makes it again"
        )
    try:
        info = json.loads(path.read_bytes().decode("utf-8-sig"))  # some editors begin a file with a mark
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"not JSON in UTF-8: {error}", where=str(path), remedy="correct the file") from error
    if not isinstance(info, dict):
        raise DatasetError(f"{path} must have a JSON object, not {type(info).__name__}")
    version = info.get("codebase_version")
    if version not in (CODEBASE_VERSION, *OLDER_VERSIONS):
        read = f"{', '.join(OLDER_VERSIONS)} and {CODEBASE_VERSION} are read"
        raise DatasetError(f"codebase_version is {version!r}; {read}", where=str(path), remedy=CONVERSION)
    return info


def unreadable(path: Path, error: Exception) -> DatasetError:
    """Of a data or video file: whether it is damaged, or was never downloaded."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            return DatasetError(
                "its content was not downloaded, this is only a pointer of Git LFS",
                where=str(path),
                remedy="run `git lfs pull` in the dataset",
            )
    remedy = "download it again, or delete it and run the command that makes it again"
    return DatasetError(f"unreadable ({error})", where=str(path), remedy=remedy)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(path, error) from error


def open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(path, error) from error


def natural(path: Path) -> list:
    """Sort key that orders file-2 before file-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.as_posix())]


def element_names(names: Any) -> tuple[str, ...]:
    """Names of elements in the forms that occur: None, lists, lists of lists, {name: index}, and lists by group.

    Names that several groups have in common get their group as a prefix.
    """
    if isinstance(names, Mapping):
        if names and all(type(index) is int for index in names.values()):
            return tuple(sorted(map(str, names), key=lambda name: names[name]))
        groups = {str(group): element_names(members) for group, members in names.items()}
        flat = tuple(name for members in groups.values() for name in members)
        if len(set(flat)) == len(flat):
            return flat
        return tuple(f"{group}/{name}" for group, members in groups.items() for name in members)
    if isinstance(names, (list, tuple)):
        return tuple(name for part in names for name in element_names(part))
    return () if names is None else (str(names),)


# --- info.json --------------------------------------------------------------------------------------------------------


def _validated(root: Path, info: dict[str, Any]) -> _Info:
    try:
        return _Info.model_validate(info)
    except ValidationError as error:
        problem = error.errors()[0]
        key, given = ".".join(map(str, problem["loc"])), problem["input"]
        given = "missing" if problem["type"] == "missing" else repr(given)
        raise DatasetError(
            f"{key} is {given}: {problem['msg']}", where=f"{root}/meta/info.json", remedy="correct the file"
        ) from error


def _filled(root: Path, template: str, key: str, numbers: Mapping[str, int], usual: str) -> Path:
    """A path below the dataset; its template may have a camera and integers, and nothing that Python evaluates."""
    try:
        fields = [(name, form) for _, name, form, conversion in Formatter().parse(template) if name is not None]
        known = all(
            name == "video_key" or (name in numbers and INTEGER_FORMAT.fullmatch(form or "")) for name, form in fields
        )
    except ValueError:
        known = False
    if not known:
        raise DatasetError(
            f"video_path is {template!r}",
            where=f"{root}/meta/info.json",
            remedy=f"write {usual!r}, as this version has",
        )
    path = root / template.format(video_key=key, **numbers)
    if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(root)):  # files of a hub's cache are links
        raise DatasetError(f"{root}/meta/info.json: video_path {template!r} leads out of the dataset, to {path}")
    return path


# --- episodes and tasks -----------------------------------------------------------------------------------------------


def _episode_rows(root: Path, older: bool) -> list[dict]:
    """One row per episode that has rows, in order, without statistics."""
    rows = list(_json_lines(root, root / "meta/episodes.jsonl") if older else _episode_tables(root))
    for row in rows:
        wrong = [key for key in ("episode_index", "length") if type(row.get(key)) is not int]
        if wrong:
            raise DatasetError(f"{root}/meta/episodes: an episode has no integer {' and '.join(wrong)}: {row}")
    return sorted((row for row in rows if row["length"]), key=lambda row: row["episode_index"])


def _episode_tables(root: Path) -> Iterator[dict]:
    paths = sorted(root.glob("meta/episodes/**/*.parquet"), key=natural)
    if not paths:
        raise DatasetError(
            f"{root}: no files in meta/episodes; run the command that makes it again, or download it again"
        )
    for path in paths:
        file = open_parquet(path)
        names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        yield from file.read(columns=names).to_pylist()


def _json_lines(root: Path, path: Path) -> Iterator[dict]:
    """The objects of a file of v2.0 or v2.1."""
    if not path.is_file():
        version = read_info(root)["codebase_version"]
        raise DatasetError(f"no {path.relative_to(root)}, which {version} has", where=str(root), remedy=CONVERSION)
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                found = json.loads(line.decode("utf-8-sig"))
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                where, remedy = f"{path}:{number}", "correct the line, and save the file as UTF-8"
                raise DatasetError(f"not JSON in UTF-8: {error}", where=where, remedy=remedy) from error
            if not isinstance(found, dict):
                raise DatasetError(f"{path}:{number}: a line must be a JSON object, not {type(found).__name__}")
            yield found


def _ranges(root: Path, rows: list[dict], frames: int) -> np.ndarray:
    if not rows:
        raise DatasetError(f"{root}/meta/episodes has no episode")
    ends = np.cumsum([row["length"] for row in rows])
    ranges = np.array(
        [
            (row.get("dataset_from_index", e - row["length"]), row.get("dataset_to_index", e))
            for row, e in zip(rows, ends, strict=True)
        ]
    )
    broken = np.flatnonzero((ranges[:, 1] <= ranges[:, 0]) | (ranges[:, 0] != np.concatenate([[0], ranges[:-1, 1]])))
    if len(broken) or ranges[-1, 1] != frames:
        which = int(broken[0]) if len(broken) else len(rows) - 1
        raise DatasetError(
            f"it does not cover the {frames} frames in data/: episode {rows[which]['episode_index']} is rows "
            f"{ranges[which, 0]} … {ranges[which, 1]}",
            where=f"{root}/meta/episodes",
            remedy="download it again",
        )
    return ranges


def _tasks_of_table(root: Path) -> dict[int, str]:
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


def _tasks_of_lines(root: Path) -> dict[int, str]:
    path = root / "meta/tasks.jsonl"
    rows = list(_json_lines(root, path)) if path.is_file() else []
    if not all("task_index" in row and "task" in row for row in rows):
        raise DatasetError(f"{path}: every line needs task_index and task")
    return {row["task_index"]: row["task"] for row in rows}
