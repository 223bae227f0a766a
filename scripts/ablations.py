# SPDX-License-Identifier: Apache-2.0
"""Trains and evaluates the ablations of docs/explanation/ablations.md, and writes it: same budget, several seeds.

.venv/bin/python scripts/ablations.py                     # everything; resumes after an interruption
.venv/bin/python scripts/ablations.py --jobs 2            # two trainings at a time, one core each
.venv/bin/python scripts/ablations.py --only-page         # write the page from existing results

Results are collected in docs/results/ablations.json: what is there is not run again, on whatever machine, unless the
recipes or the shipped weights have changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
import yaml
from experiments import call, evaluate, log_rows, run_all, train, write_above_notes

from qwen_vla import QwenVLAModel
from qwen_vla.evaluation.intervals import wilson_interval
from qwen_vla.output_files import folder_complete_or_absent, write_json
from qwen_vla.training.output_folder import model_files

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("out/ablations")
BACKBONE = ROOT / "checkpoints/tiny"
SFT, T2A = ROOT / "config/training/ablation_sft.yaml", ROOT / "config/training/ablation_t2a.yaml"
RESULTS = ROOT / "docs/results/ablations.json"
PAGE, PICTURE = ROOT / "docs/explanation/ablations.md", ROOT / "docs/media/ablations.png"
SUITE, FIRST_SCENE, ERROR = "widowx_pick", 8000, "held_out/position_mm_median"
STARTING, RECORDING = threading.Lock(), threading.Lock()
INTRODUCTION = """# Ablations

Suite `{suite}`, tiny model: {steps} steps of {batch} samples with an action expert that starts from random weights
(another draw for each of {seeds} seeds) with the backbone of the shipped model, which is also trained. {episodes}
validation scenes for each seed, the same for all, from {first}. The budget is small on purpose: if
everything succeeds, nothing can be compared. τ = 1 is noise; a variant differs from the first row as it says.
The 95 % interval of success (Wilson) is over the scenes of all seeds, and does not contain how much trainings differ:
that is seen at each seed's rate. The error is mean ± standard deviation over the seeds.
`make ablations` makes this page; the budget and everything else shared by the variants is in
`config/training/ablation_sft.yaml`, the T2A stage in `ablation_t2a.yaml`.

| variant | success | each seed [%] | held-out position error, median [mm] |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Variant:
    """What differs from the recipe. name: of its folders. euler_steps: of the evaluation."""

    name: str
    tau: dict[str, str]
    t2a: bool = False
    euler_steps: int = 4


NOISE = {"distribution": "beta", "direction": "noise"}
CLEAN = {"distribution": "beta", "direction": "clean"}
VARIANTS = {
    "τ ~ Beta(1.5, 1): more at the noise end, as π0": Variant("noise", NOISE),
    "10 Euler steps instead of 4": Variant("noise", NOISE, euler_steps=10),
    "τ ~ Beta(1, 3): much more at the clean end": Variant("beta_1_3", CLEAN | {"distribution": "beta_1_3"}),
    "τ logit-normal: more in the middle": Variant("logit_normal", NOISE | {"distribution": "logit_normal"}),
    "τ ~ 1 − Beta(1.5, 1): more at the clean end": Variant("clean", CLEAN),
    "a T2A stage first": Variant("t2a_noise", NOISE, t2a=True),
}


@dataclass
class Options:
    """What to run."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of training; each has its own order of the data, noise and, with T2A, its own expert."""
    episodes: int = 100
    """Scenes per evaluation, the same for all."""
    jobs: int = 1
    """Parallel trainings; each uses one core."""
    only_page: bool = False
    """Write the page from existing results."""


def basis() -> str:
    """What all results have in common: data, recipes and shipped weights, as a digest."""
    files = (ROOT / "config/data/ablation.yaml", SFT, T2A, BACKBONE / "model.safetensors")
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def read_results(whatever_basis: bool = False) -> dict[str, dict[str, dict]]:
    """Evaluations by variant and seed, as text; without those of another basis, unless they are only shown."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"basis": basis(), "variants": {}}
    return found["variants"] if whatever_basis or found["basis"] == basis() else {}


def record(variant: str, seed: int, evaluation: Path, training: Path) -> None:
    """Add an evaluation, and the held-out errors of its training, to the results."""
    done = json.loads(evaluation.read_text())
    figures = {name: done[name] for name in ("successes", "episodes", "success_rate")}
    with RECORDING:
        results = read_results()
        results.setdefault(variant, {})[str(seed)] = figures | {"held_out_mm": held_out(training)}
        write_json(RESULTS, {"basis": basis(), "variants": results})


def run_one(name: str, seed: int, options: Options) -> None:
    """Train one model and evaluate the variants that use it; finished work is not repeated."""
    done = read_results()
    variants = [variant for variant, settings in VARIANTS.items() if settings.name == name]
    if all(done.get(variant, {}).get(str(seed), {}).get("episodes") == options.episodes for variant in variants):
        return
    settings, place = VARIANTS[variants[0]], OUT / basis() / f"{name}_seed{seed}"
    common = {"seed": seed, "init_from": str(fresh_expert(seed))}
    changes = {**common, "output": str(place), "tau": settings.tau}
    if settings.t2a:
        expert = place.with_name(f"t2a_seed{seed}")
        train(T2A, {**common, "output": str(expert)})
        changes["expert_from"] = str(expert / "model")
    train(SFT, changes)
    for variant in variants:
        steps = VARIANTS[variant].euler_steps
        result = place / f"euler{steps}.json"
        evaluate(SUITE, place / "model", result, options.episodes, FIRST_SCENE, "--euler-steps", str(steps))
        record(variant, seed, result, place)
        print(f"ablations: {variant}, seed {seed}: done", flush=True)


def fresh_expert(seed: int) -> Path:
    """The shipped model with an untrained action expert; its random weights depend on the seed."""
    place = OUT / basis() / f"start_seed{seed}"
    with STARTING:
        if not place.exists():
            model = QwenVLAModel.from_pretrained(BACKBONE)
            torch.manual_seed(seed)
            model.action_expert.load_state_dict(QwenVLAModel(model.config).action_expert.state_dict())
            with folder_complete_or_absent(place, model_files) as temporary:
                shutil.copytree(BACKBONE, temporary, dirs_exist_ok=True)
                model.save_pretrained(temporary)
    return place


def row(variant: str, of_seeds: Mapping[str, Mapping]) -> str:
    """A variant's row of the table, of the seeds that are evaluated."""
    done = [of_seeds[seed] for seed in sorted(of_seeds, key=int)]
    if not done:
        return f"| {variant} | – | – | – |\n"
    successes, episodes = (sum(each[name] for each in done) for name in ("successes", "episodes"))
    low, high = wilson_interval(successes, episodes)
    rates = ", ".join(f"{100 * each['success_rate']:.0f}" for each in done)
    errors = [each["held_out_mm"][-1][1] for each in done]
    error = f"{np.mean(errors):.1f} ± {np.std(errors, ddof=1):.1f}" if len(errors) > 1 else "–"
    return f"| {variant} | {successes} of {episodes} ({100 * low:.0f}–{100 * high:.0f} %) | {rates} | {error} |\n"


def held_out(place: Path) -> list[tuple[int, float]]:
    """Steps of a training, and the median position error on held-out samples after each [mm]."""
    return sorted({row["step"]: row[ERROR] for row in log_rows(place) if ERROR in row}.items())


def write_page(options: Options) -> None:
    """The table and the learning curves; the manual text below them is kept."""
    recipe, results = yaml.safe_load(SFT.read_text()), read_results(whatever_basis=True)
    text = INTRODUCTION.format(
        suite=SUITE,
        steps=recipe["steps"],
        batch=recipe["batch_size"],
        seeds=len(options.seeds),
        episodes=options.episodes,
        first=FIRST_SCENE,
    )
    text += "".join(row(variant, results.get(variant, {})) for variant in VARIANTS)
    text += "\n![Held-out position error over the steps, a line for each seed](../media/ablations.png)\n\n"
    write_above_notes(PAGE, text)
    _draw(results)


def _draw(results: Mapping[str, Mapping[str, Mapping]]) -> None:
    figure, axis = plt.subplots(figsize=(7, 4.6))
    trainings = {settings.name: variant for variant, settings in reversed(VARIANTS.items())}
    for number, (_, variant) in enumerate(sorted(trainings.items())):
        label = variant
        for seed in results.get(variant, {}).values():
            axis.plot(*zip(*seed["held_out_mm"], strict=True), color=f"C{number}", label=label)
            label = None  # once for all seeds
    axis.set(xlabel="step", ylabel="held-out position error, median [mm]", yscale="log")
    axis.grid(alpha=0.3)
    for formatted in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        formatted("{x:g}")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=2, fontsize="small")
    figure.tight_layout()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=100)


def main() -> None:
    """Run what is missing, then write the page."""
    options = tyro.cli(Options, description=__doc__)
    os.chdir(ROOT)
    (OUT / basis()).mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(settings.name for settings in VARIANTS.values()))
    if options.only_page and not RESULTS.exists():
        sys.exit(f"ablations: {RESULTS.relative_to(ROOT)} does not exist; without --only-page it is made")
    if not options.only_page:
        call(["collect", str(SFT)], OUT / "collect.txt")
        run_all((partial(run_one, name, seed, options) for name in names for seed in options.seeds), options.jobs)
    write_page(options)


if __name__ == "__main__":
    main()
