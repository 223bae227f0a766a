# SPDX-License-Identifier: Apache-2.0
"""The commands of a public benchmark: `python -m benchmarks.public.NAME environment | evaluate | expert | record`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.public.protocol.benchmark import Benchmark
from benchmarks.public.protocol.evaluate_options import OUT, EvaluateOptions
from qwen_vla.data.collection import Kind
from qwen_vla.option_ranges import Count, CountOrDefault, check_ranges
from qwen_vla.parallel import Engine

EXPECTED = (ValueError, OSError, RuntimeError, ArithmeticError, subprocess.CalledProcessError)


@dataclass(frozen=True)
class EnvironmentOptions:
    """Make the benchmark's environment, unless it is there."""


@dataclass(frozen=True)
class ExpertOptions:
    """Measure the scripted expert on start states that are neither the protocol's nor demonstrated."""

    episodes: Count = 10
    """Episodes of each task."""
    tasks: tuple[str, ...] = ()
    """Only these tasks or groups."""
    workers: Count = 1
    """Parallel simulators."""
    engine: Engine = "processes"
    """Where they run: in processes of this machine, or on all CPUs of the Ray cluster that it belongs to."""
    json: Path | None = None
    """Where to write the rates; default: out/benchmarks/NAME_expert.json."""


@dataclass(frozen=True)
class RecordOptions:
    """Record demonstrations of the scripted expert as a LeRobotDataset v3.0; the same command resumes."""

    out: Path
    """Folder of the data set."""
    per_task: Count = 20
    """Attempts of each task; the successful ones are kept."""
    kind: Kind = "demonstrations"
    """Demonstrations; or snapshots: single frames with labels of where things are, each a fraction of the time."""
    takeover_from: str = ""
    """A checkpoint, or another policy as for evaluate, that drives first, for a random time; only the expert's
    intervention is recorded (DAgger)."""
    rows: CountOrDefault = 0
    """With --takeover-from: execute that many rows of each chunk, as with evaluate; 0: as many as the policy says."""
    tasks: tuple[str, ...] = ()
    """Only these tasks or groups."""
    workers: Count = 1
    """Parallel simulators."""
    engine: Engine = "processes"
    """Where they run: in processes of this machine, or on all CPUs of the Ray cluster that it belongs to."""


def main(benchmark: Benchmark) -> None:
    """Entry point: expected errors end in one message and exit code 1."""
    kinds = {
        "environment": EnvironmentOptions,
        "evaluate": EvaluateOptions,
        "expert": ExpertOptions,
        "record": RecordOptions,
    }
    options = tyro.extras.subcommand_cli_from_dict(kinds, prog=f"python -m benchmarks.public.{benchmark.name}")
    # As Ctrl-C, which a command in the background does not receive: the policy's server must not stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_ranges(options)
        benchmark.environment.make()
        _run(benchmark, options)
    except KeyboardInterrupt as stop:
        sys.exit(str(stop) or 130)
    except EXPECTED as error:
        if os.environ.get("QWEN_VLA_TRACEBACK"):
            raise
        sys.exit(f"{benchmark.name}: {error}")


def _run(benchmark: Benchmark, options: EnvironmentOptions | EvaluateOptions | ExpertOptions | RecordOptions) -> None:
    """Heavy modules are imported by the command that needs them."""
    if isinstance(options, EvaluateOptions):
        from benchmarks.public.protocol.evaluate import evaluate
        from benchmarks.public.protocol.result import as_text

        print(as_text(evaluate(benchmark, options)))
    elif isinstance(options, ExpertOptions):
        _measure_expert(benchmark, options)
    elif isinstance(options, RecordOptions):
        from benchmarks.public.protocol.demonstrations import Collection, collect

        tasks = benchmark.demonstrable(options.tasks)
        what = options.kind, options.takeover_from, options.rows
        collection = Collection(benchmark, tasks, options.per_task, options.out, *what)
        print(json.dumps(collect(collection, options.workers, options.engine)))


def _measure_expert(benchmark: Benchmark, options: ExpertOptions) -> None:
    from benchmarks.public.protocol.demonstrations import measure_expert
    from qwen_vla.evaluation.summary import rate_as_text
    from qwen_vla.output_files import write_json
    from qwen_vla.output_paths import check_files, with_maker

    maker = f"benchmarks/public/{benchmark.name} expert"
    file = options.json or OUT / f"{benchmark.name}_expert.json"
    check_files(maker, False, {"--json": file})
    tasks = benchmark.demonstrable(options.tasks)
    found = measure_expert(benchmark, tasks, options.episodes, options.workers, options.engine)
    write_json(file, with_maker(maker, found))
    for task, rate in {**found["tasks"], "all": found}.items():
        print(f"{task}: {rate_as_text(rate)}")
