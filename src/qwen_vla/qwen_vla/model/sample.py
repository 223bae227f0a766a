# SPDX-License-Identifier: Apache-2.0
"""One row of a batch: inputs and targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qwen_vla.model.images.video import step_count

# Points relevant to a robot: the next target, its destination, and the robot's tips.
POINTS = ("object", "goal", "tip", "second tip")
TIPS = 2  # of the points, the last


@dataclass(frozen=True)
class PointLabels:
    """Positions of POINTS in the images of one sample, for the dense grounding head (training only).

    Rows follow the order of the sample's images and steps of histories (`images.video`). points (images, P, 3): u, v in
    0…1 and depth [m]; visible (images, P): in the image; hidden (images, P): known not to be in the image. A point that
    is neither is unknown.
    openings (TIPS,): of the grippers at the tips, 0 closed … 1 open, −1 if there is none.
    """

    points: np.ndarray
    visible: np.ndarray
    hidden: np.ndarray
    openings: np.ndarray


@dataclass(frozen=True)
class Conversation:
    """The turns before an answer, in the format of transformers' chat templates, ending with the user's.

    messages: {"role": …, "content": [{"type": "text", "text": …} | {"type": "image"}, …]}. images: H×W×3 uint8 RGB of
    any size, in the order of their places in the messages.
    """

    messages: tuple[Mapping[str, Any], ...]
    images: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One row of a batch: inputs and targets.

    text: the whole prompt, embodiment text included, or a question. images: camera tag to uint8 RGB, H×W×3 for one
    frame or T×H×W×3 for a history, oldest first; empty for text only. frame_rate: of histories [Hz]; several frames are
    shown as a video, with their times. answer: target text. actions: float32 (steps, c) normalized to −1…1 with the
    statistics of the sample's dataset. valid: (steps,) False past the end of an episode, or (steps, c) where single
    channels are missing; None: all valid. state: float32 (s,) proprioception normalized to −1…1. labels: for the
    grounding head. chat: a conversation instead of text and camera images.
    """

    text: str
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    answer: str | None = None
    actions: np.ndarray | None = None
    valid: np.ndarray | None = None
    state: np.ndarray | None = None
    labels: PointLabels | None = None
    chat: Conversation | None = None
    frame_rate: float = 2.0

    def image_counts(self, merged: int) -> dict[str, int]:
        """By camera, the number of its images, or of the steps of `merged` frames of its history."""
        return {tag: step_count(len(i), merged) if np.ndim(i) == 4 else 1 for tag, i in self.images.items()}

    def image_count(self, merged: int) -> int:
        """Number of its images and steps of histories."""
        return sum(self.image_counts(merged).values()) + (len(self.chat.images) if self.chat else 0)
