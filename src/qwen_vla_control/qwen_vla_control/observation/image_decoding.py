# SPDX-License-Identifier: Apache-2.0
"""sensor_msgs/Image and CompressedImage to RGB, live and from bags. Free of rclpy: any object with the fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from rosbags.image import ImageError, message_to_cvimage
from rosbags.image.image import to_cvtype

from qwen_vla_control.observation.camera_info import image_size

# Encodings with color. Gray images and depth are refused: they carry nothing useful for a policy trained on color, and
# it would not notice.
PLANAR = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
ENCODINGS = (
    *("rgb8", "bgr8", "rgba8", "bgra8", "rgb16", "bgr16", "rgba16", "bgra16"),
    *("uyvy", "yuv422", "yuyv", "yuv422_yuy2", *PLANAR),
    *("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"),
    *("bayer_rggb16", "bayer_bggr16", "bayer_gbrg16", "bayer_grbg16"),
)


MOST_PIXELS = 50_000_000
PNG = b"\x89PNG\r\n\x1a\n"  # the signature


class DecodingError(ValueError):
    """An image that cannot be read as RGB; the message names the encoding or the size."""


def to_rgb(message: Any) -> np.ndarray:
    """Decode a sensor_msgs/Image or CompressedImage.

    Args:
        message: fields height, width, encoding, is_bigendian, step and data, rows may be padded; or format and data.

    Returns:
        (height, width, 3) uint8, RGB, contiguous, not sharing memory with the message.

    Raises:
        DecodingError: an encoding that is not in ENCODINGS, or data that do not fit the size or are corrupt.
    """
    if hasattr(message, "format"):
        try:
            return _decompress(message)
        except cv2.error as error:
            raise DecodingError(f"format '{message.format}' cannot be read: {error}") from error
    if message.encoding not in ENCODINGS:
        raise DecodingError(f"encoding '{message.encoding}' cannot be used; configure the camera for rgb8 or bgr8")
    try:
        if message.encoding in PLANAR:
            return cv2.cvtColor(_planes(message), PLANAR[message.encoding])
        deep = message.encoding.endswith("16")
        pixels: Any = _without_padding(message)  # has the fields that are read of an Image
        image = np.asarray(message_to_cvimage(pixels, "rgb16" if deep else "rgb8"))
    except (ImageError, cv2.error) as error:
        raise DecodingError(f"encoding '{message.encoding}' cannot be read as RGB: {error}") from error
    return np.right_shift(image, 8).astype(np.uint8) if deep else np.array(image, dtype=np.uint8, order="C")


def _decompress(message: Any) -> np.ndarray:
    size = image_size(message)
    if size is not None and size[0] * size[1] > MOST_PIXELS:  # a few bytes can claim many
        raise DecodingError(f"format '{message.format}' has {size[0]} x {size[1]} pixels, too many for a camera image")
    data = np.frombuffer(message.data, np.uint8)
    readable = size is not None and _is_whole(data)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if readable else None
    if image is None:
        raise DecodingError(f"{len(data)} bytes with format '{message.format}' are not a readable image")
    if image.ndim != 3 or image.shape[2] not in (3, 4) or image.dtype not in (np.uint8, np.uint16):
        raise DecodingError(f"format '{message.format}' has {image.shape} {image.dtype}; only color images can be used")
    if image.dtype == np.uint16:
        image = np.right_shift(image, 8).astype(np.uint8)
    if "compressed rgb" in message.format:
        # Old image_transport publishers compress RGB as if it were BGR, and declare it.
        return np.ascontiguousarray(image[:, :, :3])
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # which leaves transparency out


def _is_whole(data: np.ndarray) -> bool:
    """Whether all chunks of a PNG are there, up to the last; True for other formats.

    OpenCV allocates the size that a chunk claims, up to 4 GB for a few bytes, before it reads it.
    """
    if data[: len(PNG)].tobytes() != PNG:
        return True
    place, kind = len(PNG), b""
    while place + 12 <= len(data) and kind != b"IEND":  # length, type, content, checksum
        kind = data[place + 4 : place + 8].tobytes()
        place += 12 + int.from_bytes(data[place : place + 4].tobytes())
    return kind == b"IEND" and place <= len(data)


@dataclass(frozen=True)
class _Pixels:
    """The fields that the decoder reads, of an image whose rows have no padding."""

    height: int
    width: int
    encoding: str
    is_bigendian: bool
    data: np.ndarray


def _without_padding(message: Any) -> _Pixels:
    bits, _, _, channels = to_cvtype(message.encoding)
    data = _rows(message, message.width * channels * bits // 8, message.height)
    data = np.ascontiguousarray(data).reshape(-1)
    return _Pixels(message.height, message.width, message.encoding, bool(message.is_bigendian), data)


def _planes(message: Any) -> np.ndarray:
    """Luma, and below it half as many rows of chroma."""
    if message.height % 2 or message.width % 2:
        raise DecodingError(
            f"'{message.encoding}' needs an even width and height, not {message.width} x {message.height} pixels"
        )
    return np.ascontiguousarray(_rows(message, message.width, message.height * 3 // 2))


def _rows(message: Any, row: int, count: int) -> np.ndarray:
    """`count` rows of `row` bytes without their padding, a view where there is none."""
    height, width, step, size = message.height, message.width, message.step, len(message.data)
    if height < 1 or width < 1:
        raise DecodingError(f"image is empty: {width} x {height} pixels")
    if step < row or size < step * (count - 1) + row:
        raise DecodingError(f"{size} bytes with step {step} cannot hold {width} x {height} '{message.encoding}' pixels")
    data = np.frombuffer(message.data, np.uint8)
    return np.lib.stride_tricks.as_strided(data, (count, row), (step, 1), writeable=False)
