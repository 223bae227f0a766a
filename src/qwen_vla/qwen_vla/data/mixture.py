# SPDX-License-Identifier: Apache-2.0
"""Plans the rows of a step's mini-batch: fixed shares per source, a pure function of (seed, step).

The global batch is planned once, identically in every process; each takes its part. A run can thus stop at any step,
resume, and be split over a different number of processes without any change of data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from qwen_vla.data.samples import SampleSource
from qwen_vla.model.sample import Sample

Balance = Literal["weights", "task_and_embodiment"]


@dataclass(frozen=True)
class Row:
    """One row of a planned batch: number of the source, index in it, and seed of its randomness."""

    source: int
    index: int
    seed: int


# The members of each task (positions in `training`), and the tasks' cumulative probabilities.
Chances = tuple[list[np.ndarray], np.ndarray]


class Mixture:
    """Draws mini-batches of `batch_size` rows with a fixed share for every source.

    A source with share w gets w·batch_size rows, rounded by largest remainder; the remainder is carried to the
    next step, so that after any number of steps it is within two rows of its exact share.
    """

    def __init__(
        self,
        sources: Sequence[SampleSource],
        weights: Sequence[float],
        batch_size: int,
        seed: int,
        balance: Balance = "weights",
    ) -> None:
        self.sources, self.batch_size, self.seed = list(sources), batch_size, seed
        self.shares, self._chances = _shares(self.sources, np.asarray(weights, float), balance)
        self._counts = np.zeros(len(self.sources), np.int64)  # rows from each source before step _step
        self._step = 0

    def plan(self, step: int) -> list[Row]:
        """The rows of the global batch of `step`, in an order that mixes the sources."""
        rng = np.random.default_rng([self.seed, step])
        numbers = np.repeat(np.arange(len(self.sources)), self.counts(step))
        indices = [self._draw(number, rng) for number in numbers.tolist()]
        seeds = rng.integers(2**63, size=self.batch_size)
        order = rng.permutation(self.batch_size)
        return [Row(int(numbers[i]), int(indices[i]), int(seeds[i])) for i in order]

    def samples(self, rows: Sequence[Row]) -> list[Sample]:
        return [self.sample(row) for row in rows]

    def sample(self, row: Row) -> Sample:
        return self.sources[row.source].sample(row.index, np.random.default_rng(row.seed))

    def counts(self, step: int) -> np.ndarray:
        """Rows of each source in the batch of `step`."""
        if step < self._step:
            self._step, self._counts = 0, np.zeros_like(self._counts)
        while True:
            owed = np.round((self._step + 1) * self.batch_size * self.shares - self._counts, 9)
            counts = np.floor(np.maximum(owed, 0)).astype(np.int64)
            left = self.batch_size - counts.sum()
            # Rounded, so that equal remainders compare equal in floating point, and the first source wins.
            counts[np.argsort(np.round(counts - owed, 6), kind="stable")[:left]] += 1
            if self._step == step:
                return counts
            self._counts = self._counts + counts
            self._step += 1

    def _draw(self, number: int, rng: np.random.Generator) -> int:
        source, chances = self.sources[number], self._chances[number]
        if chances is None:
            return int(source.training[rng.integers(len(source.training))])
        tasks, cumulative = chances
        members = tasks[np.searchsorted(cumulative, rng.random(), side="right")]
        return int(source.training[members[rng.integers(len(members))]])


def _shares(
    sources: list[SampleSource], weights: np.ndarray, balance: Balance
) -> tuple[np.ndarray, list[Chances | None]]:
    """Share of every source, and per source None (uniform over its indices) or its tasks with their probabilities."""
    shares: np.ndarray = weights / weights.sum()
    chances: list[Chances | None] = [None] * len(sources)
    if balance == "weights":
        return shares, chances
    robots = [number for number, source in enumerate(sources) if source.statistics]
    by_embodiment: dict[tuple[str, ...], list[int]] = {}
    for number in robots:
        by_embodiment.setdefault(tuple(sorted(sources[number].embodiments)), []).append(number)
    pooled = shares[robots].sum()
    for numbers in by_embodiment.values():
        for number, (share, tasks) in zip(numbers, _over_tasks([sources[n] for n in numbers]), strict=True):
            shares[number] = share * pooled / len(by_embodiment)
            chances[number] = tasks
    return shares, chances


def _over_tasks(sources: list[SampleSource]) -> list[tuple[float, Chances]]:
    """Per source of one embodiment, its share and (tasks, cumulative shares): uniform over tasks, then over indices."""
    grouped = [_by_task(source) for source in sources]
    total: dict[object, int] = {}
    for groups in grouped:
        for task, members in groups.items():
            total[task] = total.get(task, 0) + len(members)
    result = []
    for groups in grouped:
        parts = np.array([len(members) / total[task] for task, members in groups.items()])
        cumulative = np.cumsum(parts / parts.sum())
        cumulative[-1] = 1.0
        result.append((parts.sum() / len(total), (list(groups.values()), cumulative)))
    return result


def _by_task(source: SampleSource) -> dict[object, np.ndarray]:
    """Task → positions in `source.training`; a source without tasks has a single one."""
    tasks = getattr(source, "tasks", None)
    if tasks is None:
        return {"": np.arange(len(source.training))}
    names, which = np.unique(np.asarray(tasks, dtype=str), return_inverse=True)
    return {name: np.flatnonzero(which == number) for number, name in enumerate(names)}
