# SPDX-License-Identifier: Apache-2.0
"""Images of a dataset at the model's input size, decoded once into a memory-mapped file beside the data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from qwen_vla.data.formats.cache import cache_folder
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.spec import report
from qwen_vla.model.images.resize import resized
from qwen_vla.output_files import complete_or_absent, write_json

RULES = 2  # of decoding; images that were decoded by others are not used again


class ImageRows(Protocol):
    """A source of images by row: a LeRobotReader, or any EpisodeSource."""

    root: Path
    image_keys: tuple[str, ...]

    @property
    def fingerprint(self) -> str: ...

    @property
    def episodes(self) -> np.ndarray: ...

    def images(
        self, key: str, convert: Callable[[np.ndarray], np.ndarray], rows: np.ndarray | None = None
    ) -> Iterator[np.ndarray | DatasetError]: ...


@dataclass(frozen=True)
class DecodedFrames:
    """A camera's images, read-only: `frames` (M, height, width, 3) uint8; row n of the dataset has `frames[shown[n]]`;
    `bad`: by row, why its image is black instead."""

    frames: np.ndarray
    shown: np.ndarray
    bad: dict[int, str]

    def __getitem__(self, row: int) -> np.ndarray:
        return self.frames[self.shown[row]]


def decoded_frames(
    source: ImageRows, size: tuple[int, int], fresh: np.ndarray | None = None
) -> dict[str, DecodedFrames]:
    """All cameras' images by key, see `decode_camera`; DatasetError if one cannot be decoded."""
    found = {key: decode_camera(source, key, size, fresh) for key in source.image_keys}
    report([why for camera in found.values() for why in camera.bad.values()], "refuse")
    return found


def decode_camera(source: ImageRows, key: str, size: tuple[int, int], fresh: np.ndarray | None = None) -> DecodedFrames:
    """One camera's images; decoded on first use and cached until the data changes.

    fresh (N,): rows with a new image, including the first; the others repeat the previous one and are not
    decoded. Default: all.
    """
    height, width = size
    fresh = np.ones(int(source.episodes[-1][1]), bool) if fresh is None else fresh
    name = f"{key.replace('/', '.')}-{height}x{width}-{RULES}-{source.fingerprint}"
    path = cache_folder(source.root) / (f"{name}.npy" if fresh.all() else f"{name}-{fresh.sum()}.npy")
    bad_path = path.with_suffix(".bad.json")
    if not path.exists():
        _decode(source, key, size, np.flatnonzero(fresh), path)
    bad = {int(row): why for row, why in json.loads(bad_path.read_text()).items()}
    return DecodedFrames(np.load(path, mmap_mode="r"), np.cumsum(fresh) - 1, bad)


def _decode(source: ImageRows, key: str, size: tuple[int, int], rows: np.ndarray, path: Path) -> None:
    """Write the images of these rows, bad ones black, and a file with the decoding errors by row."""
    bad = {}
    with complete_or_absent(path) as temporary:
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(rows), *size, 3))
        with temporary.open("r+b") as file:  # a mapped file that finds no disk space later kills the process (SIGBUS)
            os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        images = source.images(key, lambda image: resized(image, size), rows)
        for place, image in enumerate(tqdm(images, total=len(rows), desc=f"decode {key}", unit="frame")):
            if isinstance(image, DatasetError):
                bad[int(rows[place])] = str(image)
            else:
                out[place] = image
        out.flush()
        write_json(path.with_suffix(".bad.json"), bad)  # before the frames, whose presence implies both
