"""Writes frames to MP4 and GIF files; a file is there when it is complete."""

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
# What a GIF gives up, step by step, until it is small enough: width [px], every n-th frame, colours.
GIF_ATTEMPTS = ((640, 2, 192), (640, 2, 96), (560, 2, 96), (480, 2, 64), (480, 3, 64), (400, 4, 48), (320, 5, 32))


def write_mp4(path: Path, frames: Iterable[np.ndarray], rate: int | Fraction, maker: str) -> int:
    """Write H×W×3 uint8 RGB frames (even sides, all of one size) as H.264 at `rate` [Hz]; returns their number.

    maker: the command, as `output_paths` knows it. Raises ValueError without any frame.
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
                raise ValueError(f"{path}: there is no frame to write")
            container.mux(stream.encode())
    return count


def write_gif(path: Path, frames: Sequence[np.ndarray], rate: float, largest: int, maker: str) -> int:
    """Write H×W×3 uint8 RGB frames of `rate` [Hz] in at most `largest` bytes, giving up detail; returns the size.

    maker: the command, as `output_paths` knows it. Raises ValueError when even the smallest picture is too large.
    """
    with complete_or_absent(path) as temporary:
        for width, step, colours in GIF_ATTEMPTS:
            _encode_gif(temporary, frames[::step], rate / step, width, colours, maker)
            size = temporary.stat().st_size
            if size <= largest:
                return size
        raise ValueError(f"{path}: {len(frames)} frames do not fit into {largest} bytes; record less")


def _encode_gif(path: Path, frames: Sequence[np.ndarray], rate: float, width: int, colours: int, maker: str) -> None:
    height = round(width * frames[0].shape[0] / frames[0].shape[1])
    pictures = [Image.fromarray(frame).resize((width, height), Image.Resampling.BOX) for frame in frames]
    # One palette for all, so that what stands still needs no bytes: from a strip of frames of the whole film.
    sample = pictures[:: max(1, len(pictures) // 8)]
    strip = Image.new("RGB", (width, height * len(sample)))
    for row, picture in enumerate(sample):
        strip.paste(picture, (0, row * height))
    # The octree keeps a small red cube red; median cut would spend the palette on shades of the large table.
    palette = strip.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    first, *rest = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    time, comment = round(1000 / rate), maker_line(maker).encode()
    first.save(path, "GIF", save_all=True, append_images=rest, duration=time, loop=0, optimize=False, comment=comment)
