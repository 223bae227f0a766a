# SPDX-License-Identifier: Apache-2.0
"""Cameras of a LeRobotDataset stored as videos: writing, and frame-exact reading by row.

Many episodes share a file; the row at `timestamp` of an episode is the frame at `from_timestamp + timestamp` (LeRobot
v3.0). Decoding continues from its position, and seeks to a key frame only if that is shorter.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.lerobot_meta import VideoPlace, unreadable
from qwen_vla.output_files import complete_or_absent

FILES_OPEN = 4
FRAMES_KEPT = 8
GRAY = ("gray", "mono")  # pixel formats without color; many of them are depth
CODEC, ENCODER_NAME, PIXELS = "h264", "libx264", "yuv420p"
VIDEO_FORMAT = {"video.codec": CODEC, "video.pix_fmt": PIXELS}
# Key frames are close together, for random access; crf 18 is visually close to the original.
ENCODER: dict[str, object] = {"crf": "18", "preset": "veryfast", "g": "2", "bf": "0"}


def write_video(path: Path, images: Iterable[np.ndarray], fps: float) -> None:
    """Write H×W×3 uint8 RGB images of one size as a video; the file exists once it is complete.

    Raises:
        DatasetError: sides are odd, which the pixel format does not support.
    """
    with complete_or_absent(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream(ENCODER_NAME, Fraction(fps).limit_denominator(1000))
        stream.pix_fmt, stream.options = PIXELS, ENCODER
        for number, image in enumerate(images):
            if not number:
                stream.height, stream.width = image.shape[:2]
                if image.shape[0] % 2 or image.shape[1] % 2:
                    raise DatasetError(f"{path}: images of {image.shape[:2]} have an odd side; store them as PNG")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())


class VideoFiles:
    """One camera's videos of a whole dataset."""

    def __init__(
        self,
        key: str,
        places: Sequence[VideoPlace | None],
        episodes: np.ndarray,
        stamps: np.ndarray,
        fps: float,
        place: Callable[[int], str],
    ) -> None:
        """places, episodes: of every episode, and its (first, past-last) frame; stamps: (N,) of frames in it [s]."""
        self._key, self._fps, self._place, self._stamps = key, fps, place, stamps
        self._first, self._places = episodes[:, 0], places
        self._open: OrderedDict[Path, VideoFile] = OrderedDict()

    def frame(self, row: int) -> np.ndarray:
        """H×W×3 uint8 RGB of a frame of the dataset; DatasetError names row, file and time."""
        episode = bisect.bisect_right(self._first, row) - 1
        video = self._places[episode]
        if video is None:
            raise DatasetError(
                f"{self._place(row)}: image {self._key} is missing: episode {episode} has no video of it"
            )
        path, time = video.path, video.start + float(self._stamps[row])
        try:
            return self._file(path).at(time, 0.5 / self._fps)
        except (DatasetError, av.FFmpegError, OSError) as error:
            raise DatasetError(f"{self._place(row)}: image {self._key} cannot be decoded: {path}: {error}") from error

    def codec(self) -> str:
        """Of the first video; DatasetError if there is none that can be opened."""
        path = next((place.path for place in self._places if place), None)
        if path is None:
            raise DatasetError(f"no episode has a video of {self._key}")
        try:
            return self._file(path).codec
        except (DatasetError, av.FFmpegError, OSError) as error:
            raise DatasetError(f"{path}: {error}") from error

    def _file(self, path: Path) -> VideoFile:
        if path not in self._open:
            self._open[path] = VideoFile(path)
            if len(self._open) > FILES_OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        return self._open[path]


class VideoFile:
    """Frames of one video file by time. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DatasetError("no such file")
        try:
            self._container = av.open(str(path))
        except av.FFmpegError as error:
            raise unreadable(path, error) from error
        if not self._container.streams.video:
            raise DatasetError("contains no video")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        if (self._stream.pix_fmt or "").startswith(GRAY):
            raise DatasetError(f"its pixels are {self._stream.pix_fmt}; only color images can be used")
        self.codec = self._stream.codec.canonical_name
        if self._stream.time_base is None:
            raise DatasetError("its video has no time base")
        self._base = Fraction(self._stream.time_base)
        packets = [(p.pts, p.is_keyframe) for p in self._container.demux(self._stream) if p.pts is not None]
        self._times = sorted(pts for pts, _ in packets)
        self._keys = sorted(pts for pts, is_key in packets if is_key)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._decoder: Iterator[av.VideoFrame] | None = None
        self._position = -1

    def at(self, seconds: float, tolerance: float) -> np.ndarray:
        """The frame nearest to a time; DatasetError if none is within the tolerance [s]."""
        wanted = self._nearest(seconds)
        if wanted is None or abs(self._seconds(wanted) - seconds) > tolerance:
            raise DatasetError(f"no frame at {seconds:.4f} s (± {tolerance:.4f} s); it has {len(self._times)} frames")
        if wanted not in self._kept:
            self._decode_to(wanted)
        return self._kept[wanted]

    def close(self) -> None:
        self._container.close()

    def _seconds(self, pts: int) -> float:
        return float(pts * self._base)

    def _nearest(self, seconds: float) -> int | None:
        pts = Fraction(seconds) / self._base
        place = bisect.bisect_left(self._times, pts)
        return min(self._times[max(place - 1, 0) : place + 1], key=lambda time: abs(time - pts), default=None)

    def _decode_to(self, wanted: int) -> None:
        """Decode up to a frame, from the decoder's position or from the last key frame before it."""
        key = self._keys[max(bisect.bisect_right(self._keys, wanted) - 1, 0)]
        if self._decoder is None or wanted <= self._position or key > self._position:
            self._container.seek(key, stream=self._stream, backward=True)
            self._decoder = self._container.decode(self._stream)
        for frame in self._decoder:
            if frame.pts is None:
                continue
            self._position = frame.pts
            if frame.pts == wanted:
                return self._keep(wanted, frame)
            if frame.pts > wanted:
                break
        self._decoder = None
        raise DatasetError(f"the frame at {self._seconds(wanted):.4f} s is not in the decoded video")

    def _keep(self, pts: int, frame: av.VideoFrame) -> None:
        self._kept[pts] = frame.to_ndarray(format="rgb24")
        if len(self._kept) > FRAMES_KEPT:
            self._kept.popitem(last=False)
