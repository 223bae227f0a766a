# SPDX-License-Identifier: Apache-2.0
"""The unified action tensor Y ∈ R^{H×K} with its mask M ∈ {0,1}^{H×K} (arXiv 2605.30280 §2.4).

A task fills the first c ≤ K channels and the first H_task ≤ H steps; everything else is zero and masked.
"""

from __future__ import annotations

import numpy as np


def action_mask(steps: int, channels: int, horizon: int, width: int) -> np.ndarray:
    """Boolean mask [horizon, width] of a task with ``steps`` steps and ``channels`` channels."""
    if not (0 < steps <= horizon and 0 < channels <= width):
        raise ValueError(f"a chunk of {steps}×{channels} does not fit the unified tensor of {horizon}×{width}")
    mask = np.zeros((horizon, width), dtype=bool)
    mask[:steps, :channels] = True
    return mask


def pack(
    actions: np.ndarray, horizon: int, width: int, valid: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Place ``actions`` [..., steps, c] into float32 [..., horizon, width] and return it with its boolean mask.

    ``valid`` [..., steps] marks existing steps (False past the end of an episode), or [..., steps, c] existing values
    (False for a hand out of view); the others are zeroed and masked.
    """
    actions = np.asarray(actions, dtype=np.float32)
    steps, channels = actions.shape[-2:]
    mask = np.broadcast_to(action_mask(steps, channels, horizon, width), (*actions.shape[:-2], horizon, width)).copy()
    if valid is not None:
        valid = np.asarray(valid, dtype=bool)
        mask[..., :steps, :channels] &= valid if valid.shape == actions.shape else valid[..., None]
    packed = np.zeros(mask.shape, dtype=np.float32)
    packed[..., :steps, :channels] = actions
    return np.where(mask, packed, np.float32(0.0)), mask


def unpack(packed: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The task's [steps, c] block of one packed chunk [H, K]; the mask [H, K] must be such a block."""
    mask = np.asarray(mask, dtype=bool)
    steps, channels = int(mask.any(axis=1).sum()), int(mask.any(axis=0).sum())
    if not mask[:steps, :channels].all() or mask.sum() != steps * channels or not steps:
        raise ValueError("the mask is not a leading block of steps and channels; select by the mask instead")
    return np.asarray(packed)[:steps, :channels]
