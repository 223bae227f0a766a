# SPDX-License-Identifier: Apache-2.0
"""Images and videos to what the vision tower reads: resampled, normalized and cut into patches."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from qwen_vla.model.configuration import QwenVLAConfig
from qwen_vla.model.images.resampling import Resampling
from qwen_vla.model.images.resize import checked_image, fitted_size, resized
from qwen_vla.model.images.video import steps_of

Pixels = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(gt=0, le=1)]
CHAT_IMAGE_TOKENS = 256  # of an image of a conversation, at most: 512² pixels for Qwen3.5
Picture = tuple[np.ndarray, ...]  # an image, or the frames of a step of a video


@dataclass(frozen=True)
class ImageTransform:
    """Resampling, normalization and patch layout of camera images, as in Qwen's image processor."""

    image_size: Pixels
    patch_size: Pixels
    merge_size: Pixels
    temporal_patch_size: Pixels
    image_mean: tuple[Share, Share, Share] = (0.5, 0.5, 0.5)
    image_std: tuple[Share, Share, Share] = (0.5, 0.5, 0.5)

    @property
    def grid(self) -> tuple[int, int, int]:
        side = self.image_size // self.patch_size
        return 1, side, side

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch_size // self.merge_size) ** 2

    def resize(self, image: Any) -> np.ndarray:
        """A camera's image to uint8 [size, size, 3]."""
        return resized(image, (self.image_size, self.image_size))

    def fit(self, image: Any) -> np.ndarray:
        """An image of a conversation in its own shape, as Qwen shows it, of at most `CHAT_IMAGE_TOKENS` tokens."""
        image, factor = checked_image(image), self.patch_size * self.merge_size
        height, width = image.shape[:2]
        return resized(image, fitted_size(height, width, factor, CHAT_IMAGE_TOKENS))

    def tokens_of(self, image: np.ndarray) -> int:
        """Tokens of a resized image."""
        return math.prod(image.shape[:2]) // (self.patch_size * self.merge_size) ** 2

    def pictures(self, frames: Sequence[np.ndarray]) -> list[Picture]:
        """What the vision tower reads of a camera: its image, or the steps of its video."""
        return [(frames[0],)] if len(frames) == 1 else steps_of(frames, self.temporal_patch_size)

    def on_device(self, pictures: Sequence[Picture], device: torch.device) -> dict[str, torch.Tensor]:
        """The model's inputs of a camera's pictures, resampled on a device; if one is a step of a video, all are."""
        most = max(map(len, pictures))
        frames = [frame for picture in pictures for frame in picture * (most // len(picture))]
        images = self.resampling.on_device(frames, device)
        return {
            "images": images if most == 1 else images.unflatten(0, (-1, most)),
            "image_grid_thw": torch.tensor([self.grid] * len(pictures)),
        }

    @functools.cached_property
    def _affine(self) -> dict[torch.device, tuple[torch.Tensor, torch.Tensor]]:
        return {}

    def _affine_on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Factor and offset [3] of the normalization; cached: a captured function cannot copy them to the device."""
        if device not in self._affine:
            mean, std = (np.array(values, np.float32) for values in (self.image_mean, self.image_std))
            scale, offset = (torch.from_numpy(x).to(device) for x in (1.0 / (255.0 * std), mean / std))
            self._affine[device] = scale, offset
        return self._affine[device]

    @functools.cached_property
    def resampling(self) -> Resampling:
        """`resize` as matrix products; `rounded` converts the result to pixels."""
        return Resampling(self.image_size)

    @staticmethod
    def rounded(images: torch.Tensor) -> torch.Tensor:
        """uint8 pixels of the output of `resampling`."""
        return (images + 0.5).clamp(0, 255).to(torch.uint8)

    def patchify(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [N, h, w, 3] to normalized patches [N·patches, 3·T·p·p] by merge block, on the images' device.

        Also [N, T, h, w, 3], the T frames of each step of a video; an image is the same in all of them.
        """
        scale, offset = self._affine_on(images.device)
        values = images.to(torch.float32).mul_(scale).sub_(offset)
        count, patch, merge = len(images), self.patch_size, self.merge_size
        rows, columns = (side // patch // merge for side in images.shape[-3:-1])
        values = values.view(count, -1, rows, merge, patch, columns, merge, patch, 3)
        values = values.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
        values = values.expand(-1, -1, -1, -1, -1, -1, self.temporal_patch_size, -1, -1)
        return values.reshape(count * rows * columns * merge**2, -1)


def image_transform_of(config: QwenVLAConfig) -> ImageTransform:
    """The image transform that matches a model configuration."""
    frames, side = config.patch_shape
    return ImageTransform(config.image_size, side, config.vision.spatial_merge_size, frames)
