# SPDX-License-Identifier: Apache-2.0
"""User images: addresses in JSON Lines files, decoded for display."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import AfterValidator, BeforeValidator

from embodiment_descriptions.prompt import image_marker
from qwen_vla.model.images.resize import resized

DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,(.*)", re.DOTALL)


def _tag(value: str) -> str:
    image_marker(value)
    return value


def _by_camera(frames: Any) -> Any:
    return {"ego": frames} if isinstance(frames, list) else frames


CameraTag = Annotated[str, AfterValidator(_tag)]
# Image addresses in time order by camera tag; a plain list means the camera `ego`.
CameraFrames = Annotated[dict[CameraTag, tuple[str, ...]], BeforeValidator(_by_camera)]


def check_address(folder: Path, address: str) -> None:
    """ValueError if an image address has no known form or its file is missing; nothing is decoded."""
    if address.startswith("data:"):
        if not DATA_URI.fullmatch(address):
            raise ValueError(f"{address[:40]!r}… is not a data URI of the form data:image/png;base64,…")
    elif address.startswith(("http://", "https://")):
        raise ValueError(f"{address}: download images first; training reads files and data URIs only")
    elif not _file(folder, address).is_file():
        raise ValueError(f"no such image: {_file(folder, address)}")


def open_image(folder: Path, address: str) -> Image.Image:
    """Decode an image for display: upright by its EXIF tag, RGB, transparency over white.

    Raises:
        ValueError: it cannot be decoded.
    """
    try:
        match = DATA_URI.fullmatch(address)
        stream: Any = io.BytesIO(base64.b64decode(match[1], validate=True)) if match else _file(folder, address)
        with Image.open(stream) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                layer = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
            return upright.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, binascii.Error, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot open the image {address[:80]!r}: {error}") from error


def image_facts(folder: Path, address: str) -> tuple[int, int, str]:
    """Width and height [px] and format of an image, which is decoded; ValueError if it cannot be."""
    decoded = open_image(folder, address)
    match = DATA_URI.fullmatch(address)
    form = Path(_file(folder, address)).suffix.lstrip(".") if not match else address[len("data:image/") :].split(";")[0]
    return decoded.width, decoded.height, form.lower()


def _file(folder: Path, address: str) -> Path:
    return folder / address.removeprefix("file://")


def pictures(
    folder: Path, frames: Mapping[str, Sequence[str]], chosen: Sequence[int], size: int
) -> dict[str, np.ndarray]:
    """Frames number `chosen` of every camera as T×size×size×3 uint8, in that order."""
    found = {}
    for tag, addresses in frames.items():
        found[tag] = np.stack([resized(open_image(folder, addresses[i]), (size, size)) for i in chosen])
    return found
