"""What training sees, whatever the data came from: a `Sample` is one row of a batch, a `SampleSource` gives samples.

Robots, questions, navigation, hands and synthetic motions differ before this point and nowhere after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from qwen_vla.model.configuration import QwenVLAConfig
    from qwen_vla.model.normalization import Quantiles
    from qwen_vla.model.processing import EmbodimentInfo


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


@dataclass(frozen=True)
class SourceContext:
    """What a source needs to know about the run that opens it.

    config: of the model (image size, horizon, proprioception). held_out_share: share of the episodes that are never
    trained on. normalization: statistics by data set that a checkpoint to start from already has; they are kept.
    images: False in a stage without vision, where no sample has images. trajectory_steps: give whole trajectories of up
    to this many steps instead of chunks of the robot's own horizon.
    """

    config: QwenVLAConfig
    held_out_share: float = 0.02
    normalization: Mapping[str, Quantiles] = field(default_factory=dict)
    images: bool = True
    trajectory_steps: int | None = None


class SampleSource(Protocol):
    """One data set of a mixture.

    training, held_out: indices for `sample`, disjoint; held_out may be empty. statistics and embodiments: what the
    checkpoint must keep so that actions learned from this source can be executed (empty for pure language data).
    camera_tags: of all images that its samples can have. A source whose actions can be balanced over tasks also has
    `tasks`, the task of every training index.
    """

    name: str
    camera_tags: tuple[str, ...]
    training: np.ndarray
    held_out: np.ndarray
    statistics: Mapping[str, Quantiles]
    embodiments: Mapping[str, EmbodimentInfo]

    def sample(self, index: int, rng: np.random.Generator) -> Sample: ...

    def texts(self) -> Iterable[str]: ...  # what a tokenizer for this source should have seen

    def provenance(self) -> dict: ...  # kind, path, seeds, counts: kept in the checkpoint's training.json
