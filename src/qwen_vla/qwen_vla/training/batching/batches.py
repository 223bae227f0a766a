# SPDX-License-Identifier: Apache-2.0
"""From planned rows to tensors: the batches of one process for one step, built during the previous step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby

import numpy as np
import torch

from qwen_vla.data.mixture import Mixture, Row
from qwen_vla.data.samples import SampleSource
from qwen_vla.model.configuration import QwenVLAConfig
from qwen_vla.model.flow_matching import sample_tau
from qwen_vla.model.images.transform import ImageTransform
from qwen_vla.model.processing import QwenVLAProcessor
from qwen_vla.model.sample import Sample
from qwen_vla.training.batching.batch import Batch, joined
from qwen_vla.training.batching.resident import ResidentRow, ResidentSource
from qwen_vla.training.grounding import GroundingTargets

# Cost of a row, in tokens: those of its images pass the backbone and, with two draws of noise, twice the expert; its
# actions pass only the expert. A further batch costs as much as this many tokens (measured: tiny model, one core).
CONTEXT_PASSES, ACTION_PASSES, OVERHEAD = 3, 2, 700

AnySample = Sample | ResidentRow


class Batches:
    """The batches of one process, a function of only (seed, step); `accumulate` of them are its part of a step.

    filler: a sample without a loss that ends every batch. Processes that share a sharded model must all run all of it,
    whatever their rows are. grouped: rows of different size form separate batches, which is cheaper on a CPU than
    padding them to the largest; the number of batches varies. resident: by source, its data on the device, from which
    rows are gathered there; None: its samples are made one by one.
    """

    def __init__(
        self,
        mixture: Mixture,
        processor: QwenVLAProcessor,
        config: QwenVLAConfig,
        horizon: int | None = None,
        noise_draws: int = 1,
        accumulate: int = 1,
        process: int = 0,
        processes: int = 1,
        filler: Sample | None = None,
        grouped: bool = False,
        resident: Sequence[ResidentSource | None] = (),
    ) -> None:
        self.mixture, self.processor, self.config = mixture, processor, config
        self.horizon, self.noise_draws, self.accumulate = horizon or config.horizon, noise_draws, accumulate
        self.process, self.processes, self.filler, self.grouped = process, processes, filler, grouped
        self.resident = list(resident) or [None] * len(mixture.sources)

    def __getitem__(self, step: int) -> list[Batch]:
        """The batches of this process in `step`."""
        rows = self.mixture.plan(step)
        tau, noise, prefix = self._flow(step)
        own = self._dealt(rows)[self.process * self.accumulate : (self.process + 1) * self.accumulate]
        return [
            batch
            for part in own
            for batch in self._batches([rows[i] for i in part], tau[part], noise[part], prefix[part])
        ]

    def held_out(self, source: SampleSource, count: int) -> Batch:
        """At most `count` held-out samples, evenly spaced, the same on every call."""
        chosen = np.unique(np.linspace(0, len(source.held_out) - 1, count).astype(int))
        indices = source.held_out[chosen]
        return self.collate([source.sample(int(index), np.random.default_rng(int(index))) for index in indices])

    def collate(self, samples: list[Sample], horizon: int | None = None) -> Batch:
        """One batch of these samples, their actions padded to `horizon` steps (default: the run's)."""
        inputs = self.processor.collate(samples, horizon or self.horizon)
        merged = self.processor.image_transform.temporal_patch_size
        return Batch(inputs, grounding=GroundingTargets.of(samples, self.processor.camera_tags, merged))

    def _dealt(self, rows: Sequence[Row]) -> list[list[int]]:
        """Indices of the rows of each part. Every source is dealt evenly, so that no process waits for long rows."""
        order = sorted(range(len(rows)), key=lambda i: rows[i].source)
        parts = self.processes * self.accumulate
        return [order[part::parts] for part in range(parts)]

    def _batches(
        self, rows: Sequence[Row], tau: torch.Tensor, noise: torch.Tensor, prefix: torch.Tensor
    ) -> Iterator[Batch]:
        samples = [self._sample(row) for row in rows]
        for group in self._groups(samples):
            chosen = [samples[i] for i in group]
            steps = max(map(_steps, chosen)) if self.grouped else None
            yield self._batch(chosen, tau[group], noise[group], prefix[group], steps or self.horizon)

    def _sample(self, row: Row) -> AnySample:
        source = self.resident[row.source]
        return self.mixture.sample(row) if source is None else ResidentRow(source, row)

    def _groups(self, samples: Sequence[AnySample]) -> list[list[int]]:
        if not self.grouped:
            return [list(range(len(samples)))]
        return alike(samples, self.processor.image_transform)

    def _batch(
        self, samples: list[AnySample], tau: torch.Tensor, noise: torch.Tensor, prefix: torch.Tensor, horizon: int
    ) -> Batch:
        """The batch of these samples with their flow times [n, draws], the first steps of their noise and prefixes."""
        if self.filler is not None:
            samples = [*samples, self.filler]
            tau, noise, prefix = (torch.cat([values, values[:1]]) for values in (tau, noise, prefix))
        batch = self._tensors(samples, horizon)
        if "actions" in batch.inputs:
            batch.tau, batch.noise = tau.flatten(), noise[:, :, :horizon].flatten(0, 1)
            if self.config.prefix_steps:
                batch.prefix = torch.minimum(prefix, torch.tensor([max(0, _steps(s) - 1) for s in samples]))
        return batch

    def _tensors(self, samples: Sequence[AnySample], horizon: int) -> Batch:
        """The rows of every run of samples from one source, joined."""
        parts = []
        for source, run in groupby(samples, key=lambda sample: getattr(sample, "source", None)):
            chosen = list(run)
            if source is None:
                parts.append(self.collate([sample for sample in chosen if isinstance(sample, Sample)], horizon))
            else:
                rows = [sample.row for sample in chosen if isinstance(sample, ResidentRow)]
                parts.append(source.batch(rows, horizon))
        if len(parts) > 1:
            device = next(source.device for source in self.resident if source is not None)
            parts = [part.to(device) for part in parts]
        return joined(parts, self.processor.pad_id)

    def _flow(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Flow times [rows, draws], noise [rows, draws, H, K] and lengths of prefixes [rows] of the global batch."""
        shape, c = (self.mixture.batch_size, self.noise_draws), self.config
        seed = np.random.SeedSequence([self.mixture.seed, step]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        tau = sample_tau(
            shape[0] * shape[1],
            c.tau_distribution,
            c.tau_direction,
            c.beta_alpha,
            c.beta_beta,
            c.tau_scale,
            c.logit_normal_mean,
            c.logit_normal_std,
            generator=generator,
        )
        noise = torch.randn(*shape, self.horizon, c.channels, generator=generator)
        return tau.view(shape), noise, torch.randint(0, c.prefix_steps + 1, shape[:1], generator=generator)


def alike(samples: Sequence[AnySample], transform: ImageTransform) -> list[list[int]]:
    """Indices of the samples in the groups of least cost: of similar size, unless another pass costs more.

    Samples sorted by size, split so that n · (size of a group's largest) + OVERHEAD, summed over groups, is minimal.
    """
    merged, tokens = transform.temporal_patch_size, CONTEXT_PASSES * transform.tokens
    sizes = [sample.image_count(merged) * tokens + ACTION_PASSES * _steps(sample) for sample in samples]
    order = sorted(range(len(samples)), key=sizes.__getitem__)
    ends = [end for end in range(1, len(order)) if sizes[order[end - 1]] < sizes[order[end]]] + [len(order)]
    best: dict[int, tuple[float, list[list[int]]]] = {0: (0.0, [])}
    for end in ends:
        largest = sizes[order[end - 1]]
        best[end] = min(
            (
                (cost + OVERHEAD + (end - first) * largest, [*cut, order[first:end]])
                for first, (cost, cut) in best.items()
            ),
            key=lambda option: option[0],
        )
    return best[len(order)][1]


def _steps(sample: AnySample) -> int:
    if isinstance(sample, ResidentRow):
        return sample.steps
    return 0 if sample.actions is None else len(sample.actions)


def filler_for(processor: QwenVLAProcessor, images: bool) -> Sample:
    """A row that uses every part of the model but no loss: its only action is masked."""
    size = processor.image_transform.image_size
    blank = {processor.camera_tags[0]: np.zeros((size, size, 3), np.uint8)} if images else {}
    return Sample("nothing", blank, actions=np.zeros((1, 1), np.float32), valid=np.zeros(1, bool))


class Prefetch:
    """Provides batches in order; the next one is built in a thread during the caller's work. Measures waiting time."""

    def __init__(self, batches: Batches, first: int, end: int) -> None:
        self.waited = 0.0  # total [s]
        self._batches, self._end = batches, end
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next = self._submit(first)

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *_exc) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, step: int) -> list[Batch]:
        """The batches of `step`, which must follow the previous one."""
        if self._next is None:
            raise IndexError(f"no batches were prepared for step {step}: the last one is {self._end - 1}")
        began = time.perf_counter()
        batches = self._next.result()
        self.waited += time.perf_counter() - began
        self._next = self._submit(step + 1)
        return batches

    def _submit(self, step: int) -> Future | None:
        return self._pool.submit(self._batches.__getitem__, step) if step < self._end else None
