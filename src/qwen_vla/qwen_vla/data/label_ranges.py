"""The range of a mixture's labels: one per name of statistics, over all its data sets, and what it clips.

A prompt selects one range when a chunk is executed, so the data sets of one robot must share theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.samples import Label, SampleSource
from qwen_vla.model.normalization import Quantiles

LARGEST_SHARE = 0.05  # of a channel's labels; q01 and q99 of the same data clip 0.02
INSPECTED = 2000  # labels of a source, evenly spread over its training data


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


def clipped_shares(source: SampleSource) -> dict[str, dict[str, float]]:
    """By statistics and channel, the share of a source's training labels outside the range.

    Raises:
        DataError: it is more than `LARGEST_SHARE`: so many labels would be taught as the ends of the range.
    """
    counts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for label in _labels(source):
        outside = source.statistics[label.statistics].is_outside(label.values) & label.valid
        clipped, total = counts.get(label.statistics, (0, 0))
        counts[label.statistics] = clipped + outside.sum(axis=0), total + label.valid.sum(axis=0)
    shares = {}
    for name, (clipped, total) in counts.items():
        channels = source.statistics[name].channel_names or map(str, range(len(clipped)))
        shares[name] = dict(zip(channels, (clipped / np.maximum(total, 1)).tolist(), strict=True))
        _check(source, name, shares[name])
    return shares


def _labels(source: SampleSource) -> Iterator[Label]:
    if not source.statistics:
        return
    for place in np.unique(np.linspace(0, len(source.training) - 1, INSPECTED).astype(int)):
        label = source.label(int(source.training[place]))
        if label is not None:
            yield label


def _check(source: SampleSource, name: str, shares: dict[str, float]) -> None:
    wide = {channel: share for channel, share in shares.items() if share > LARGEST_SHARE}
    if wide:
        told = ", ".join(f"{channel} {share:.0%}" for channel, share in wide.items())
        raise DataError(
            f"{source.name}: the statistics {name!r} clip more than {LARGEST_SHARE:.0%} of the labels of {told}; "
            f"remove `normalization: {{{name}: keep}}`, so that they are those of this data, give the data another "
            "name with `statistics`, or correct its units"
        )
