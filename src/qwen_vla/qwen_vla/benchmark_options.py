# SPDX-License-Identifier: Apache-2.0
"""Options of the benchmark. Light: the command line imports it for its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from qwen_vla.option_ranges import Count, Range, check_ranges

CAMERA_TAGS = ("ego", "cam_left_wrist", "cam_right_wrist", "cam_front")


@dataclass(frozen=True)
class BenchmarkOptions:
    """A preset with random weights, which do not affect timing, or a checkpoint; and how it runs."""

    preset: Literal["tiny", "4b"] = "tiny"
    """Size of the model, with random weights."""
    checkpoint: Path | None = None
    """Measure this checkpoint instead of a preset."""
    robot: str | None = None
    """One of the checkpoint's robots; required if it has several."""
    device: str = "cpu"
    """Device: cpu, cuda, cuda:1 …"""
    images: Annotated[int | None, Range(0, len(CAMERA_TAGS))] = None
    """Cameras; default 2 for tiny, 3 for 4b, those of a checkpoint."""
    threads: Count = 1
    """CPU threads. On a busy machine, more threads wait for each other: up to 2 s per chunk."""
    repeats: Count = 50
    """Chunks per measurement."""
    accelerate: Literal["auto", "graphs", "compile", "off"] = "auto"
    """auto: compiled blocks in CUDA graphs on a GPU, plain on a CPU; graphs: without the compiler; compile: on a CPU,
    too; the first start on a machine compiles for about a minute."""
    quantize: Literal["none", "fp8"] = "none"
    """8-bit weights in the action expert and the language tower."""

    def check(self) -> None:
        """ValueError for options that cannot be measured."""
        check_ranges(self)
        if self.images is not None and self.checkpoint is not None:
            raise ValueError("a checkpoint's robot has its own cameras; omit either --images or --checkpoint")
        if self.robot is not None and self.checkpoint is None:
            raise ValueError(f"a preset has no robots; use --robot {self.robot} with --checkpoint")
