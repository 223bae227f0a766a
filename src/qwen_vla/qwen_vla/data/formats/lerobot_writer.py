# SPDX-License-Identifier: Apache-2.0
"""Writes LeRobotDataset v3.0: episodes in parquet shards, images as PNG inside or as videos, lerobot's metadata.

A shard is one data file of whole episodes, and one video file per camera stored as video. Shards are written under a
temporary name and renamed, the data file last, so an interrupted collection resumes with the first missing shard;
`finalize` writes the metadata once all shards are there. Images are read and written one by one: an episode may be
larger than the memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qwen_vla.data.formats.lerobot import (
    DATA_PATH,
    EPISODES_PATH,
    INDEX_COLUMNS,
    SHARDS_PER_FOLDER,
    DatasetError,
    column_to_numpy,
    shard_path,
    video_path,
)
from qwen_vla.data.formats.lerobot_meta import (
    CODEBASE_VERSION,
    IMAGE_KINDS,
    IMAGE_TYPE,
    SI,
    VIDEO_PATH,
    Feature,
    read_table,
)
from qwen_vla.data.formats.lerobot_video import VIDEO_FORMAT, write_video
from qwen_vla.output_files import complete_or_absent, write_json

IMAGES_PER_GROUP = 64  # rows with images in memory, and read, at a time


@dataclass
class Recording:
    """A demonstration to be written: the instruction, and one row per frame and feature.

    Images are H×W×3 uint8 RGB, in an array or any sequence.
    """

    task: str
    frames: dict[str, np.ndarray | Sequence[np.ndarray]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.frames.values())))


def encode_png(image: np.ndarray) -> bytes:
    """PNG of an RGB image, with fast compression."""
    return cv2.imencode(".png", image[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def write_shard(root: Path, shard: int, episodes: list[Recording], features: dict[str, Feature], fps: float) -> None:
    """Write the episodes (possibly none) as shard number `shard`. `finalize` fills in the global indices."""
    for episode in episodes:
        _check(episode, features)
    for key, feature in features.items():
        if feature.dtype == "video":
            video_path(root, key, shard).unlink(missing_ok=True)  # of an earlier attempt
            if episodes:
                images = (image for episode in episodes for image in _images(episode, key, feature))
                write_video(video_path(root, key, shard), images, fps)
    stored = {name: feature for name, feature in features.items() if feature.dtype != "video"}
    types = {**{name: feature.arrow_type() for name, feature in stored.items()}, **INDEX_COLUMNS}
    schema = pa.schema(types).with_metadata({"tasks": json.dumps([episode.task for episode in episodes])})
    _write_groups(shard_path(root, shard), schema, _blocks(episodes, stored, schema, fps))


def finalize(
    root: Path, shards: int, features: dict[str, Feature], fps: float, robot_type: str, extra: dict | None = None
) -> None:
    """Number episodes, frames and tasks across the shards and write `meta/` (info, tasks, episodes, stats)."""
    task_indices: dict[str, int] = {}
    episodes: list[dict] = []
    numeric = [name for name, feature in features.items() if feature.dtype not in (*IMAGE_KINDS, "string")]
    columns: dict[str, list] = {name: [] for name in numeric}
    for shard in range(shards):
        path = shard_path(root, shard)
        _number(path, shard, features, fps, episodes, task_indices)
        table = read_table(path, numeric)
        for name in columns:
            columns[name].append(column_to_numpy(table[name], features[name]))
    if not episodes:
        raise DatasetError(f"{root}: none of the recorded demonstrations succeeded; there is nothing to train on")
    _write_table(pa.Table.from_pylist(episodes), root / EPISODES_PATH)
    _write_tasks(root, task_indices)
    write_json(root / "meta/stats.json", {name: _statistics(np.concatenate(rows)) for name, rows in columns.items()})
    totals = {
        "total_episodes": len(episodes),
        "total_frames": episodes[-1]["dataset_to_index"],
        "total_tasks": len(task_indices),
    }
    write_json(root / "meta/info.json", {**_info(robot_type, totals, features, fps), **(extra or {})})


def _blocks(
    episodes: list[Recording], features: dict[str, Feature], schema: pa.Schema, fps: float
) -> Iterator[pa.Table]:
    """The rows of the episodes, in blocks; a whole episode if there are no images."""
    first = 0
    for number, episode in enumerate(episodes):
        images = {name: _pngs(_images(episode, name, f)) for name, f in features.items() if f.dtype == "image"}
        step = IMAGES_PER_GROUP if images else len(episode)
        for begin in range(0, len(episode), step):
            rows = np.arange(begin, min(begin + step, len(episode)))
            cells: dict[str, list | np.ndarray] = {
                name: [{"bytes": next(images[name]), "path": None} for _ in rows]
                if name in images
                else _cells(episode.frames[name][begin : begin + step], feature)
                for name, feature in features.items()
            }
            cells["timestamp"] = (rows / fps).astype(np.float32)
            cells["frame_index"] = rows
            cells["episode_index"] = np.full(len(rows), number)
            cells["index"] = first + rows
            cells["task_index"] = np.zeros(len(rows), np.int64)
            arrays = [pa.array(cells[name], schema.field(name).type) for name in schema.names]
            yield pa.Table.from_arrays(arrays, schema=schema)
        first += len(episode)


def _images(episode: Recording, key: str, feature: Feature) -> Iterator[np.ndarray]:
    """The images of a camera one by one; DatasetError for a wrong size."""
    for row, image in enumerate(episode.frames[key]):
        if image.shape != feature.shape:
            raise DatasetError(f"episode {episode.task!r}: {key} is {image.shape} in frame {row}, need {feature.shape}")
        yield image


def _pngs(images: Iterator[np.ndarray]) -> Iterator[bytes]:
    """PNGs of images; a repeated one (same array) is encoded once; parquet stores it once."""
    last, encoded = None, b""
    for image in images:
        if image is not last:
            last, encoded = image, encode_png(image)
        yield encoded


def _cells(rows: np.ndarray | Sequence[np.ndarray], feature: Feature) -> list:
    """One feature's rows as the values of its column."""
    flat = np.asarray(rows).reshape(len(rows), -1)
    return flat[:, 0].tolist() if feature.shape == (1,) else flat.tolist()


def _number(
    path: Path,
    shard: int,
    features: dict[str, Feature],
    fps: float,
    episodes: list[dict],
    task_indices: dict[str, int],
) -> None:
    """Make a shard's indices continue those of the shards before it; extends `episodes` and `task_indices`."""
    first_episode, first_frame = len(episodes), episodes[-1]["dataset_to_index"] if episodes else 0
    present = read_table(path, ["episode_index", "index", "task_index"])
    tasks = json.loads(pq.read_schema(path).metadata[b"tasks"])
    _, local = np.unique(present["episode_index"].to_numpy(), return_inverse=True)
    ids = np.array([task_indices.setdefault(task, len(task_indices)) for task in tasks], np.int64)
    videos = [name for name, feature in features.items() if feature.dtype == "video"]
    frame = first_frame
    for task, length in zip(tasks, np.bincount(local).tolist(), strict=True):
        row = _episode_row(len(episodes), task, length, frame, shard)
        for key in videos:
            row |= _video_place(key, shard, (frame - first_frame) / fps, length / fps)
        episodes.append(row)
        frame += length
    numbers = {
        "episode_index": local + first_episode,
        "index": np.arange(first_frame, frame),
        "task_index": ids[local],
    }
    if any(not np.array_equal(present[name].to_numpy(), values) for name, values in numbers.items()):
        _renumber(path, numbers)


def _renumber(path: Path, numbers: Mapping[str, np.ndarray]) -> None:
    """Rewrite a shard with other indices, group by group."""
    with pq.ParquetFile(path) as file:

        def renumbered() -> Iterator[pa.Table]:
            first = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                for name, values in numbers.items():
                    table = _replace(table, name, values[first : first + len(table)])
                first += len(table)
                yield table

        _write_groups(path, file.schema_arrow, renumbered())


def _check(episode: Recording, features: dict[str, Feature]) -> None:
    if set(episode.frames) != set(features):
        present, wanted = sorted(episode.frames), sorted(features)
        raise DatasetError(f"episode {episode.task!r}: features {present}, dataset has {wanted}")
    for name, feature in features.items():
        rows = episode.frames[name]
        if feature.dtype in IMAGE_KINDS and not isinstance(rows, np.ndarray):
            if len(rows) != len(episode):
                raise DatasetError(f"episode {episode.task!r}: {len(rows)} images {name}, {len(episode)} frames")
            continue
        rows = np.asarray(rows)
        if rows.shape != (len(episode), *feature.shape) and rows.shape != (len(episode),):
            raise DatasetError(f"episode {episode.task!r}: {name} has shape {rows.shape}, need (N, {feature.shape})")
        if feature.dtype == "float32" and not np.isfinite(rows).all():
            row = int(np.argwhere(~np.isfinite(rows))[0][0])
            raise DatasetError(f"episode {episode.task!r}: {name} is not finite in frame {row}")


def _replace(table: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(np.asarray(values, np.int64)))


def _info(robot_type: str, totals: dict[str, int], features: dict[str, Feature], fps: float) -> dict:
    """The content of `meta/info.json` in every LeRobotDataset v3.0."""
    index_columns = {
        name: {"dtype": str(kind).replace("float", "float32"), "shape": [1], "names": None}
        for name, kind in INDEX_COLUMNS.items()
    }
    return {
        "codebase_version": CODEBASE_VERSION,
        "robot_type": robot_type,
        **totals,
        "chunks_size": SHARDS_PER_FOLDER,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "units": SI,
        "fps": int(fps) if float(fps).is_integer() else fps,
        "splits": {"train": f"0:{totals['total_episodes']}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if any(feature.dtype == "video" for feature in features.values()) else None,
        "features": {**{name: _feature(feature, fps) for name, feature in features.items()}, **index_columns},
    }


def _feature(feature: Feature, fps: float) -> dict:
    if feature.dtype != "video":
        return feature.to_json()
    height, width, channels = feature.shape
    about = {"video.height": height, "video.width": width, "video.channels": channels, "video.fps": fps}
    return feature.to_json() | {"info": {**about, **VIDEO_FORMAT, "video.is_depth_map": False, "has_audio": False}}


def _video_place(key: str, shard: int, begin: float, seconds: float) -> dict:
    """Position of an episode in the video file of its shard [s]."""
    prefix = f"videos/{key}"
    return {
        f"{prefix}/chunk_index": shard // SHARDS_PER_FOLDER,
        f"{prefix}/file_index": shard % SHARDS_PER_FOLDER,
        f"{prefix}/from_timestamp": begin,
        f"{prefix}/to_timestamp": begin + seconds,
    }


def _episode_row(index: int, task: str, length: int, first: int, shard: int) -> dict:
    return {
        "episode_index": index,
        "tasks": [task],
        "length": length,
        "data/chunk_index": shard // SHARDS_PER_FOLDER,
        "data/file_index": shard % SHARDS_PER_FOLDER,
        "dataset_from_index": first,
        "dataset_to_index": first + length,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }


def _write_tasks(root: Path, task_indices: dict[str, int]) -> None:
    """tasks.parquet has the instruction as pandas index named "task": lerobot looks up tasks by it."""
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
        ],
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": list(task_indices.values()), "task": list(task_indices)})
    _write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), root / "meta/tasks.parquet")


def _statistics(rows: np.ndarray) -> dict:
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    quantiles = np.quantile(rows, [0.01, 0.99], axis=0)
    return {
        "min": rows.min(0).tolist(),
        "max": rows.max(0).tolist(),
        "mean": rows.mean(0).tolist(),
        "std": rows.std(0).tolist(),
        "q01": quantiles[0].tolist(),
        "q99": quantiles[1].tolist(),
        "count": [len(rows)],
    }


def _write_table(table: pa.Table, path: Path) -> None:
    _write_groups(path, table.schema, iter([table]))


def _write_groups(path: Path, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
    """Write tables as a stream, in row groups that fit into memory; the file exists once it is complete."""
    has_images = IMAGE_TYPE in schema.types
    with complete_or_absent(path) as temporary, pq.ParquetWriter(temporary, schema, compression="snappy") as writer:
        waiting: list[pa.Table] = []
        for table in tables:
            waiting.append(table)
            if has_images and sum(map(len, waiting)) >= IMAGES_PER_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
