"""Writing LeRobotDataset v3.0: episodes in parquet shards with PNG images inside, metadata as lerobot writes it.

A shard is one data file of whole episodes. Shards are written under a temporary name and renamed, so an interrupted
collection resumes with the first missing shard; `finalize` writes the metadata once all shards are there.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qwen_vla.data.cache import write_json
from qwen_vla.data.lerobot import (
    CODEBASE_VERSION,
    DATA_PATH,
    EPISODES_PATH,
    INDEX_COLUMNS,
    SHARDS_PER_FOLDER,
    DatasetError,
    Feature,
    column_to_numpy,
    read_table,
    shard_path,
)


@dataclass
class Recording:
    """A demonstration to be written: the sentence, and per feature one row per frame (images: H×W×3 uint8 RGB)."""

    task: str
    frames: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.frames.values())))


def encode_png(image: np.ndarray) -> bytes:
    """PNG of an RGB image, fast compression."""
    return cv2.imencode(".png", image[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def write_shard(root: Path, shard: int, episodes: list[Recording], features: dict[str, Feature], fps: float) -> None:
    """Write the episodes (there may be none) as shard number `shard`. Global indices are filled in by `finalize`."""
    columns: dict[str, list] = {name: [] for name in features}
    for episode in episodes:
        _check(episode, features)
        for name, feature in features.items():
            columns[name] += _cells(episode.frames[name], feature)
    lengths = [len(episode) for episode in episodes]
    arrays = {name: pa.array(columns[name], type=features[name].arrow_type()) for name in features}
    frame_index = np.concatenate([np.arange(0), *(np.arange(length) for length in lengths)])
    arrays["timestamp"] = pa.array((frame_index / fps).astype(np.float32))
    arrays["frame_index"] = pa.array(frame_index)
    arrays["episode_index"] = pa.array(np.repeat(np.arange(len(lengths)), lengths))
    arrays["index"] = pa.array(np.arange(len(frame_index)))
    arrays["task_index"] = pa.array(np.zeros(len(frame_index), np.int64))
    tasks = json.dumps([episode.task for episode in episodes])
    _write_table(pa.table(arrays).replace_schema_metadata({"tasks": tasks}), shard_path(root, shard))


def finalize(
    root: Path, shards: int, features: dict[str, Feature], fps: float, robot_type: str, extra: dict | None = None
) -> None:
    """Number episodes, frames and tasks across the shards and write `meta/` (info, tasks, episodes, stats)."""
    task_indices: dict[str, int] = {}
    episodes: list[dict] = []
    numeric = [name for name, feature in features.items() if feature.dtype not in ("image", "string")]
    columns: dict[str, list] = {name: [] for name in numeric}
    for shard in range(shards):
        path = shard_path(root, shard)
        table = _number(read_table(path), shard, episodes, task_indices)
        _write_table(table, path)
        for name in columns:
            columns[name].append(column_to_numpy(table[name], features[name]))
    if not episodes:
        raise DatasetError(f"{root}: none of the recorded demonstrations succeeded; there is nothing to learn from")
    _write_table(pa.Table.from_pylist(episodes), root / EPISODES_PATH)
    _write_tasks(root, task_indices)
    write_json(root / "meta/stats.json", {name: _statistics(np.concatenate(rows)) for name, rows in columns.items()})
    totals = {
        "total_episodes": len(episodes),
        "total_frames": episodes[-1]["dataset_to_index"],
        "total_tasks": len(task_indices),
    }
    write_json(root / "meta/info.json", {**_info(robot_type, totals, features, fps), **(extra or {})})


def _cells(rows: np.ndarray, feature: Feature) -> list:
    """One feature's rows as values of its column."""
    if feature.dtype == "image":
        return [{"bytes": encode_png(row), "path": None} for row in rows]
    flat = np.asarray(rows).reshape(len(rows), -1)
    return flat[:, 0].tolist() if feature.shape == (1,) else flat.tolist()


def _number(table: pa.Table, shard: int, episodes: list[dict], task_indices: dict[str, int]) -> pa.Table:
    """The shard with indices that continue those of the shards before it; extends `episodes` and `task_indices`."""
    first_episode, first_frame = len(episodes), episodes[-1]["dataset_to_index"] if episodes else 0
    tasks = json.loads(table.schema.metadata[b"tasks"])
    _, local = np.unique(table["episode_index"].to_numpy(), return_inverse=True)
    ids = np.array([task_indices.setdefault(task, len(task_indices)) for task in tasks], np.int64)
    frame = first_frame
    for task, length in zip(tasks, np.bincount(local).tolist(), strict=True):
        episodes.append(_episode_row(len(episodes), task, length, frame, shard))
        frame += length
    table = _replace(table, "episode_index", local + first_episode)
    table = _replace(table, "index", np.arange(first_frame, frame))
    return _replace(table, "task_index", ids[local])


def _check(episode: Recording, features: dict[str, Feature]) -> None:
    if set(episode.frames) != set(features):
        present, wanted = sorted(episode.frames), sorted(features)
        raise DatasetError(f"episode {episode.task!r}: features {present}, data set has {wanted}")
    for name, feature in features.items():
        rows = np.asarray(episode.frames[name])
        if rows.shape != (len(episode), *feature.shape) and rows.shape != (len(episode),):
            raise DatasetError(f"episode {episode.task!r}: {name} has shape {rows.shape}, need (N, {feature.shape})")
        if feature.dtype == "float32" and not np.isfinite(rows).all():
            row = int(np.argwhere(~np.isfinite(rows))[0][0])
            raise DatasetError(f"episode {episode.task!r}: {name} is not finite in frame {row}")


def _replace(table: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(np.asarray(values, np.int64)))


def _info(robot_type: str, totals: dict[str, int], features: dict[str, Feature], fps: float) -> dict:
    """What `meta/info.json` says in every LeRobotDataset v3.0."""
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
        "fps": int(fps) if float(fps).is_integer() else fps,
        "splits": {"train": f"0:{totals['total_episodes']}"},
        "data_path": DATA_PATH,
        "video_path": None,
        "features": {**{name: feature.to_json() for name, feature in features.items()}, **index_columns},
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
    """tasks.parquet holds the sentence as the pandas index named "task": lerobot looks tasks up by that index."""
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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    pq.write_table(table, temporary, compression="snappy")
    os.replace(temporary, path)
