# SPDX-License-Identifier: Apache-2.0
"""All training samples of a source as columns: a batch is then a selection of rows, without any work per sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from qwen_vla.data.formats.frames import DecodedFrames
    from qwen_vla.model.sample import PointLabels

GOLDEN, MIX_1, MIX_2 = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(frozen=True)
class OtherPrompts:
    """For a share of the samples, a prompt that names another robot, and the chunk that holds this one.

    prompts (P, robots): numbers of the other robots' prompts with the task of every own prompt. rest (channels,): the
    normalized action that holds; grippers: channels that keep the chunk's first command instead.
    """

    share: float
    prompts: np.ndarray
    rest: np.ndarray
    grippers: np.ndarray


@dataclass(frozen=True)
class SampleTable:
    """The samples of n training indices, equal to those that the source's `sample` makes one by one.

    index (n,): of the source, ascending. prompts: the distinct texts; prompt (n,): number of each row's. images: by
    camera tag; frame n of the data set is its row `index`. actions (n, steps, channels) and states (n, s), float32,
    normalized. labels: point labels with a leading dimension n. color_jitter: its strength. others: None for none.
    """

    index: np.ndarray
    prompts: tuple[str, ...]
    prompt: np.ndarray
    images: Mapping[str, DecodedFrames]
    actions: np.ndarray | None = None
    states: np.ndarray | None = None
    labels: PointLabels | None = None
    color_jitter: float = 0.0
    others: OtherPrompts | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all columns, images included."""
        columns = [*(frames.frames for frames in self.images.values()), self.actions, self.states]
        columns += list(vars(self.labels).values()) if self.labels is not None else []
        return sum(column.nbytes for column in columns if column is not None)


@runtime_checkable
class Tabled(Protocol):
    """A source that also offers its training samples as columns; None where they do not suffice."""

    def table(self) -> SampleTable | None: ...


def uniforms(seeds: np.ndarray, count: int) -> np.ndarray:
    """(n, count) independent numbers in 0…1 per seed (n,), whatever the other rows are (SplitMix64)."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    state = seeds.astype(np.uint64)[:, None] + steps
    state = (state ^ (state >> np.uint64(30))) * MIX_1
    state = (state ^ (state >> np.uint64(27))) * MIX_2
    return ((state ^ (state >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
