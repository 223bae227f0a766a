# SPDX-License-Identifier: Apache-2.0
"""Writes small LeRobotDatasets as others' programs do: v3.0 or v2.1, with names, units and metadata of their own."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

LENGTHS = (14, 10)
FPS = 5
CAMERAS = ("ego", "cam_wrist")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(
    root: Path,
    columns: dict,
    robot: str = "widowx",
    tasks: tuple = ("lift the cube",),
    task_of_row=lambda episode, row: 0,
    cameras: tuple = CAMERAS,
    version: str = "v3.0",
    picture=None,
    **info,
) -> Path:
    """columns: name -> (values (24, n), names). picture: (row) -> bytes of an image file. info: other keys."""
    rows = sum(LENGTHS)
    episode = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    frame = np.concatenate([np.arange(length) for length in LENGTHS])
    table = {name: [list(map(float, row)) for row in values] for name, (values, _) in columns.items()}
    table |= {"timestamp": (frame / FPS).astype(np.float32), "frame_index": frame, "index": np.arange(rows)}
    table |= {
        "episode_index": episode,
        "task_index": [task_of_row(int(e), int(f)) for e, f in zip(episode, frame, strict=True)],
    }
    cells = {
        name: pa.array(values, pa.list_(pa.float32()) if name in columns else None) for name, values in table.items()
    }
    for tag in cameras:
        found = [{"bytes": (picture or png)(row), "path": None} for row in range(rows)]
        cells[f"observation.images.{tag}"] = pa.array(found, IMAGE)
    features = {n: {"dtype": "float32", "shape": [v.shape[1]], "names": names} for n, (v, names) in columns.items()}
    features |= {
        f"observation.images.{tag}": {"dtype": "image", "shape": [32, 32, 3], "names": None} for tag in cameras
    }
    scalars = {"timestamp": "float32"} | dict.fromkeys(("frame_index", "index", "episode_index", "task_index"), "int64")
    features |= {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in scalars.items()}
    features |= info.pop("features", {})
    totals = {"total_episodes": len(LENGTHS), "total_frames": rows, "fps": FPS, "robot_type": robot}
    (root / "meta").mkdir(parents=True)
    content = {"codebase_version": version, **totals, "features": features, "video_path": None, "chunks_size": 1000}
    (root / "meta/info.json").write_text(json.dumps(content | info))
    (_older if version < "v3" else _current)(root, pa.table(cells), tasks, task_of_row)
    return root


def png(row: int) -> bytes:
    """A color image that differs from row to row."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(row).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _episodes(tasks, task_of_row):
    ends = np.cumsum(LENGTHS)
    for number, (end, length) in enumerate(zip(ends, LENGTHS, strict=True)):
        listed = list(dict.fromkeys(tasks[task_of_row(number, row)] for row in range(length)))
        yield {"episode_index": number, "length": length, "tasks": listed}, int(end - length), int(end)


def _current(root, table, tasks, task_of_row):
    path = root / "data/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    with pq.ParquetWriter(path, table.schema) as writer:  # lerobot 0.6 writes a row group per episode
        for _, first, end in _episodes(tasks, task_of_row):
            writer.write_table(table.slice(first, end - first))
    rows = [row | {"dataset_from_index": a, "dataset_to_index": b} for row, a, b in _episodes(tasks, task_of_row)]
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    texts = pa.table({"task_index": np.arange(len(tasks)), "__index_level_0__": list(tasks)})
    pq.write_table(texts, root / "meta/tasks.parquet")


def _older(root, table, tasks, task_of_row):
    (root / "data/chunk-000").mkdir(parents=True)
    lines = []
    for row, first, end in _episodes(tasks, task_of_row):
        pq.write_table(
            table.slice(first, end - first), root / f"data/chunk-000/episode_{row['episode_index']:06d}.parquet"
        )
        lines.append(json.dumps(row))
    (root / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    listed = [json.dumps({"task_index": number, "task": task}) for number, task in enumerate(tasks)]
    (root / "meta/tasks.jsonl").write_text("\n".join(listed) + "\n")
