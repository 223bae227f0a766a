# SPDX-License-Identifier: Apache-2.0
"""Plots the training of the joint checkpoint, stage by stage: losses, and success per task of intermediate models.

.venv/bin/python scripts/learning_curves.py out/eval/*.json     # results of `qwen-vla evaluate` for intermediate models
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from experiments import log_rows
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qwen_vla.evaluation.summary import read_summary
from qwen_vla.training.progress.curve import save_figure

STAGES = tuple(
    Path("out/train") / name for name in ("joint_actions", "joint_takeovers", "joint_takeovers_2", "joint_finish")
)
SUITES = ("widowx", "aloha", "mobile_base")


@dataclass
class Options:
    """What to draw."""

    results: tyro.conf.Positional[tuple[Path, ...]]
    """Results of `qwen-vla evaluate`; those of other trainings are ignored."""
    stages: tuple[Path, ...] = STAGES
    """Folders of the trainings, each started from the previous model."""
    out: Path = Path("docs/media/learning.png")
    """The image."""


def starts(stages: tuple[Path, ...]) -> dict[Path, int]:
    """For every stage, the number of steps before it."""
    before, total = {}, 0
    for stage in stages:
        before[stage] = total
        total += max((row["step"] for row in log_rows(stage)), default=0)
    return before


def successes(results: tuple[Path, ...], before: dict[Path, int]) -> dict[str, dict[str, dict[int, dict]]]:
    """suite → task → step → {successes, episodes}; of the results of one model that with most episodes.

    Only of validation scenes: intermediate models are evaluated for model selection.
    """
    found: dict[str, dict[str, dict[int, dict]]] = {suite: {} for suite in SUITES}
    for result in map(read_summary, results):
        stage = Path(result["checkpoint"]).parent
        changed = result["shift"] or result["blind"] or result["shuffle_instructions"] or result["prompt_of"]
        if stage not in before or changed or result["over_ros"] or result["split"] != "validation":
            continue
        step = before[stage] + result["step"]
        for task, rate in result["tasks"].items():
            known = found[result["suite"]].setdefault(task, {})
            if rate["episodes"] > known.get(step, {"episodes": 0})["episodes"]:
                known[step] = rate
    return found


def draw_losses(axis: Axes, before: dict[Path, int]) -> None:
    """The action loss of training and, for each robot, of its held-out demonstrations."""
    held_out = {f"held_out/{suite}/action": f"{suite}, held out" for suite in SUITES}
    for key, label in {"action": "training", **held_out}.items():
        rows = [
            (start + row["step"], row[key]) for stage, start in before.items() for row in log_rows(stage) if key in row
        ]
        axis.plot(*zip(*sorted(rows), strict=True), label=label, linewidth=1)
    axis.set_yscale("log")
    axis.set_ylabel("flow-matching loss")
    axis.legend(fontsize=7)


def draw_tasks(axis: Axes, suite: str, tasks: dict[str, dict[int, dict]]) -> None:
    for task, steps in tasks.items():
        points = sorted((step, rate["successes"] / rate["episodes"]) for step, rate in steps.items())
        axis.plot(*zip(*points, strict=True), marker=".", label=task, linewidth=1)
    axis.set_ylim(-0.03, 1.03)
    axis.set_ylabel(f"{suite}: success")
    axis.legend(fontsize=7, loc="upper left")


def main(options: Options) -> None:
    before = starts(options.stages)
    figure = Figure(figsize=(8, 11))
    axes = figure.subplots(1 + len(SUITES), 1, sharex=True)
    draw_losses(axes[0], before)
    for axis, (suite, tasks) in zip(axes[1:], successes(options.results, before).items(), strict=True):
        draw_tasks(axis, suite, tasks)
    for axis in axes:
        axis.grid(alpha=0.3)
        for stage, start in before.items():
            axis.axvline(start, color="gray", linewidth=0.8, linestyle=":")
            axis.text(
                start,
                1.0,
                " " + stage.name,
                transform=axis.get_xaxis_transform(),
                fontsize=6,
                va="bottom",
                color="gray",
            )
    axes[-1].set_xlabel("step")
    figure.tight_layout()
    print(save_figure(figure, options.out))


if __name__ == "__main__":
    main(tyro.cli(Options))
