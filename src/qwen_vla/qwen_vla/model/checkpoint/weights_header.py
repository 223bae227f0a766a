# SPDX-License-Identifier: Apache-2.0
"""The headers of weight files (safetensors): which tensors they hold. Free of torch and safetensors."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from qwen_vla.errors.validation_errors import as_text

LONGEST_HEADER = 100_000_000  # [bytes] limit of the format
LENGTH_BYTES = 8  # the header's length stands before it, little endian
Bytes8 = Literal["F64", "I64", "U64"]
Bytes4 = Literal["F32", "I32", "U32"]
Bytes2 = Literal["BF16", "F16", "I16", "U16"]
Bytes1 = Literal["I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"]
ITEM_BYTES = {
    name: size for kind, size in ((Bytes8, 8), (Bytes4, 4), (Bytes2, 2), (Bytes1, 1)) for name in get_args(kind)
}
Size = Annotated[int, Field(ge=0, le=2**48)]


class TensorRecord(BaseModel):
    """One tensor of a weight file: its type, its shape, and where its bytes begin and end."""

    model_config = ConfigDict(strict=True, frozen=True)

    dtype: Bytes8 | Bytes4 | Bytes2 | Bytes1
    shape: Annotated[tuple[Size, ...], Field(max_length=8)]
    data_offsets: tuple[Size, Size]


_HEADER = TypeAdapter(dict[str, TensorRecord | dict[str, str]])


def read_header(file: Path) -> dict[str, TensorRecord]:
    """The tensors of a weight file, by name.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is truncated, or its header and its size contradict each other.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; download or copy the checkpoint again")
    size = file.stat().st_size
    again = f"{file} is damaged or truncated ({size} bytes)"
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        if length > min(LONGEST_HEADER, size):
            raise ValueError(f"{again}; copy it again")
        text = stream.read(length)
    try:
        header = _HEADER.validate_json(text)
    except ValidationError as error:
        raise ValueError(f"{again}: {as_text(error, 'its header')}; copy it again") from error
    tensors = {name: record for name, record in header.items() if isinstance(record, TensorRecord)}
    if wrong := _misplaced(tensors):
        raise ValueError(f"{again}: {wrong}; copy it again")
    if size != LENGTH_BYTES + length + sum(_bytes(tensor) for tensor in tensors.values()):
        raise ValueError(f"{again}; copy it again")
    return tensors


def _misplaced(tensors: dict[str, TensorRecord]) -> str:
    """The first tensor whose bytes do not follow those before it; empty if there is none."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        if tensor.data_offsets != (end, end + _bytes(tensor)):
            return f"{name!r} of {tensor.dtype} {list(tensor.shape)} cannot be bytes {list(tensor.data_offsets)}"
        end = tensor.data_offsets[1]
    return ""


def _bytes(tensor: TensorRecord) -> int:
    return prod(tensor.shape) * ITEM_BYTES[tensor.dtype]
