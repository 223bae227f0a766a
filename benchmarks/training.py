# SPDX-License-Identifier: Apache-2.0
"""How fast a recipe trains on this machine at several batch sizes, and what holds it back.

    .venv/bin/python benchmarks/training.py config/training/joint_actions.yaml --json out/training_speed.json

`samples_per_s`: real steps on real data, as `qwen-vla train` makes them. `waiting`: share of that time spent waiting
for data. `floor_samples_per_s`: the same step with one constant batch. `kernels`: on a GPU, the share of the floor's
time in which it computes; the rest is the time that the CPU needs to launch the work.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch.profiler import ProfilerActivity, profile

from qwen_vla.output_files import write_json
from qwen_vla.output_paths import check_files, with_maker
from qwen_vla.training.batching.batches import Prefetch
from qwen_vla.training.recipe import Recipe
from qwen_vla.training.recipe_files import load_recipe
from qwen_vla.training.run import Run, prepare
from qwen_vla.training.trainer import training_step

MAKER = "benchmarks/training.py"  # as `output_paths` knows it
WARM_UP = 4  # steps
PROFILED = 3  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 512, 1024])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--compile", action="store_true", help="compile the blocks, whatever the recipe says")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that this did not make")
    options = parser.parse_args()
    check_files(MAKER, options.overwrite, {"--json": options.json})
    recipe = load_recipe(options.recipe)
    result: dict[str, Any] = {"recipe": str(options.recipe), "torch": torch.__version__, "device": device_name()}
    for size in options.batch_sizes:
        changes = {"batch_size": size, "compile": options.compile or recipe.compile}
        result[f"batch {size}"] = row = measure(recipe.model_copy(update=changes), options.seconds)
        print(f"batch {size}: {json.dumps(row)}", flush=True)
        if options.json:
            write_json(options.json, with_maker(MAKER, result))


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def measure(recipe: Recipe, seconds: float) -> dict[str, Any]:
    """The figures of one batch size."""
    torch.set_num_threads(recipe.threads)
    set_seed(recipe.seed)
    began = time.perf_counter()
    run = prepare(recipe)
    prepared = time.perf_counter() - began
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with Prefetch(run.batches, 0, sys.maxsize) as prefetch:
        step = real_steps(run, prefetch)
        began = time.perf_counter()
        repeat(step, count=WARM_UP)
        first, waited = time.perf_counter() - began, prefetch.waited
        rate, elapsed = speed(step, seconds)
        waiting = (prefetch.waited - waited) / elapsed
    constant = run.batches[0]
    floor, _ = speed(lambda: training_step(run, constant), seconds)
    row = {
        "placement": run.placement,
        "prepared_s": prepared,
        "first_steps_s": first,
        "samples_per_s": rate * recipe.batch_size,
        "waiting": waiting,
        "floor_samples_per_s": floor * recipe.batch_size,
    }
    if torch.cuda.is_available():
        row |= {"kernels": kernel_seconds(run, constant) * floor, "peak_gb": torch.cuda.max_memory_allocated() / 1e9}
    return row


def real_steps(run: Run, prefetch: Prefetch) -> Callable[[], None]:
    """A function that makes the run's next step."""
    numbers = itertools.count()

    def step() -> None:
        training_step(run, prefetch.take(next(numbers)))

    return step


def speed(step: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """Steps per second, and the seconds measured."""
    wait()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        step()
        count += 1
    wait()
    elapsed = time.perf_counter() - began
    return count / elapsed, elapsed


def kernel_seconds(run: Run, constant: list) -> float:
    """Seconds per step in which the GPU computes."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        repeat(lambda: training_step(run, constant), PROFILED)
        wait()
    return sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6 / PROFILED


def repeat(step: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        step()


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, RuntimeError) as error:  # the text says what to do
        sys.exit(f"{MAKER}: {error}")
