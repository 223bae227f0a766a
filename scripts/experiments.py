# SPDX-License-Identifier: Apache-2.0
"""Shared by the scripts that compare trainings: each modified recipe is trained once, each model evaluated once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import yaml

from qwen_vla.seeds import require_split

BY_HAND = "<!-- below: written by hand -->"


def train(recipe: Path, changes: dict, steps: int | None = None) -> None:
    """`qwen-vla train` with some fields of the recipe changed; its own output goes to a file beside the run.

    steps: step at which to stop before the end of the recipe's schedule.
    """
    values = yaml.safe_load(recipe.read_text()) | changes
    output, steps = Path(values["output"]), steps or values["steps"]
    if any(row["step"] == steps for row in log_rows(output)) and (output / "model/config.json").exists():
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    written = output.with_name(output.name + ".yaml")
    written.write_text(yaml.safe_dump(values, allow_unicode=True))
    call(["train", str(written), "--max-steps", str(steps)], output.with_name(output.name + ".train.txt"))


def evaluate(suite: str, model: Path, result: Path, episodes: int, seed: int, *more: str) -> None:
    """`qwen-vla evaluate` with one worker; an existing result with as many episodes is reused.

    Only validation seeds: scenes used to compare trainings are no longer test scenes.
    """
    require_split("validation", range(seed, seed + episodes), "a comparison of trainings")
    if result.exists() and json.loads(result.read_text())["episodes"] == episodes:
        return
    scenes = ["--episodes", str(episodes), "--seed", str(seed), "--workers", "1"]
    arguments = ["evaluate", suite, "--policy", str(model), *scenes, "--json", str(result), *more]
    call(arguments, result.with_suffix(".txt"))


def run_all(runs: Iterable[Callable[[], None]], jobs: int) -> None:
    """Run all, some at a time; the first error ends it when those that run have ended."""
    with ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(run) for run in runs]
        try:
            for run in as_completed(started):
                run.result()
        finally:
            pool.shutdown(cancel_futures=True)


def call(arguments: list[str], log: Path) -> None:
    """Run `qwen-vla`; RuntimeError with the end of its output if it fails."""
    command = [sys.executable, "-m", "qwen_vla", *arguments]
    with open(log, "a") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"qwen-vla {' '.join(arguments)} ended with {done.returncode}: {log.read_text()[-800:]}")


def log_rows(run: Path) -> list[dict]:
    """The log of a training so far, without an incomplete last line."""
    path = run / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


def write_above_notes(page: Path, text: str) -> None:
    """Replace the generated part of a page; the manual text below it is kept."""
    before = page.read_text() if page.exists() else BY_HAND + "\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text + before[before.index(BY_HAND) :])
