# SPDX-License-Identifier: Apache-2.0
"""Trains the checkpoint of all three robots from scratch: data, all recipes, and an evaluation of the result.

.venv/bin/python scripts/reproduce.py                                     # or `make reproduce`
.venv/bin/python scripts/reproduce.py --out my/model --episodes 20

After an interruption, the same command resumes. To start over, delete out/data/joint and
out/train/joint_*.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro

from qwen_vla.output_files import folder_complete_or_absent
from qwen_vla.output_paths import OutputRefused, check_folder
from qwen_vla.training.batching.batch_size import with_batch_size
from qwen_vla.training.output_folder import MODEL, MODEL_FOLDER, model_files
from qwen_vla.training.recipe_files import load_recipe

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv/bin"
# Each is trained before the data of the next is recorded: two use interventions on the previous model.
STAGES = ("joint_grounding", "joint_actions", "joint_takeovers", "joint_takeovers_2", "joint_finish")
RECIPES = [Path(f"config/training/{name}.yaml") for name in STAGES]
SUITES = ("widowx", "aloha", "mobile_base")
TRAINING_ONLY = "grounding_head.safetensors"  # part of a model that inference does not need
FIRST_SCENE = 9000
CORES = os.cpu_count() or 1
GPU_BATCH = 512  # rows: smaller ones leave a GPU waiting for the CPU that launches its work


@dataclass
class Options:
    """Output and parallelism."""

    out: Path = ROOT / "out/reproduce/tiny"
    """Folder of the resulting model; results of the evaluation are written beside it."""
    workers: int = CORES
    """Parallel simulators."""
    device: Literal["cpu", "cuda"] = "cuda" if Path("/dev/nvidiactl").exists() else "cpu"
    """Where to train."""
    batch_size: int | None = None
    """Rows of a batch; default: 512 on a GPU, with learning rates to match, and the recipes' own on a CPU."""
    processes: int | None = None
    """Training processes, which share every batch: the same result, faster. Default: 1 on a GPU, at most 2 on a CPU."""
    episodes: int = 50
    """Validation scenes of each robot to evaluate on."""


@dataclass(frozen=True)
class Stage:
    """A stage: its title and its action."""

    title: str
    run: Callable[[], None]


def stages(options: Options) -> Iterator[Stage]:
    """All of them, in order."""
    batch_size = options.batch_size or (GPU_BATCH if options.device == "cuda" else None)
    training = ("--device", options.device, *(("--batch-size", str(batch_size)) if batch_size else ()))
    processes = options.processes or (1 if options.device == "cuda" else min(2, CORES))
    workers, result = ("--workers", str(options.workers)), _from_root(options.out)
    for path in RECIPES:
        recipe = load_recipe(path)
        yield Stage(f"collect the data of {recipe.name}", partial(qwen_vla, "collect", str(path), *workers))
        planned = with_batch_size(recipe, batch_size) if batch_size else recipe
        title = f"train {recipe.name}: {planned.steps} steps; log and curve in {recipe.output}"
        yield Stage(title, partial(qwen_vla, "train", str(path), *training, processes=processes))
    yield Stage(f"keep the model in {result}", partial(keep, load_recipe(RECIPES[-1]).output / MODEL_FOLDER, result))
    scenes = ("--episodes", str(options.episodes), "--seed", str(FIRST_SCENE))
    for suite in SUITES:
        rows = result.with_name(f"{result.name}_{suite}.json")
        words = (suite, "--policy", str(result), *scenes, *workers, "--json", str(rows))
        title = f"evaluate {suite} on {options.episodes} validation scenes"
        yield Stage(title, partial(qwen_vla, "evaluate", *words))


def qwen_vla(*words: str, processes: int = 1) -> None:
    """Run a command to its end; ends this program with its exit code if it fails or is interrupted."""
    launch = (BIN / "torchrun", "--standalone", "--nproc-per-node", str(processes)) if processes > 1 else ()
    environment = {"OMP_NUM_THREADS": "1"} | os.environ  # one core per simulator and training process
    child = subprocess.Popen([*launch, BIN / "qwen-vla", *words], stdin=subprocess.DEVNULL, env=environment)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C also reaches the command, which saves its state
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    if code := child.wait():
        print("reproduce: incomplete; the same command resumes", file=sys.stderr)
        sys.exit(code if code > 0 else 128 - code)


def keep(model: Path, result: Path) -> None:
    """Copy the files of a model needed for inference; an earlier copy is replaced."""
    with folder_complete_or_absent(result, model_files) as folder:
        shutil.copytree(model, folder, ignore=shutil.ignore_patterns(TRAINING_ONLY), dirs_exist_ok=True)


def _from_root(path: Path) -> Path:
    """A path relative to the repository: results need not name folders of a machine."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def main() -> None:
    """Run all stages, resuming after an interruption; nothing is done if the folder has other content."""
    options = tyro.cli(Options, description=__doc__)
    options.out = options.out.expanduser().resolve()
    os.chdir(ROOT)
    try:
        check_folder(options.out, MODEL)
    except OutputRefused as refused:
        sys.exit(f"reproduce: {refused}")
    todo = list(stages(options))
    for number, stage in enumerate(todo, start=1):
        print(f"reproduce: {number}/{len(todo)} {stage.title}", flush=True)
        stage.run()
    result = _from_root(options.out)
    print(f"reproduce: done; model in {result}, one row per episode in {result}_<suite>.json")


if __name__ == "__main__":
    main()
