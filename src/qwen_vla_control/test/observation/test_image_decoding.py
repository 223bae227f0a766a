# SPDX-License-Identifier: Apache-2.0
"""Images to RGB: channel order, padding, refusal of what has no color."""

from __future__ import annotations

import array
import resource
import time
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image

from qwen_vla_control.observation.image_decoding import ENCODINGS, MOST_PIXELS, DecodingError, to_rgb

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
def test_color_encodings_give_the_same_rgb(encoding, code, padding):
    pixels = RGB if code is None else cv2.cvtColor(RGB, code)
    decoded = to_rgb(message(pixels, encoding, padding))
    assert np.array_equal(decoded, RGB) and decoded.flags.c_contiguous


def test_sixteen_bits_become_eight():
    assert np.array_equal(to_rgb(message(RGB.astype(np.uint16) * 257, "rgb16")), RGB)


PURE = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]


def flat(color, dtype=np.uint8) -> np.ndarray:
    return np.full((6, 8, 3), color, dtype)


def yuv(color) -> tuple[int, int, int]:
    """Y, U, V of a color, ITU-R BT.601 with its limited range, as the encodings of sensor_msgs have it."""
    r, g, b = np.array(color) / 255
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b
    return round(y), round(u), round(v)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv12", "nv21"])
@pytest.mark.parametrize("color", PURE)
def test_brightness_and_color_differences_become_the_color_they_stand_for(encoding, color, padding):
    y, u, v = yuv(color)
    if encoding in ("nv12", "nv21"):
        pair = (u, v) if encoding == "nv12" else (v, u)
        pixels = np.concatenate([np.full((6, 8), y), np.tile(pair, (3, 4))]).astype(np.uint8)
    else:
        pixels = np.tile((u, y, v, y) if encoding in ("uyvy", "yuv422") else (y, u, y, v), (6, 4)).astype(np.uint8)
    source = message(pixels, encoding, padding)
    source.height, source.width = 6, 8
    assert np.abs(to_rgb(source).astype(int) - color).max() <= 2


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("color", PURE[:3])
def test_every_order_of_a_bayer_filter_gives_the_color(pattern, bits, color, padding):
    value = dict(zip("rgb", color, strict=True))
    cell = np.array([value[letter] for letter in pattern]).reshape(2, 2)
    pixels = np.tile(cell, (3, 4)).astype(np.uint8)
    if bits == 16:
        pixels = pixels.astype(np.uint16) * 257
    assert np.array_equal(to_rgb(message(pixels, f"bayer_{pattern}{bits}", padding)), flat(color))


@pytest.mark.parametrize("encoding", ["rgb16", "bgra16"])
def test_sixteen_bits_in_the_other_byte_order(encoding):
    pixels = RGB if encoding == "rgb16" else cv2.cvtColor(RGB, cv2.COLOR_RGB2BGRA)
    source = message((pixels.astype(np.uint16) * 257 // 256 * 256).astype(">u2"), encoding)
    source.is_bigendian = 1
    assert np.abs(to_rgb(source).astype(int) - RGB).max() <= 1


def test_an_odd_width_that_color_pairs_cannot_fill_is_refused():
    with pytest.raises(DecodingError, match="'yuv422_yuy2'"):
        to_rgb(message(np.zeros((6, 7, 2), np.uint8), "yuv422_yuy2"))
    source = message(np.zeros((9, 7), np.uint8), "nv12")
    source.height = 6
    with pytest.raises(DecodingError, match="an even width and height, not 7 x 6"):
        to_rgb(source)


def test_the_result_does_not_share_memory_with_the_message():
    source = message(RGB, "rgb8")
    decoded = to_rgb(source)
    source.data[0] ^= 255
    assert np.array_equal(decoded, RGB)


@pytest.mark.parametrize("encoding", ["mono8", "mono16", "32FC1", "16UC1", "8UC3", "nv24", "", "nonsense"])
def test_what_has_no_plain_color_is_refused_by_name(encoding):
    with pytest.raises(DecodingError, match=f"'{encoding}'"):
        to_rgb(message(RGB, encoding))


def test_too_few_bytes_are_refused():
    short = message(RGB, "rgb8")
    short.data = short.data[:-1]
    with pytest.raises(DecodingError, match="143 bytes"):
        to_rgb(short)


@pytest.mark.parametrize("encoding", ["rgb8", "bgra16", "nv12", "bayer_rggb8"])
@pytest.mark.parametrize(("height", "width"), [(0, 0), (0, 8), (6, 0)])
def test_an_empty_image_is_refused(encoding, height, width):
    with pytest.raises(DecodingError, match=f"empty: {width} x {height} pixels"):
        to_rgb(Image(encoding=encoding, height=height, width=width, step=64, data=array.array("B", bytes(999))))


@pytest.mark.parametrize("encoding", ["rgb8", "nv12"])
def test_the_last_row_may_lack_its_padding_and_no_more(encoding):
    source = message(RGB, "rgb8", padding=5) if encoding == "rgb8" else message(np.zeros((9, 8), np.uint8), "nv12", 5)
    source.height = 6
    whole = to_rgb(source)
    source.data = source.data[:-5]
    assert np.array_equal(to_rgb(source), whole)
    source.data = source.data[:-1]
    with pytest.raises(DecodingError, match=f"{len(source.data)} bytes with step {source.step} cannot hold 8 x 6"):
        to_rgb(source)


@pytest.mark.parametrize(
    ("encoding", "row"), [("rgb8", 24), ("bgra16", 64), ("uyvy", 16), ("bayer_rggb8", 8), ("nv12", 8)]
)
def test_rows_that_are_shorter_than_their_pixels_are_refused(encoding, row):
    source = Image(encoding=encoding, height=6, width=8, step=row, data=array.array("B", bytes(999)))
    assert to_rgb(source).shape == (6, 8, 3)
    source.step = row - 1
    with pytest.raises(DecodingError, match=f"with step {row - 1} cannot hold 8 x 6 '{encoding}' pixels"):
        to_rgb(source)


@pytest.mark.parametrize(("height", "width"), [(5, 8), (6, 7), (5, 7)])
@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_planes_need_both_sides_even(encoding, height, width):
    with pytest.raises(
        DecodingError, match=f"'{encoding}' needs an even width and height, not {width} x {height} pixels"
    ):
        to_rgb(Image(encoding=encoding, height=height, width=width, step=8, data=array.array("B", bytes(999))))


def test_compressed_images_give_the_same_rgb():
    data = cv2.imencode(".png", RGB[:, :, ::-1])[1].tobytes()
    assert np.array_equal(to_rgb(CompressedImage(format="png", data=array.array("B", data))), RGB)


@pytest.mark.parametrize("data", [b"", b"nonsense", cv2.imencode(".png", RGB[:, :, 0])[1].tobytes()])
def test_compressed_images_that_are_damaged_or_gray_are_refused(data):
    with pytest.raises(DecodingError, match="format 'png'"):
        to_rgb(CompressedImage(format="png", data=array.array("B", data)))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
def test_compressed_images_may_have_more_depth_or_transparency(bits, alpha):
    pixels = cv2.cvtColor(RGB, cv2.COLOR_RGB2BGRA if alpha else cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".png", pixels if bits == 8 else pixels.astype(np.uint16) * 257)[1].tobytes()
    assert np.array_equal(to_rgb(CompressedImage(format="png", data=array.array("B", data))), RGB)


@pytest.mark.parametrize(
    ("format", "swapped"),
    [("jpeg", False), ("rgb8; jpeg compressed bgr8", False), ("rgb8; jpeg compressed rgb8", True)],
)
def test_the_format_says_whether_red_and_blue_were_swapped_before_compression(format, swapped):
    stored = flat((250, 120, 10))[:, :, :: 1 if swapped else -1]  # imencode takes blue for the first channel
    data = cv2.imencode(".jpg", stored)[1].tobytes()
    decoded = to_rgb(CompressedImage(format=format, data=array.array("B", data)))
    assert np.abs(decoded.astype(int) - (250, 120, 10)).max() <= 3


WHOLE = cv2.imencode(".png", RGB[:, :, ::-1])[1].tobytes()


@pytest.mark.parametrize("chunk", [b"IDAT", b"IEND"])
def test_a_png_that_claims_to_be_larger_than_it_is_takes_neither_time_nor_memory(chunk):
    data = bytearray(WHOLE)
    place = data.index(chunk) - 4
    data[place : place + 4] = b"\xff\xff\xff\xff"
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(DecodingError, match="not a readable image"):
        to_rgb(CompressedImage(format="png", data=array.array("B", bytes(data))))
    assert time.monotonic() - began < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "KB"


@pytest.mark.parametrize("missing", [*range(1, 14), 30, len(WHOLE) - 8, len(WHOLE) - 4])
def test_a_png_of_which_the_end_is_missing_is_refused(missing):
    with pytest.raises(DecodingError, match="not a readable image"):
        to_rgb(CompressedImage(format="png", data=array.array("B", WHOLE[:-missing])))


def test_old_publishers_swapped_red_and_blue_of_transparent_images_too():
    data = cv2.imencode(".png", np.dstack([RGB, np.full((6, 8), 255, np.uint8)]))[1].tobytes()
    decoded = to_rgb(CompressedImage(format="rgba8; png compressed rgba8", data=array.array("B", data)))
    assert np.array_equal(decoded, RGB) and decoded.flags.c_contiguous


def test_a_png_may_be_followed_by_padding():
    assert np.array_equal(to_rgb(CompressedImage(format="png", data=array.array("B", WHOLE + bytes(7)))), RGB)


def test_a_few_bytes_that_stand_for_many_pixels_are_refused():
    data = bytearray(WHOLE)
    data[16:24] = (9_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    with pytest.raises(DecodingError, match="9000 x 9000 pixels"):
        to_rgb(CompressedImage(format="png", data=array.array("B", bytes(data))))


SIZES = st.sampled_from([0, 1, 2, 3, 8, 64, 2**16, 2**31, 2**32 - 1]) | st.integers(0, 9)
COMPRESSED = [
    cv2.imencode(ending, RGB[:, :, ::-1])[1].tobytes() for ending in (".png", ".jpg", ".bmp", ".webp", ".tiff")
]


@given(SIZES, SIZES, SIZES, st.sampled_from([*ENCODINGS, "", "mono8"]), st.integers(0, 700))
def test_whatever_an_image_declares_it_is_decoded_or_refused(height, width, step, encoding, size):
    try:
        pixels = to_rgb(
            SimpleNamespace(height=height, width=width, step=step, encoding=encoding, is_bigendian=0, data=bytes(size))
        )
    except DecodingError:
        return
    assert pixels.shape == (height, width, 3) and pixels.dtype == np.uint8


@given(st.sampled_from(COMPRESSED), st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=8))
def test_whatever_was_changed_in_a_compressed_image_it_is_decoded_or_refused(whole, changes):
    data = bytearray(whole)
    for place, value in changes:
        data[place % len(data)] = value
    try:
        pixels = to_rgb(CompressedImage(format="jpeg", data=array.array("B", bytes(data))))
    except DecodingError:
        return
    assert pixels.shape[2] == 3 and pixels.size <= 3 * MOST_PIXELS


def test_depth_in_a_compressed_message_is_refused():
    data = b"\0" * 12 + cv2.imencode(".png", np.zeros((4, 4), np.uint16))[1].tobytes()
    with pytest.raises(DecodingError, match="16UC1; compressedDepth png"):
        to_rgb(CompressedImage(format="16UC1; compressedDepth png", data=array.array("B", data)))
