# SPDX-License-Identifier: Apache-2.0
"""Trains the shipped model on few and many demonstrations of a new robot's tasks, and plots its success over the steps.

.venv/bin/python scripts/how_many.py                     # everything; resumes after an interruption
.venv/bin/python scripts/how_many.py --only-page         # write the page from existing results
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from experiments import train, write_above_notes
from matplotlib.figure import Figure

from qwen_vla.evaluation.tables import markdown_table
from qwen_vla.training.progress.curve import save_figure

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("out/how_many")
RECIPE, ROBOT = ROOT / "config/training/metaworld.yaml", "benchmarks/public/metaworld/sawyer.yaml"
PAGE, PICTURE = ROOT / "docs/explanation/how_many_demonstrations.md", ROOT / "docs/media/how_many.png"
ATTEMPTS = (10, 60)  # of the expert at each task, of which the successful ones are demonstrations
STEPS, EVERY = 400, 100
CHANGES = {
    "steps": STEPS,
    "batch_size": 64,
    "optimizer": {
        "name": "muon",
        "backbone_lr": 5.0e-4,
        "expert_lr": 8.0e-4,
        "warmup_steps": 30,
        "ema_decay": 0.98,
        "final_share": 0.02,
    },
    "validate_every": EVERY,
    "save_every": 50,
    "keep_every": EVERY,
}
INTRODUCTION = """# How many demonstrations, how many steps?

The shipped model learns a robot that it has never seen, from scripted demonstrations: Meta-World's Sawyer arm and ten
of its tasks, those of `--tasks few`. {steps} steps of {batch} samples for each number of demonstrations, otherwise the
same recipe; a rate is over {episodes} validation trials a task, with its 95 % interval (Wilson). Each line is one
training, so the spread between trainings is not in it. `scripts/how_many.py` makes this page.

"""


@dataclass
class Options:
    """What to run."""

    episodes: int = 5
    """Trials of each task for one rate."""
    only_page: bool = False
    """Write the page from existing results."""


def run(attempts: int, options: Options) -> None:
    """Record, train and evaluate with one number of demonstrations; finished work is not repeated."""
    data, output = OUT / f"data_{attempts}", OUT / f"attempts_{attempts}"
    benchmark("record", "--tasks", "few", "--out", str(data), "--per-task", str(attempts))
    source = {"kind": "robot", "path": str(data), "robot": ROBOT, "relative_actions": True}
    train(RECIPE, CHANGES | {"output": str(output), "data": [source]})
    for step in range(EVERY, STEPS + 1, EVERY):
        model, trials = output / f"step_{step}", ("--episodes", str(options.episodes))
        results = str(result(attempts, step))
        benchmark("evaluate", "--policy", str(model), "--tasks", "few", "--validation", *trials, "--json", results)
    print(f"how many: {attempts} attempts a task: done", flush=True)


def result(attempts: int, step: int) -> Path:
    """File of the evaluation of one intermediate model."""
    return OUT / f"attempts_{attempts}" / f"step_{step}.json"


def benchmark(*arguments: str) -> None:
    """Run Meta-World's command, which resumes; CalledProcessError if it fails."""
    subprocess.run([sys.executable, "-m", "benchmarks.public.metaworld", *arguments], check=True)


def found() -> dict[int, dict[int, dict[str, Any]]]:
    """Demonstrations → step → result, of the evaluations that are there."""
    rates: dict[int, dict[int, dict[str, Any]]] = {}
    for attempts in ATTEMPTS:
        done = {step: result(attempts, step) for step in range(EVERY, STEPS + 1, EVERY)}
        rows = {step: json.loads(path.read_text()) for step, path in done.items() if path.exists()}
        if rows:
            info = json.loads((OUT / f"data_{attempts}" / "meta/info.json").read_text())
            rates[info["total_episodes"]] = rows
    return rates


def write_page(options: Options) -> None:
    """Table and picture; the manual text below them is kept."""
    rates, steps = found(), range(EVERY, STEPS + 1, EVERY)
    heading = ("demonstrations", *(f"after {step} steps" for step in steps))
    rows = [(str(count), *(_cell(row.get(step)) for step in steps)) for count, row in rates.items()]
    values = {"steps": STEPS, "batch": CHANGES["batch_size"], "episodes": options.episodes}
    picture = f"![Success over the steps, a line for each number of demonstrations](../media/{PICTURE.name})"
    write_above_notes(PAGE, f"{INTRODUCTION.format(**values)}{markdown_table(heading, rows)}\n\n{picture}\n\n")
    _draw(rates)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    low, high = row["wilson_95"]
    return f"{row['successes']} of {row['episodes']} ({100 * low:.0f}–{100 * high:.0f} %)"


def _draw(rates: dict[int, dict[int, dict[str, Any]]]) -> None:
    figure = Figure(figsize=(7, 4))
    axis = figure.subplots()
    for shift, (count, row) in enumerate(rates.items()):
        steps, share = [step + 4 * shift for step in row], [each["success_rate"] for each in row.values()]
        low, high = zip(*(each["wilson_95"] for each in row.values()), strict=True)
        errors = [[r - x for r, x in zip(share, low, strict=True)], [x - r for r, x in zip(share, high, strict=True)]]
        axis.errorbar(steps, share, errors, marker="o", capsize=3, label=f"{count} demonstrations of ten tasks")
    axis.set(xlabel=f"steps of {CHANGES['batch_size']} samples", ylabel="success", ylim=(0, 1), xlim=(0, STEPS + 50))
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")
    figure.tight_layout()
    print(save_figure(figure, PICTURE))


def main() -> None:
    """Run what is missing, then write the page."""
    options = tyro.cli(Options, description=__doc__)
    os.chdir(ROOT)
    if not options.only_page:
        for attempts in ATTEMPTS:
            run(attempts, options)
    write_page(options)


if __name__ == "__main__":
    main()
