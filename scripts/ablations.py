# SPDX-License-Identifier: Apache-2.0
"""Trains and evaluates the ablations of docs/explanation/ablations.md, and writes it: same budget, several seeds.

.venv/bin/python scripts/ablations.py                     # everything; resumes after an interruption
.venv/bin/python scripts/ablations.py --jobs 2            # two trainings at a time, one core each
.venv/bin/python scripts/ablations.py --only-page         # write the page from existing results
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
import yaml
from experiments import evaluate, log_rows, train, write_above_notes

from qwen_vla import QwenVLAModel
from qwen_vla.output_files import folder_complete_or_absent
from qwen_vla.training.output_folder import model_files

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("out/ablations")
BACKBONE = ROOT / "checkpoints/tiny"
SFT, T2A = ROOT / "config/training/ablation_sft.yaml", ROOT / "config/training/ablation_t2a.yaml"
PAGE, PICTURE = ROOT / "docs/explanation/ablations.md", ROOT / "docs/media/ablations.png"
SUITE, FIRST_SCENE = "widowx_pick", 8000
STARTING = threading.Lock()
EULER_STEPS = (4, 10)
INTRODUCTION = """# Ablations

Suite `{suite}`, tiny model: {steps} steps of {batch} samples with an action expert that starts from random weights
(another draw for each of {seeds} seeds) with the backbone of the shipped model, which is also trained. {episodes}
validation scenes each, the same for all, seeds from {first}. The budget is small on purpose: if
everything succeeds, nothing can be compared. Mean ± standard deviation over the seeds, single values in brackets.
`make ablations` makes this page; the budget and everything else shared by the variants is in
`config/training/ablation_sft.yaml`, the T2A stage in `ablation_t2a.yaml`.

| variant | success, 4 Euler steps | success, 10 Euler steps | held-out position error, median [mm] |
|---|---|---|---|
"""
VARIANTS = {
    "without T2A, τ noise": {"name": "noise", "t2a": False, "direction": "noise"},
    "with T2A, τ noise": {"name": "t2a_noise", "t2a": True, "direction": "noise"},
    "without T2A, τ clean": {"name": "clean", "t2a": False, "direction": "clean"},
}


@dataclass
class Options:
    """What to run."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training; each has its own order of the data, noise and, with T2A, its own expert."""
    episodes: int = 40
    """Scenes per evaluation, the same for all."""
    jobs: int = 1
    """Parallel trainings; each uses one core."""
    only_page: bool = False
    """Write the page from existing results."""


def folder(variant: str, seed: int) -> Path:
    """Folder of one training and its evaluations."""
    return OUT / f"{VARIANTS[variant]['name']}_seed{seed}"


def run_one(variant: str, seed: int, options: Options) -> None:
    """Train and evaluate one variant with one seed; finished work is not repeated."""
    settings, place = VARIANTS[variant], folder(variant, seed)
    start = str(fresh_expert(seed))
    common = {"seed": seed, "init_from": start}
    changes = {**common, "output": str(place), "tau": {"direction": settings["direction"]}}
    if settings["t2a"]:
        expert = OUT / f"t2a_seed{seed}"
        train(T2A, {**common, "output": str(expert)})
        changes["expert_from"] = str(expert / "model")
    train(SFT, changes)
    for steps in EULER_STEPS:
        result = place / f"euler{steps}.json"
        evaluate(SUITE, place / "model", result, options.episodes, FIRST_SCENE, "--euler-steps", str(steps))
    print(f"ablations: {variant}, seed {seed}: done", flush=True)


def fresh_expert(seed: int) -> Path:
    """The shipped model with an untrained action expert; its random weights depend on the seed."""
    place = OUT / f"start_seed{seed}"
    with STARTING:
        if not place.exists():
            model = QwenVLAModel.from_pretrained(BACKBONE)
            torch.manual_seed(seed)
            model.action_expert.load_state_dict(QwenVLAModel(model.config).action_expert.state_dict())
            with folder_complete_or_absent(place, model_files) as temporary:
                shutil.copytree(BACKBONE, temporary, dirs_exist_ok=True)
                model.save_pretrained(temporary)
    return place


def results(options: Options) -> dict[str, dict[str, list[float]]]:
    """Per variant the success rates at each number of Euler steps and the held-out errors, one value per seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for variant in VARIANTS:
        rows: dict[str, list[float]] = {}
        for seed in options.seeds:
            place = folder(variant, seed)
            for steps in EULER_STEPS:
                if (place / f"euler{steps}.json").exists():
                    rate = json.loads((place / f"euler{steps}.json").read_text())["success_rate"]
                    rows.setdefault(f"success {steps}", []).append(rate)
            last = [row for row in log_rows(place) if "held_out/position_mm_median" in row]
            if last:
                rows.setdefault("position", []).append(last[-1]["held_out/position_mm_median"])
        found[variant] = rows
    return found


def write_page(options: Options) -> None:
    """The table and the learning curves; the manual text below them is kept."""
    recipe = yaml.safe_load(SFT.read_text())
    text = INTRODUCTION.format(
        suite=SUITE,
        steps=recipe["steps"],
        batch=recipe["batch_size"],
        seeds=len(options.seeds),
        episodes=options.episodes,
        first=FIRST_SCENE,
    )
    for variant, rows in results(options).items():
        cells = [_cell(rows.get(f"success {steps}", []), 100, " %") for steps in EULER_STEPS]
        text += f"| {variant} | {' | '.join(cells)} | {_cell(rows.get('position', []), 1, '')} |\n"
    text += "\n![Held-out position error over the steps, a line for each seed](../media/ablations.png)\n\n"
    write_above_notes(PAGE, text)
    _draw(options)


def _draw(options: Options) -> None:
    figure, axis = plt.subplots(figsize=(7, 4))
    for colour, variant in zip(("tab:blue", "tab:green", "tab:red"), VARIANTS, strict=True):
        for seed in options.seeds:
            rows = log_rows(folder(variant, seed))
            points = sorted({r["step"]: r[k] for r in rows for k in r if k == "held_out/position_mm_median"}.items())
            if points:
                axis.plot(*zip(*points, strict=True), color=colour, label=variant if seed == options.seeds[0] else None)
    axis.set(xlabel="step", ylabel="held-out position error, median [mm]", yscale="log")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=100)


def _cell(values: list[float], factor: float, unit: str) -> str:
    if not values:
        return "–"
    scaled = factor * np.array(values)
    spread = scaled.std(ddof=1) if len(scaled) > 1 else 0.0
    return f"{scaled.mean():.1f} ± {spread:.1f}{unit} ({', '.join(f'{v:.1f}' for v in scaled)})"


def main() -> None:
    """Run what is missing, then write the page."""
    options = tyro.cli(Options, description=__doc__)
    os.chdir(ROOT)
    if not options.only_page:
        with ThreadPoolExecutor(options.jobs) as pool:
            for done in [pool.submit(run_one, v, s, options) for s in options.seeds for v in VARIANTS]:
                done.result()
    write_page(options)


if __name__ == "__main__":
    main()
