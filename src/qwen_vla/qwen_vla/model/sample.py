"""One row of a batch: what is shown, and what is to be learned from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

# Of interest to a robot: what is to be reached next, where that is to be brought or driven, and its own tips.
POINTS = ("object", "goal", "tip", "second tip")
TIPS = 2  # of the points, the last


@dataclass(frozen=True)
class PointLabels:
    """Where POINTS are in the images of one sample, for the dense grounding head (training only).

    Rows follow the order of the sample's images. points (images, P, 3): u, v in 0…1 and depth [m]; visible (images, P):
    in the image; hidden (images, P): asked for, and not in the image. Of a point that is neither nothing is known.
    openings (TIPS,): of the grippers at the tips, 0 closed … 1 open, −1 where there is none.
    """

    points: np.ndarray
    visible: np.ndarray
    hidden: np.ndarray
    openings: np.ndarray


@dataclass(frozen=True)
class Sample:
    """One row of a batch: what is shown, and what is to be learned from it.

    text: the whole prompt, embodiment text included, or a question. images: camera tag to uint8 RGB, H×W×3 for one
    frame or T×H×W×3 for a history, oldest first; empty for text only. answer: text to learn. actions: float32
    (steps, c) normalised to −1…1 with the statistics of the sample's data set. valid: (steps,) False past the end of an
    episode, or (steps, c) where single channels are missing; None: all valid. state: float32 (s,) proprioception
    normalised to −1…1. labels: for the grounding head.
    """

    text: str
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    answer: str | None = None
    actions: np.ndarray | None = None
    valid: np.ndarray | None = None
    state: np.ndarray | None = None
    labels: PointLabels | None = None
