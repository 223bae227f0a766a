# SPDX-License-Identifier: Apache-2.0
"""Shared by contact sheets and videos: colors, font, the outcome of an episode as text, tiled camera images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import cv2
import numpy as np
from PIL import ImageFont

from qwen_vla.evaluation.summary import EpisodeRow

BACKGROUND, BRIGHT, DIM = (18, 20, 24), (240, 240, 240), (160, 165, 175)
GOOD, BAD = (70, 200, 110), (230, 80, 70)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font, so that images look the same everywhere."""
    return ImageFont.load_default(size)


def verdict(row: EpisodeRow) -> tuple[str, tuple[int, int, int]]:
    """The outcome of an episode, as text, and its color."""
    if row.success:
        return "success", GOOD
    return (f"{row.failure} ({row.ended})" if row.failure else row.ended), BAD


def shortened(text: str, size: int, width: float) -> str:
    """The text, truncated with "…" if it is wider than `width` [px]; dashes missing in the font become hyphens."""
    letters, text = font(size), text.translate(str.maketrans("–—−", "---"))
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def tiled(images: Mapping[str, np.ndarray], height: int) -> np.ndarray:
    """The cameras' images in a grid, each `height` px high, as (H, W, 3) uint8 with even sides."""
    resized = [_with_height(image, height) for image in images.values()]
    columns = math.ceil(math.sqrt(len(resized)))
    widest = max(image.shape[1] for image in resized)
    rows = math.ceil(len(resized) / columns)
    canvas = np.full((rows * height, columns * widest, 3), BACKGROUND, np.uint8)
    for place, image in enumerate(resized):
        top, left = place // columns * height, place % columns * widest
        canvas[top : top + height, left : left + image.shape[1]] = image
    return np.pad(canvas, ((0, canvas.shape[0] % 2), (0, canvas.shape[1] % 2), (0, 0)))


def _with_height(image: np.ndarray, height: int) -> np.ndarray:
    width = round(image.shape[1] * height / image.shape[0])
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=method)
