# SPDX-License-Identifier: Apache-2.0
"""The range of a mixture's labels: one per name of statistics, over all its data sets, what it clips, and whether one
that was kept from a checkpoint is of this data.

A prompt selects one range when a chunk is executed, so the data sets of one robot must share theirs.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

import numpy as np

from qwen_vla.data.formats.spec import DataError, quantiles
from qwen_vla.data.samples import Label, SampleSource
from qwen_vla.model.normalization import Quantiles

LARGEST_SHARE = 0.05  # of a channel's labels in the mixture; q01 and q99 of the same data clip 0.02
LARGEST_SHARE_OF_ONE = 0.2  # of those of one source: a task may need the ends of a range that its robot's tasks share
INSPECTED = 2000  # labels of a source, evenly spread over its training data
LEAST_FILLED = 0.03  # of a kept range, by at least one moving channel of each unit; radians fill 0.017 of degrees
AT_REST = 0.01  # [m, rad, m/s, rad/s] a channel whose labels spread less says nothing about its unit

Shares = dict[str, dict[str, float]]  # by name of statistics and channel


def share_ranges(sources: Sequence[SampleSource]) -> None:
    """Give sources with statistics of the same name the union of their ranges."""
    found: dict[str, tuple[Quantiles, SampleSource]] = {}
    shared = set()
    for source in sources:
        for name, own in source.statistics.items():
            if name in found:
                shared.add(name)
                found[name] = (_united(name, found[name], (own, source)), source)
            else:
                found[name] = (own, source)
    for source in sources:
        if changed := {name: found[name][0] for name in source.statistics if name in shared}:
            source.use_statistics({**source.statistics, **changed})


def _united(name: str, one: tuple[Quantiles, SampleSource], other: tuple[Quantiles, SampleSource]) -> Quantiles:
    try:
        return one[0].united(other[0])
    except ValueError as error:
        raise DataError(
            f"{one[1].name} and {other[1].name} share the statistics {name!r}: {error}; give one of them another name "
            "with `statistics`"
        ) from error


def clipped_shares(sources: Sequence[SampleSource], weights: Sequence[float]) -> list[Shares]:
    """For each source, the share of its training labels outside the range, by statistics and channel.

    Args:
        sources: of a mixture.
        weights: share of each in the mixture.

    Raises:
        DataError: it is more than `LARGEST_SHARE` of the mixture's labels, or `LARGEST_SHARE_OF_ONE` of a source's: so
            many would be taught as the ends of the range.
    """
    found = [_clipped(source) for source in sources]
    for name in sorted({name for shares in found for name in shares}):
        having = [number for number, shares in enumerate(found) if name in shares]
        total = sum(weights[number] for number in having)
        mean = {
            channel: sum(weights[number] * found[number][name][channel] for number in having) / total
            for channel in found[having[0]][name]
        }
        widest = max(mean, key=lambda channel: mean[channel])
        worst = max(having, key=lambda number: found[number][name][widest])
        mixed = f"the mixture, most of all {sources[worst].name}" if len(having) > 1 else sources[worst].name
        _refuse_clipping(mixed, name, mean, LARGEST_SHARE)
        for number in having:
            _refuse_clipping(sources[number].name, name, found[number][name], LARGEST_SHARE_OF_ONE)
    return found


def _clipped(source: SampleSource) -> Shares:
    counts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for label in _labels(source):
        outside = source.statistics[label.statistics].is_outside(label.values) & label.valid
        clipped, total = counts.get(label.statistics, (0, 0))
        counts[label.statistics] = clipped + outside.sum(axis=0), total + label.valid.sum(axis=0)
    shares = {}
    for name, (clipped, total) in counts.items():
        channels = source.statistics[name].channel_names or map(str, range(len(clipped)))
        shares[name] = dict(zip(channels, (clipped / np.maximum(total, 1)).tolist(), strict=True))
    return shares


def _refuse_clipping(data: str, name: str, shares: Mapping[str, float], largest: float) -> None:
    wide = {channel: share for channel, share in shares.items() if share > largest}
    if wide:
        told = ", ".join(f"{channel} {share:.0%}" for channel, share in wide.items())
        raise DataError(
            f"{data}: the statistics {name!r} clip more than {largest:.0%} of the labels of {told}; "
            f"remove `normalization: {{{name}: keep}}`, so that they are those of this data, give the data another "
            "name with `statistics`, or correct its units"
        )


def refuse_other_ranges(source: SampleSource, kept: Container[str]) -> None:
    """Compare the labels of a source with the statistics, by name, that were kept from a checkpoint.

    Raises:
        DataError: the labels of all moving channels of a unit fill next to nothing of their ranges: these are of
            another unit, or of another robot, and all motions would be taught as the same.
    """
    for info in source.embodiments.values():
        if info.dataset not in kept or info.dataset not in source.statistics:  # frames without actions have none
            continue
        known, spread = source.statistics[info.dataset], _spread(source, info.dataset)
        width = known.q99 - known.q01
        for unit in {channel.unit for channel in info.layout.channels}:
            moving = np.array([channel.unit == unit for channel in info.layout.channels]) & (spread > AT_REST)
            if moving.any() and (spread < LEAST_FILLED * width)[moving].all():
                _refuse_other_range(source, info.dataset, np.flatnonzero(moving), spread, width)


def _refuse_other_range(
    source: SampleSource, name: str, moving: np.ndarray, spread: np.ndarray, width: np.ndarray
) -> None:
    channels = source.statistics[name].channel_names or tuple(map(str, range(len(spread))))
    told = ", ".join(f"{channels[column]} {spread[column]:.3g} of {width[column]:.3g}" for column in moving)
    raise DataError(
        f"{source.name}: its labels fill less than {LEAST_FILLED:.0%} of the range of the checkpoint's statistics "
        f"{name!r}: {told}; remove `normalization: {{{name}: keep}}`, so that they are those of this data, or correct "
        "its units"
    )


def _spread(source: SampleSource, name: str) -> np.ndarray:
    """Between the 1 % and 99 % quantiles of a source's training labels, by channel; 0 without labels."""
    labels = [label for label in _labels(source) if label.statistics == name]
    if not labels:
        return np.zeros(len(source.statistics[name].q01))
    _, values, valid = zip(*labels, strict=True)
    found = quantiles(np.concatenate(values), np.concatenate(valid), ())
    return found.q99 - found.q01


def _labels(source: SampleSource) -> Iterator[Label]:
    if not source.statistics:
        return
    for place in np.unique(np.linspace(0, len(source.training) - 1, INSPECTED).astype(int)):
        label = source.label(int(source.training[place]))
        if label is not None:
            yield label
