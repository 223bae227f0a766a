# SPDX-License-Identifier: Apache-2.0
"""Whether a sensor_msgs/CameraInfo matches its image. Free of rclpy: any objects with the fields."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def camera_info_problem(info: Any, image: Any, topic: str) -> str:
    """Describe what is wrong with a CameraInfo; empty when it matches.

    Args:
        info: sensor_msgs/CameraInfo, or None if none was received.
        image: the sensor_msgs/Image or CompressedImage that it belongs to.
        topic: of the CameraInfo, for the message.
    """
    if info is None:
        return f"no CameraInfo on {topic}; is the camera calibrated, and does its driver publish it?"
    problems = []
    size, described = image_size(image), described_size(info)
    if size is not None and size != described:
        problems.append(
            f"{topic} is for images of {described[0]} x {described[1]} pixels, the images have {size[0]} x {size[1]}; "
            "calibrate the camera at the size that it publishes"
        )
    frame, own = info.header.frame_id.lstrip("/"), image.header.frame_id.lstrip("/")
    if frame != own:
        problems.append(f"{topic} is for frame '{frame}', the images are in '{own}'; set the same frame_id for both")
    return "; ".join(problems)


def described_size(info: Any) -> tuple[int, int]:
    """Width and height of the images that a CameraInfo describes [px]: its region of interest, after binning."""
    roi = info.roi
    width, height = (roi.width, roi.height) if roi.width and roi.height else (info.width, info.height)
    return width // max(1, info.binning_x), height // max(1, info.binning_y)


def image_size(image: Any) -> tuple[int, int] | None:
    """Width and height of an image [px]; a compressed one is not decoded. None when it cannot be read."""
    if not hasattr(image, "format"):
        return image.width, image.height
    try:
        with Image.open(io.BytesIO(image.data)) as opened:
            return opened.size
    except Exception:  # a decoder may raise anything for bytes that are not an image
        return None


def is_calibrated(info: Any) -> bool:
    """Whether a CameraInfo has a focal length; uncalibrated drivers publish zeros."""
    return bool(info.k[0])
