# SPDX-License-Identifier: Apache-2.0
"""A CameraInfo belongs to the image beside it by size and frame, or the user is told what to do."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from qwen_vla_control.observation.camera_info import camera_info_problem, described_size, image_size, is_calibrated

TOPIC = "/ego/camera_info"


def info(width: int = 64, height: int = 48, frame: str = "ego", binning=(0, 0), roi=(0, 0)) -> CameraInfo:
    message = CameraInfo(width=width, height=height, binning_x=binning[0], binning_y=binning[1])
    message.header.frame_id, message.roi.width, message.roi.height = frame, *roi
    return message


def image(width: int = 64, height: int = 48, frame: str = "ego") -> Image:
    message = Image(width=width, height=height)
    message.header.frame_id = frame
    return message


def compressed(width: int = 64, height: int = 48) -> CompressedImage:
    data = cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()
    message = CompressedImage(format="jpeg", data=array.array("B", data))
    message.header.frame_id = "ego"
    return message


@pytest.mark.parametrize("picture", [image(), compressed(), image(frame="/ego")])
def test_a_camera_info_of_the_same_size_and_frame_fits(picture):
    assert camera_info_problem(info(), picture, TOPIC) == ""


def test_a_camera_info_that_has_not_come_is_named():
    assert camera_info_problem(None, image(), TOPIC) == (
        "no CameraInfo on /ego/camera_info; is the camera calibrated, and does its driver publish it?"
    )


SIZE = "/ego/camera_info is for images of 640 x 480 pixels, the images have 64 x 48; calibrate the camera at the size"
FRAME = "/ego/camera_info is for frame 'map', the images are in 'ego'; set the same frame_id for both"


@pytest.mark.parametrize("picture", [image(), compressed()])
def test_another_size_and_another_frame_are_told_each_with_what_to_do(picture):
    size = camera_info_problem(info(640, 480), picture, TOPIC)
    assert size.startswith(SIZE) and "frame" not in size
    assert camera_info_problem(info(frame="/map"), picture, TOPIC) == FRAME
    assert camera_info_problem(info(640, 480, "map"), picture, TOPIC) == f"{size}; {FRAME}"


@pytest.mark.parametrize(("width", "height"), [(65, 48), (64, 47), (48, 64)])
def test_one_side_that_differs_is_enough(width, height):
    assert f"{width} x {height}" in camera_info_problem(info(width, height), image(), TOPIC)


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (info(640, 480), (640, 480)),
        (info(640, 480, binning=(1, 1)), (640, 480)),
        (info(640, 480, binning=(2, 4)), (320, 120)),
        (info(640, 480, roi=(100, 50)), (100, 50)),
        (info(640, 480, roi=(100, 0)), (640, 480)),
        (info(640, 480, roi=(0, 50)), (640, 480)),
        (info(640, 480, roi=(101, 51), binning=(2, 2)), (50, 25)),
    ],
)
def test_it_is_for_its_region_of_interest_after_binning(message, size):
    assert described_size(message) == size


def test_the_size_of_an_image_is_width_and_height_whether_it_is_compressed_or_not():
    assert image_size(image(7, 5)) == image_size(compressed(7, 5)) == (7, 5)


@pytest.mark.parametrize("data", [b"", b"nonsense", bytes(compressed().data)[:20]])
def test_an_image_that_cannot_be_read_has_no_size_and_is_no_fault_of_its_camera_info(data):
    broken = compressed()
    broken.data = array.array("B", data)
    assert image_size(broken) is None and camera_info_problem(info(), broken, TOPIC) == ""


def test_a_calibration_has_a_focal_length():
    calibrated = info()
    assert not is_calibrated(calibrated)
    calibrated.k[0] = 525.0
    assert is_calibrated(calibrated) is True
