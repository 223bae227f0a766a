# SPDX-License-Identifier: Apache-2.0
"""Options of a measurement on a public benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.public.protocol.benchmark import Benchmark
from qwen_vla.evaluation.options import from_here
from qwen_vla.model.checkpoint.files import read_training
from qwen_vla.option_ranges import Count, CountOrDefault
from qwen_vla.parallel import Engine
from qwen_vla.policies.checkpoint import checkpoint_of

OUT = Path("out/benchmarks")


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure a policy by the benchmark's official protocol, as a client of `qwen-vla serve`."""

    policy: str = ""
    """Checkpoint, which is served: its folder, or the name of one in checkpoints/, by default that of the benchmark.
    Or openpi://HOST:PORT, a server."""
    episodes: CountOrDefault = 0
    """Episodes of each task; 0: as many as in the official protocol."""
    tasks: tuple[str, ...] = ()
    """Only these tasks or groups; `few`: a selection of all groups."""
    validation: bool = False
    """On other start states than the protocol's, to choose a checkpoint or a number of rows by."""
    rows: CountOrDefault = 0
    """Rows of each chunk that are executed; 0: as the policy says."""
    workers: Count = 1
    """Parallel simulators."""
    engine: Engine = "processes"
    """Where they run: in processes of this machine, or on all CPUs of the Ray cluster that it belongs to."""
    device: str = "cpu"
    """Device of the server: cpu, cuda …"""
    json: Path | None = None
    """Where to write the result; default: out/benchmarks/NAME.json, NAME_validation.json."""
    sheet: Path | None = None
    """Where to write a contact sheet (PNG): a few images of each episode."""
    videos: Path | None = None
    """Folder for a video (MP4) of one success and of one episode per kind of failure."""
    overwrite: bool = False
    """Replace files that this did not make."""

    def result_file(self, benchmark: Benchmark) -> Path:
        """The file of the result."""
        return self.json or OUT / f"{benchmark.name}{'_validation' if self.validation else ''}.json"

    def conditions(self) -> dict[str, Any]:
        """What distinguishes this measurement from others."""
        checkpoint = checkpoint_of(self.policy)
        return {
            "checkpoint": from_here(checkpoint) if checkpoint else self.policy,
            "step": read_training(checkpoint).step if checkpoint else None,
            "executed_rows": self.rows or None,
            "starts": "validation" if self.validation else "official",
        }
