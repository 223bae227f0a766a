"""What training sees, whatever the data came from: a `SampleSource` gives samples, each one row of a batch.

Robots, questions, navigation, hands and synthetic motions differ before this point and nowhere after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:  # recorders import this module, which need neither torch nor transformers
    from qwen_vla.model.configuration import QwenVLAConfig
    from qwen_vla.model.normalization import Quantiles
    from qwen_vla.model.processing import EmbodimentInfo
    from qwen_vla.model.sample import Sample


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
