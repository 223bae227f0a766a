# SPDX-License-Identifier: Apache-2.0
"""The interface between data and training: a `SampleSource` provides samples, each one row of a batch.

Robots, questions, navigation, hands and synthetic motions differ only upstream of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:  # recorders import this module without torch and transformers
    from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo
    from qwen_vla.model.configuration import QwenVLAConfig
    from qwen_vla.model.normalization import Quantiles
    from qwen_vla.model.sample import Sample


class Label(NamedTuple):
    """The actions of one sample in physical units (steps, c), valid ones (same shape), and their statistics' name."""

    statistics: str
    values: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class SourceContext:
    """Settings of the training run that opens a source.

    config: of the model (image size, horizon, proprioception). held_out_share: share of the episodes that are never
    trained on. normalization: statistics by name that are kept from the checkpoint to start from.
    images: False in a stage without vision, where no sample has images. trajectory_steps: use whole trajectories of up
    to this many steps instead of chunks of the robot's own horizon.
    """

    config: QwenVLAConfig
    held_out_share: float = 0.02
    normalization: Mapping[str, Quantiles] = field(default_factory=dict)
    images: bool = True
    trajectory_steps: int | None = None


class SampleSource(Protocol):
    """One dataset of a mixture.

    training, held_out: indices for `sample`, disjoint; held_out may be empty. statistics and embodiments: the entries
    of a checkpoint needed to execute actions learned from this source (empty for pure language data); a source with
    statistics also has `label` and `use_statistics`. camera_tags: of all images in its samples. A source whose actions
    can be balanced over tasks also has `tasks`, the task of every training index.
    """

    name: str
    camera_tags: tuple[str, ...]
    training: np.ndarray
    held_out: np.ndarray
    statistics: Mapping[str, Quantiles]
    embodiments: Mapping[str, EmbodimentInfo]

    def sample(self, index: int, rng: np.random.Generator) -> Sample: ...

    def label(self, index: int) -> Label | None: ...  # None: a sample without actions

    def use_statistics(self, statistics: Mapping[str, Quantiles]) -> None: ...  # in place of its own, with their names

    def texts(self) -> Iterable[str]: ...  # texts for training a tokenizer for this source

    def provenance(self) -> dict: ...  # kind, path, seeds, counts: kept in the checkpoint's training.json
