# SPDX-License-Identifier: Apache-2.0
"""Measures what docs/results.md reports: runs its commands one by one, and prints its rows.

.venv/bin/python scripts/measure_results.py     # or `make results`; resumes after an interruption

Commands with an existing result are not rerun, unless it is older than the weights or has other options.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from qwen_vla.cli import Evaluate
from qwen_vla.evaluation.model_card import evaluation_table
from qwen_vla.evaluation.summary import read_summary, rows_of, success_of
from qwen_vla.policies.checkpoint import checkpoint_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs/results.md")  # below ROOT
COMMAND = re.compile(r"^ +(\.venv/bin/qwen-vla evaluate .*--json out/results/\S+)", re.MULTILINE)
CONDITIONS = "shift shuffle_instructions blind prompt_of over_ros euler_steps quantize".split()
METRICS = {"sr": "SR {:.2f}", "osr": "OSR {:.2f}", "spl": "SPL {:.2f}", "ne": "NE {:.2f} m", "ndtw": "nDTW {:.2f}"}
Results = Mapping[str, Mapping[str, Any]]  # summaries by suite


@dataclass(frozen=True)
class Measurement:
    """A command of the page, as words and as parsed options."""

    words: tuple[str, ...]
    options: Evaluate

    @classmethod
    def of(cls, command: str) -> Measurement:
        words = tuple(shlex.split(command))
        return cls(words, tyro.cli(Evaluate, args=words[2:]))

    def is_done(self) -> bool:
        """Whether there is a result with these options and the current weights."""
        result = self.options.json
        if not result.is_file() or result.stat().st_mtime <= self._time_of_the_weights():
            return False
        found, conditions = read_summary(result), self.options.conditions(self.options.over_ros)
        wanted = {name: getattr(self.options, name) for name in ("suite", "seed", "episodes")}
        wanted |= {name: conditions[name] for name in CONDITIONS}
        return all(found.get(name) == value for name, value in wanted.items())

    def _time_of_the_weights(self) -> float:
        folder = checkpoint_of(self.options.policy)
        return max(file.stat().st_mtime for file in folder.glob("*.safetensors"))


def measurements(page: str) -> list[Measurement]:
    """The commands of the page with results in out/results."""
    return [Measurement.of(command) for command in COMMAND.findall(page)]


def measure(measurement: Measurement) -> None:
    """Run a command; ends this program with its exit code if it fails or is interrupted."""
    print(f"results: {shlex.join(measurement.words)}", flush=True)
    code = subprocess.run(measurement.words).returncode
    if code:
        print("results: incomplete; the same command resumes", file=sys.stderr)
        sys.exit(code)


def rows(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The rows of the page's table, and its text on the base."""
    calm = {summary["suite"]: summary for summary in found if not summary["over_ros"]}
    ros = {summary["suite"]: summary for summary in found if summary["over_ros"]}
    yield _row("**as trained**", calm, lambda summary: f"**{rate(summary)}**")
    yield _row("by task", calm, _tasks)
    yield _row("through ROS in real time, `--over-ros`", ros, rate)
    yield _row("the same scenes in process", ros, lambda summary: _same_scenes(summary, calm[summary["suite"]]))
    base = calm["mobile_base"]
    yield f"\nBase: {', '.join(text.format(base[name]) for name, text in METRICS.items())}."
    yield f"Base through ROS: SPL {ros['mobile_base']['spl']:.2f}."


def _row(title: str, results: Results, cell) -> str:
    seeds = {f"{s['split']}, {s['seed']}–{s['seed'] + s['episodes'] - 1}" for s in results.values()}
    return f"| {' | '.join([title, '; '.join(sorted(seeds)), *map(cell, results.values())])} |"


def rate(success: Mapping[str, Any]) -> str:
    low, high = success["wilson_95"]
    return f"{success['successes']} of {success['episodes']} ({100 * low:.0f}–{100 * high:.0f} %)"


def _tasks(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{t.replace('_', ' ')} {s['successes']}/{s['episodes']}" for t, s in summary["tasks"].items())


def _same_scenes(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Success of `other` in the scenes of `one`."""
    seeds = {row.seed for row in rows_of(one)}
    return rate(success_of([row for row in rows_of(other) if row.seed in seeds]))


def main() -> None:
    """Measure what is missing, then print everything."""
    os.chdir(ROOT)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C ends the running command, which reports what it keeps
    wanted = measurements(PAGE.read_text())
    for measurement in wanted:
        if not measurement.is_done():
            measure(measurement)
    found = [read_summary(measurement.options.json) for measurement in wanted]
    print(f"\n{PAGE}:\n", *rows(found), "\ncheckpoints/tiny/README.md:\n", evaluation_table(found), sep="\n")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
