# SPDX-License-Identifier: Apache-2.0
"""The splits of scenes by seed: training, validation and test. They are defined only here.

Training, model selection and tuning must check their seeds here. Test scenes are for the final published figures:
selection on them would bias the figures upward.
"""

from __future__ import annotations

from typing import Literal

Split = Literal["training", "validation", "test"]
FIRST_TEST_SEED = 20_000
FIRST_TRAINING_SEED = 1_000_000
RANGES = (
    f"validation below {FIRST_TEST_SEED}, test from {FIRST_TEST_SEED} to {FIRST_TRAINING_SEED - 1}, training from "
    f"{FIRST_TRAINING_SEED}"
)


def split_of(seeds: range) -> Split:
    """The split of all these seeds; ValueError if they are of several splits, or negative."""
    first, last = seeds.start, max(seeds.start, seeds.stop - 1)
    if first < 0:
        raise ValueError(f"seed must be at least 0, got {first}")
    if _split(first) != _split(last):
        raise ValueError(f"seeds {first}…{last} are of more than one split ({RANGES}); choose seeds of a single split")
    return _split(first)


def require_split(split: Split, seeds: range, what: str) -> None:
    """ValueError unless all these seeds are of a split; `what` names what requires it."""
    found = split_of(seeds)
    if found != split:
        raise ValueError(f"{what} needs {split} seeds, got {found} seeds from {seeds.start} on ({RANGES})")


def _split(seed: int) -> Split:
    if seed < FIRST_TEST_SEED:
        return "validation"
    return "test" if seed < FIRST_TRAINING_SEED else "training"
