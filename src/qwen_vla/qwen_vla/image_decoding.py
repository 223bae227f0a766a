"""sensor_msgs/Image and CompressedImage to RGB, live and from bags. Free of rclpy: any object with the fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from rosbags.image import ImageError, message_to_cvimage
from rosbags.image.image import to_cvtype

# Encodings with colour and one sample grid. Grey images and depth are refused: a policy that was trained on colour sees
# nothing useful in them and would not say so.
ENCODINGS = (
    *("rgb8", "bgr8", "rgba8", "bgra8", "rgb16", "bgr16", "rgba16", "bgra16"),
    *("uyvy", "yuv422", "yuyv", "yuv422_yuy2"),
    *("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"),
)


class DecodingError(ValueError):
    """An image that cannot be read as RGB; the message names the encoding or the size."""


def to_rgb(message: Any) -> np.ndarray:
    """Decode a sensor_msgs/Image or CompressedImage.

    Args:
        message: fields height, width, encoding, is_bigendian, step and data, rows may be padded; or format and data.

    Returns:
        (height, width, 3) uint8, RGB, contiguous, not sharing memory with the message.

    Raises:
        DecodingError: an encoding that is not in ENCODINGS, data that do not fit the size, or that are damaged.
    """
    if hasattr(message, "format"):
        return _decompress(message)
    if message.encoding not in ENCODINGS:
        raise DecodingError(f"encoding '{message.encoding}' cannot be used; configure the camera for rgb8 or bgr8")
    try:
        image = message_to_cvimage(_without_padding(message), "rgb8")
    except ImageError as error:
        raise DecodingError(f"encoding '{message.encoding}' cannot be read as RGB: {error}") from error
    return np.array(image, dtype=np.uint8, order="C")


def _decompress(message: Any) -> np.ndarray:
    data = np.frombuffer(message.data, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if image is None:
        raise DecodingError(f"{len(data)} bytes with format '{message.format}' are no image that can be read")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DecodingError(
            f"format '{message.format}' holds {image.shape} {image.dtype}; only 8-bit colour can be used"
        )
    return np.ascontiguousarray(image[:, :, ::-1])


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
    height, width, step, size = message.height, message.width, message.step, len(message.data)
    row = width * channels * bits // 8
    if height < 1 or width < 1:
        raise DecodingError(f"image is empty: {width} x {height} pixels")
    if step < row or size < step * (height - 1) + row:
        raise DecodingError(f"{size} bytes with step {step} do not hold {width} x {height} pixels '{message.encoding}'")
    data = np.frombuffer(message.data, np.uint8)
    rows = np.lib.stride_tricks.as_strided(data, (height, row), (step, 1), writeable=False)
    return _Pixels(height, width, message.encoding, bool(message.is_bigendian), rows.reshape(-1))
