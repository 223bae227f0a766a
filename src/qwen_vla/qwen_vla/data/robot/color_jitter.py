# SPDX-License-Identifier: Apache-2.0
"""Augments light and cameras for training: random small changes of the colors of a sample's images."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

LEVELS = np.linspace(0, 1, 256)


def jittered(images: Mapping[str, np.ndarray], strength: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """New images (H×W×3 uint8 RGB, or T×H×W×3): per channel gain·level^gamma + offset.

    strength 0.2: gains of 0.8 to 1.25 (half of it common to all channels), gammas likewise, offsets of ±0.05. The
    light is common to all cameras; each one differs from it by a third of that.
    """
    common = _curve(strength, rng)
    return {tag: _changed(image, _levels(common, _curve(strength / 3, rng))) for tag, image in images.items()}


def _changed(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return cv2.LUT(image.reshape(-1, *image.shape[-2:]), levels).reshape(image.shape)


def _curve(strength: float, rng: np.random.Generator) -> np.ndarray:
    """(3, 3) per channel: log gain, log gamma, offset."""
    shared, own = rng.uniform(-1, 1, (1, 3)), rng.uniform(-1, 1, (3, 3))
    return strength * np.array([1.0, 1.0, 0.25]) * (shared + own) / 2


def _levels(*curves: np.ndarray) -> np.ndarray:
    """(1, 256, 3) the mapped levels."""
    gain, gamma, offset = sum(curves, np.zeros((3, 3))).T
    values = np.exp(gain) * LEVELS[:, None] ** np.exp(gamma) + offset
    return np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)[None]
