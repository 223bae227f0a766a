# SPDX-License-Identifier: Apache-2.0
"""Resampling of camera images as matrix products, for devices on which OpenCV does not run.

Covers everything that depends on the camera's image size, in as few calls as possible; the result is not rounded.

Weights are those of OpenCV: the mean over a pixel's area for shrinking, bilinear between pixel centers for enlarging.
Both are separable: one matrix for the rows, one for the columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from qwen_vla.model.images.resize import checked_image, shrinks


class Resampling:
    """Images of any size to ``size`` × ``size``; the matrices for each image shape and device are cached."""

    def __init__(self, size: int):
        self._size = size
        self._matrices: dict[tuple, tuple[torch.Tensor, torch.Tensor]] = {}

    def on_device(self, images: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
        """float32 [N, size, size, 3] of 0…255 on the device, of H×W×3 uint8 images of any shapes on the CPU."""
        images, order, parts = [checked_image(image) for image in images], [], []
        for shape in dict.fromkeys(image.shape for image in images):
            same = [index for index, image in enumerate(images) if image.shape == shape]
            order += same
            parts.append(self._alike(np.stack([images[index] for index in same]), device))
        resampled = parts[0] if len(parts) == 1 else torch.cat(parts)
        return resampled if order == sorted(order) else resampled[np.argsort(order)]

    def _alike(self, images: np.ndarray, device: torch.device) -> torch.Tensor:
        pixels = torch.from_numpy(images).to(device, non_blocking=True).float()
        count, height, width, _ = images.shape
        if (height, width) == (self._size, self._size):
            return pixels
        rows, columns = self._matrices_of(images[0], device)
        return columns @ (rows @ pixels.view(count, height, width * 3)).view(count, self._size, width, 3)

    def _matrices_of(self, image: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        key = (*image.shape[:2], device)
        if key not in self._matrices:
            weights = area_weights if shrinks(image, (self._size, self._size)) else linear_weights
            rows, columns = (torch.from_numpy(weights(side, self._size)).to(device) for side in image.shape[:2])
            self._matrices[key] = rows, columns
        return self._matrices[key]


def area_weights(source: int, target: int) -> np.ndarray:
    """float32 [target, source]: the share of each source pixel in a target pixel; rows sum to 1."""
    edges = np.arange(target + 1) * source / target
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(overlap, 0.0, None) * target / source).astype(np.float32)


def linear_weights(source: int, target: int) -> np.ndarray:
    """float32 [target, source]: between the two nearest pixel centers, beyond the outermost one the outermost."""
    centers = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0.0, source - 1)
    return np.clip(1.0 - np.abs(centers[:, None] - np.arange(source)), 0.0, None).astype(np.float32)
