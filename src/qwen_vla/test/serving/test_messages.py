# SPDX-License-Identifier: Apache-2.0
"""Untrusted frames: arrays arrive unchanged, everything else is refused with the field's name."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qwen_vla.serving.messages import MAX_ITEMS, RequestError, openpi_array, pack, unpack

ARRAY = {b"__ndarray__": True, b"data": bytes(12), b"dtype": "<f4", b"shape": (3,)}


@given(arrays.arrays(arrays.scalar_dtypes().filter(lambda kind: kind.kind in "biuf"), arrays.array_shapes(max_dims=4)))
def test_an_array_comes_through_bit_for_bit(array: np.ndarray) -> None:
    back = unpack(pack({"a": {"b": array}}, openpi_array))["a"]["b"]
    assert back.dtype == array.dtype and back.shape == array.shape and back.tobytes() == array.tobytes()


def test_plain_values_and_numpy_numbers_come_through() -> None:
    fields = {"text": "grün", "number": np.float32(1.5), "list": [1, None, True], "map": {"x": 2.5}}
    assert unpack(pack(fields, openpi_array)) == {**fields, "number": 1.5}
    number = {b"__npgeneric__": True, b"data": 7, b"dtype": "<i8"}
    assert unpack(msgpack.packb({"n": number})) == {"n": np.int64(7)}


@pytest.mark.parametrize(
    "change, told",
    [
        ({b"data": bytes(11)}, "cannot have 11 bytes"),
        ({b"data": "text"}, "must be bytes"),
        ({b"dtype": "|O"}, "numbers"),
        ({b"dtype": "<c8"}, "numbers"),
        ({b"dtype": "|V0"}, "numbers"),
        ({b"dtype": "f4" * 100}, "must be its name"),
        ({b"dtype": "nonsense"}, "not understood"),
        ({b"dtype": None}, "must be its name"),
        ({b"shape": (-3,)}, "non-negative integers"),
        ({b"shape": (2**40, 2**40)}, "cannot have"),
        ({b"shape": (True, 3)}, "non-negative integers"),
        ({b"shape": (1,) * 40}, "at most"),
        ({b"shape": 3}, "must be a list"),
    ],
)
def test_an_array_that_is_none_is_refused_by_the_name_of_its_field(change: dict, told: str) -> None:
    with pytest.raises(RequestError, match=rf"^images\.ego: .*{told}"):
        unpack(msgpack.packb({"images": {"ego": ARRAY | change}}))


def test_an_array_that_lacks_a_part_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^state: the array lacks b'shape'"):
        unpack(msgpack.packb({"state": {b"__ndarray__": True, b"data": b"", b"dtype": "<f4"}}))


@pytest.mark.parametrize(
    "frame, told",
    [
        ("text", "text"),
        (b"", "not MessagePack"),
        (b"\xc1", "not MessagePack"),
        (msgpack.packb({"a": 1}) + b"\x00", "not MessagePack"),
        (msgpack.packb([1, 2]), "map of fields"),
        (msgpack.packb({1: 2}), "not MessagePack with strings as keys"),
        (msgpack.packb({"list": list(range(MAX_ITEMS))}), f"more than {MAX_ITEMS}"),
        (msgpack.packb({"list": [[[]] * 99] * 999}), f"more than {MAX_ITEMS}"),
        (b"\x81\xa1a" * 20 + b"\xc0", "nested"),
        (b"\x91" * 100_000, "not MessagePack"),
        (b"\xdf\xff\xff\xff\xff", "not MessagePack"),
        (b"\x81\xa1a\xc6\xff\xff\xff\xff", "not MessagePack"),
        (b"\x81\xa1a\xd6\xff\x00\x00\x00\x00\x00", "not MessagePack"),
    ],
)
def test_what_is_no_map_of_fields_is_refused(frame: bytes | str, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        unpack(frame)


@given(st.binary(max_size=300))
def test_any_bytes_are_fields_or_refused(frame: bytes) -> None:
    try:
        assert isinstance(unpack(frame), dict)
    except RequestError:
        pass


@given(st.data())
def test_a_damaged_frame_is_fields_or_refused(data: st.DataObject) -> None:
    frame = bytearray(pack({"images": {"ego": np.zeros((2, 2, 3), np.uint8)}, "prompt": "go", "seed": 1}, openpi_array))
    for place in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=4)):
        frame[place] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(unpack(bytes(frame)), dict)
    except RequestError:
        pass
