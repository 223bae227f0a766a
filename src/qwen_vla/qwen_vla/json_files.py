# SPDX-License-Identifier: Apache-2.0
"""Reads JSON written by others: every problem is one line with the file, the field and the value."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from qwen_vla.errors.validation_errors import as_text

LARGEST = 256_000_000  # [bytes] no JSON of a checkpoint, data set or result comes near
Content = TypeVar("Content")


def read_json(path: Path, model: type[Content] | Any = dict[str, Any], remedy: str = "") -> Content:
    """Read a UTF-8 JSON file as ``model``, anything that pydantic validates; types are not converted.

    Args:
        path: the file.
        model: its content's type; by default any object.
        remedy: added to the message, after a semicolon.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, not JSON, or not of that type; all fields at fault are named.
    """
    end = f"; {remedy}" if remedy else ""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file{end}")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing{end}")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path} has {size / 1e6:.0f} MB; such a file has less than {LARGEST / 1e6:.0f} MB{end}")
    try:
        return _adapter(model).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        raise ValueError(f"{path}: {as_text(error, 'the file')}{end}") from error


@cache
def _adapter(model: Any) -> TypeAdapter:
    return TypeAdapter(model)
