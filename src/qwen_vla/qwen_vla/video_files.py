# SPDX-License-Identifier: Apache-2.0
"""Writes frames to MP4 and GIF files; a file exists once it is complete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from qwen_vla.output_files import complete_or_absent
from qwen_vla.output_paths import maker_line

QUALITY = {"crf": "20", "preset": "medium"}  # of x264
# Reduced step by step until a GIF is small enough: width [px], every n-th frame, colors.
GIF_ATTEMPTS = (
    (640, 1, 192),
    (560, 1, 96),
    (480, 1, 64),
    (640, 2, 192),
    (640, 2, 96),
    (560, 2, 96),
    (480, 2, 64),
    (480, 3, 64),
    (400, 4, 48),
    (320, 5, 32),
)


def write_mp4(path: Path, frames: Iterable[np.ndarray], rate: int | Fraction, maker: str) -> int:
    """Write H×W×3 uint8 RGB frames (even sides, all the same size) as H.264 at `rate` [Hz]; returns their number.

    maker: the command, as in `output_paths`. Raises ValueError without any frame.
    """
    count = 0
    with complete_or_absent(path) as temporary:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            container.metadata["comment"] = maker_line(maker)
            stream = container.add_stream("libx264", rate=rate, options=QUALITY)
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                if not count:
                    stream.height, stream.width = frame.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                count += 1
            if not count:
                raise ValueError(f"{path}: no frames to write")
            container.mux(stream.encode())
    return count


def write_gif(path: Path, frames: Sequence[np.ndarray], rate: float, largest: int, maker: str) -> int:
    """Write H×W×3 uint8 RGB frames of `rate` [Hz] in at most `largest` bytes, reducing detail; returns the size.

    maker: the command, as in `output_paths`. Raises ValueError if even the lowest quality is too large.
    """
    with complete_or_absent(path) as temporary:
        for width, step, colors in GIF_ATTEMPTS:
            _encode_gif(temporary, frames[::step], rate / step, width, colors, maker)
            size = temporary.stat().st_size
            if size <= largest:
                return size
        raise ValueError(f"{path}: {len(frames)} frames do not fit into {largest} bytes; record fewer")


def _encode_gif(path: Path, frames: Sequence[np.ndarray], rate: float, width: int, colors: int, maker: str) -> None:
    width = min(width, frames[0].shape[1])
    height = round(width * frames[0].shape[0] / frames[0].shape[1])
    images = [Image.fromarray(frame).resize((width, height), Image.Resampling.BOX) for frame in frames]
    # One palette for all, so that static regions need no bytes: from a strip of frames of the whole video.
    sample = images[:: max(1, len(images) // 8)]
    strip = Image.new("RGB", (width, height * len(sample)))
    for row, image in enumerate(sample):
        strip.paste(image, (0, row * height))
    # The octree keeps a small red cube red; median cut would spend the palette on shades of the large table.
    palette = strip.quantize(colors, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    first, *rest = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    time, comment = round(1000 / rate), maker_line(maker).encode()
    first.save(path, "GIF", save_all=True, append_images=rest, duration=time, loop=0, optimize=False, comment=comment)
