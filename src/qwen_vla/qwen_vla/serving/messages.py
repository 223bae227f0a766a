# SPDX-License-Identifier: Apache-2.0
"""Frames as bounded MessagePack, and the encodings of arrays in it. Nothing in a frame is executed.

Untrusted input is decoded here, or refused with a `RequestError` that names the field.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import numpy as np
from PIL import Image

MAX_ITEMS = 20_000  # values and keys of a frame; arrays count as one
MAX_DEPTH = 8
MAX_DIMENSIONS = 6
MAX_PIXELS = 4096 * 4096  # of a compressed image
LONGEST_SIDE = 8192  # of an image [pixels]
NUMBERS = "biuf"  # kinds of dtypes that arrays may have: bool, integers, floats
ArrayEncoder = Callable[[np.ndarray], Mapping]


class RequestError(ValueError):
    """A request that cannot be answered; the message names the field and is meant for the client."""


def pack(value: Any, encode_array: ArrayEncoder) -> bytes:
    """A frame of plain values and arrays."""

    def encode(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            return encode_array(leaf)
        if isinstance(leaf, np.generic):
            return leaf.item()
        raise TypeError(f"cannot send a {type(leaf).__name__}")

    return msgpack.packb(value, default=encode)  # pyright: ignore[reportReturnType]  # None is only of packing in parts


def unpack(frame: bytes | str) -> dict[str, Any]:
    """The fields of a frame, a map; otherwise as `unpack_value`."""
    value = unpack_value(frame)
    if not isinstance(value, dict):
        raise RequestError(f"the frame must hold a map of fields, got {describe(value)}")
    return value


def unpack_value(frame: bytes | str) -> Any:
    """The value in a frame, its arrays decoded; read-only views of the frame where possible.

    Raises:
        RequestError: no MessagePack, too many values, or an invalid array.
    """
    if isinstance(frame, str):
        raise RequestError("the frame is text; send MessagePack in a binary frame")
    count = _Budget()
    try:
        raw = msgpack.unpackb(frame, object_hook=count, list_hook=count, max_map_len=MAX_ITEMS, max_array_len=MAX_ITEMS)
    except RequestError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(f"the frame is not MessagePack with strings as keys: {error}") from error
    return _decoded(raw, "", 0)


def describe(value: Any) -> str:
    """A short description of a value."""
    if isinstance(value, np.ndarray):
        return f"an array {list(value.shape)} of {value.dtype}"
    if isinstance(value, str | bytes | list | dict):
        return f"a {type(value).__name__} of length {len(value)}"
    return "nothing" if value is None else f"{value!r}"[:80]


# --- encodings of arrays ----------------------------------------------------------------------------------------------


def openpi_array(array: np.ndarray) -> dict:
    """As encoded by openpi's client."""
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


def npy_array(array: np.ndarray) -> dict:
    """As encoded by GR00T's client."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": stream.getvalue()}


def msgpack_numpy_array(array: np.ndarray) -> dict:
    """As encoded by the package msgpack-numpy."""
    return {b"nd": True, b"type": array.dtype.str, b"kind": b"", b"shape": array.shape, b"data": array.tobytes()}


def vla_eval_array(array: np.ndarray) -> dict:
    """As encoded by vla-eval, except for images."""
    return {"__ndarray__": True, "data": array.tobytes(), "dtype": array.dtype.str, "shape": array.shape}


def _decoded(value: Any, field: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise RequestError(f"{field[:200]}: nested more than {MAX_DEPTH} deep")
    if isinstance(value, list):
        return [_decoded(item, f"{field}[{index}]", depth + 1) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    for mark, decode in SPELLINGS.items():
        if mark in value:
            return _in_field(field or "the frame", decode, value)
    return {_text(key): _decoded(item, _joined(field, key), depth + 1) for key, item in value.items()}


def _in_field(field: str, decode: Callable[[dict], Any], value: dict) -> Any:
    try:
        return decode(value)
    except KeyError as error:
        raise RequestError(f"{field}: the array lacks {error}") from error
    except (ValueError, TypeError, OverflowError, OSError, SyntaxError, Warning) as error:
        raise RequestError(f"{field}: {error}") from error


def _text(key: str | bytes) -> str:
    return key if isinstance(key, str) else key.decode("utf-8", "backslashreplace")


def _joined(field: str, key: str | bytes) -> str:
    return f"{field}.{_text(key)[:80]}" if field else _text(key)[:80]


def _openpi_array(value: dict) -> np.ndarray:
    return _array(value[b"dtype"], value[b"shape"], value[b"data"])


def _openpi_number(value: dict) -> np.generic:
    number, kind = value[b"data"], _number_type(value[b"dtype"])
    if not isinstance(number, bool | int | float):
        raise ValueError(f"a number must be a number, got {describe(number)}")
    return kind.type(number)


def _npy_array(value: dict) -> np.ndarray:
    data = value["as_npy"]
    if not isinstance(data, bytes):
        raise ValueError(f"the data of an array must be bytes, got {describe(data)}")
    stream = io.BytesIO(data)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in read:
        raise ValueError(f"an array as .npy must be of version 1 or 2, got {version}")
    shape, by_columns, kind = read[version](stream)
    array = _array(kind.str, shape[::-1] if by_columns else shape, data[stream.tell() :])
    return array.T if by_columns else array


def _msgpack_numpy_array(value: dict) -> np.ndarray | np.generic:
    if value[b"nd"] is True:
        return _array(value[b"type"], value[b"shape"], value[b"data"])
    return _array(value[b"type"], (), value[b"data"])[()]


def _vla_eval_array(value: dict) -> np.ndarray:
    return _array(value["dtype"], value["shape"], value["data"])


def _vla_eval_image(value: dict) -> np.ndarray:
    """PNG, JPEG or raw bytes; the size is checked before anything is decoded."""
    if value["format"] == "raw":
        return _vla_eval_array(value)
    if not isinstance(value["data"], bytes):
        raise ValueError(f"the data of an image must be bytes, got {describe(value['data'])}")
    with warnings.catch_warnings(), Image.open(io.BytesIO(value["data"]), formats=("PNG", "JPEG")) as image:
        warnings.simplefilter("error")
        if max(image.size) > LONGEST_SIDE or math.prod(image.size) > MAX_PIXELS:
            raise ValueError(f"an image must have at most {MAX_PIXELS} pixels, got {image.size}")
        return np.asarray(image.convert("RGB"))


SPELLINGS: dict[str | bytes, Callable[[dict], Any]] = {
    b"__ndarray__": _openpi_array,
    b"__npgeneric__": _openpi_number,
    b"nd": _msgpack_numpy_array,
    "__ndarray_class__": _npy_array,
    "__image__": _vla_eval_image,
    "__ndarray__": _vla_eval_array,
}


def _array(dtype: Any, shape: Any, data: Any) -> np.ndarray:
    kind = _number_type(dtype)
    if not isinstance(data, bytes | memoryview):
        raise ValueError(f"the data of an array must be bytes, got {describe(data)}")
    if not isinstance(shape, list | tuple) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"the shape of an array must be a list of at most {MAX_DIMENSIONS}, got {describe(shape)}")
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"the shape of an array must be non-negative integers, got {shape}")
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(f"an array {list(shape)} of {kind} cannot have {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape)


def _number_type(name: Any) -> np.dtype:
    if not isinstance(name, str | bytes) or len(name) > 16:
        raise ValueError(f"the dtype of an array must be its name, got {describe(name)}")
    kind = np.dtype(_text(name))
    if kind.kind not in NUMBERS or kind.itemsize == 0:
        raise ValueError(f"arrays must be of numbers, got dtype {kind}")
    return kind


class _Budget:
    """Counts the values of a frame while it is being unpacked, and aborts at the limit."""

    def __init__(self) -> None:
        self._left = MAX_ITEMS

    def __call__(self, container: Any) -> Any:
        self._left -= 1 + len(container)
        if self._left < 0:
            raise RequestError(f"the frame has more than {MAX_ITEMS} values; send numbers as arrays")
        return container
