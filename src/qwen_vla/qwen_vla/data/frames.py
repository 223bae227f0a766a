"""Images of a data set at the model's input size, decoded once into a memory-mapped file beside the data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from qwen_vla.data.lerobot import LeRobotReader


def decoded_frames(reader: LeRobotReader, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Per image key a read-only (N, height, width, 3) uint8 array; made on first use and kept while the data is."""
    return {key: _decoded(reader, key, size) for key in reader.image_keys}


def _decoded(reader: LeRobotReader, key: str, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    shape = (len(reader), height, width, 3)
    path = reader.root / "cache" / f"{key}-{height}x{width}-{_fingerprint(reader.root)}.npy"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".tmp")
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        images = reader.images(key, lambda image: cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
        for row, image in enumerate(tqdm(images, total=len(reader), desc=f"decode {key}", unit="frame")):
            out[row] = image
        out.flush()
        os.replace(temporary, path)
    return np.load(path, mmap_mode="r")


def _fingerprint(root: Path) -> str:
    """Changes whenever a data file does: names, sizes and times of all shards."""
    parts = [f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in sorted(root.glob("data/*/*.parquet"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
