# SPDX-License-Identifier: Apache-2.0
"""Averages the weights of a fine-tuned checkpoint and of the one that it began as (WiSE-FT, Wortsman et al. 2022).

.venv/bin/python scripts/average_weights.py out/train/libero_4/model out/train/libero_2/model --out out/libero

Fine-tuning for some tasks costs others; the average often keeps both. It is a model like any other, to be measured.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from safetensors.torch import load_file, save_file

from qwen_vla.model.checkpoint.files import WEIGHTS_FILE, check_checkpoint
from qwen_vla.option_ranges import Range

EXPECTED = (OSError, ValueError)


@dataclass(frozen=True)
class Options:
    """What to average."""

    tuned: tyro.conf.Positional[Path]
    """Checkpoint whose other files the result has, too."""
    start: tyro.conf.Positional[Path]
    """The one that it began as."""
    out: Path
    """A new folder."""
    share: Annotated[float, Range(0, 1)] = 0.5
    """Of the tuned weights."""


def average(options: Options) -> None:
    """Write the average, in the tuned weights' types; ValueError if the two are not the same architecture."""
    for folder in (options.tuned, options.start):
        check_checkpoint(folder)
    if options.out.exists():
        raise ValueError(f"{options.out} exists; choose another folder")
    tuned, start = (load_file(folder / WEIGHTS_FILE) for folder in (options.tuned, options.start))
    if {name: part.shape for name, part in tuned.items()} != {name: part.shape for name, part in start.items()}:
        raise ValueError(f"{options.tuned} and {options.start} have other tensors; average a model and its start")
    mixed = {
        name: start[name].float().lerp(part.float(), options.share).to(part.dtype) if part.is_floating_point() else part
        for name, part in tuned.items()
    }
    shutil.copytree(options.tuned, options.out)
    save_file(mixed, options.out / WEIGHTS_FILE, {"format": "pt"})


if __name__ == "__main__":
    try:
        average(tyro.cli(Options, description=__doc__))
    except EXPECTED as error:
        sys.exit(f"average_weights: {error}")
