"""Images to RGB: channel order, padding, refusal of what has no colour."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from qwen_vla.image_decoding import DecodingError, to_rgb

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def message(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    rows = pixels.reshape(pixels.shape[0], -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    image = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows.shape[1])
    image.data = array.array("B", rows.tobytes())
    return image


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "code"),
    [("rgb8", None), ("bgr8", cv2.COLOR_RGB2BGR), ("rgba8", cv2.COLOR_RGB2RGBA), ("bgra8", cv2.COLOR_RGB2BGRA)],
)
def test_colour_encodings_give_the_same_rgb(encoding, code, padding):
    pixels = RGB if code is None else cv2.cvtColor(RGB, code)
    decoded = to_rgb(message(pixels, encoding, padding))
    assert np.array_equal(decoded, RGB) and decoded.flags.c_contiguous


def test_sixteen_bits_become_eight():
    assert np.array_equal(to_rgb(message(RGB.astype(np.uint16) * 257, "rgb16")), RGB)


def test_yuv_and_bayer_are_colour_too():
    assert to_rgb(message(np.full((6, 8, 2), 128, np.uint8), "yuv422_yuy2")).shape == (6, 8, 3)
    assert to_rgb(message(np.full((6, 8), 128, np.uint8), "bayer_rggb8")).shape == (6, 8, 3)


def test_the_result_does_not_share_memory_with_the_message():
    source = message(RGB, "rgb8")
    decoded = to_rgb(source)
    source.data[0] ^= 255
    assert np.array_equal(decoded, RGB)


@pytest.mark.parametrize("encoding", ["mono8", "mono16", "32FC1", "8UC3", "nv12", "", "nonsense"])
def test_what_has_no_plain_colour_is_refused_by_name(encoding):
    with pytest.raises(DecodingError, match=f"'{encoding}'"):
        to_rgb(message(RGB, encoding))


def test_too_few_bytes_are_refused():
    short = message(RGB, "rgb8")
    short.data = short.data[:-1]
    with pytest.raises(DecodingError, match="143 bytes"):
        to_rgb(short)


def test_an_empty_image_is_refused():
    with pytest.raises(DecodingError, match="empty"):
        to_rgb(Image(encoding="rgb8"))


def test_compressed_images_give_the_same_rgb():
    data = cv2.imencode(".png", RGB[:, :, ::-1])[1].tobytes()
    assert np.array_equal(to_rgb(CompressedImage(format="png", data=array.array("B", data))), RGB)


@pytest.mark.parametrize("data", [b"", b"nonsense", cv2.imencode(".png", RGB[:, :, 0])[1].tobytes()])
def test_compressed_images_that_are_damaged_or_grey_are_refused(data):
    with pytest.raises(DecodingError, match="format 'png'"):
        to_rgb(CompressedImage(format="png", data=array.array("B", data)))
