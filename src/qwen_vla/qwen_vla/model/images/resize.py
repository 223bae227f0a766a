# SPDX-License-Identifier: Apache-2.0
"""The one resampling of images for the model, in training and in inference. Free of torch.

`resampling.py` does the same on a GPU.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np


def checked_image(image: Any) -> np.ndarray:
    """An H×W×3 uint8 RGB image; ValueError if it is not one."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"an image must be H×W×3 uint8 RGB, got shape {image.shape} of {image.dtype}")
    return image


def shrinks(image: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether resizing an image to (height, width) averages by area."""
    return image.shape[0] >= size[0] and image.shape[1] >= size[1]


def fitted_size(height: int, width: int, factor: int, most: int) -> tuple[int, int]:
    """Height and width in multiples of `factor`, at most `most` squares of it, nearest to an image's own [pixels]."""
    shrink = math.sqrt(height * width / most) / factor
    if shrink <= 1:
        sides = (round(side / factor) for side in (height, width))
    else:
        sides = (math.floor(side / factor / shrink) for side in (height, width))
    rows, columns = (min(max(side, 1), most) for side in sides)
    return rows * factor, columns * factor


def resized(image: Any, size: tuple[int, int]) -> np.ndarray:
    """Any RGB image to uint8 [height, width, 3]: area averaging for shrinking, bilinear for enlarging."""
    image = checked_image(image)
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks(image, size) else cv2.INTER_LINEAR)
