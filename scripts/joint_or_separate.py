# SPDX-License-Identifier: Apache-2.0
"""Trains one model per robot, of the same size and in total with the budget of the joint one, and writes a page.

.venv/bin/python scripts/joint_or_separate.py                     # everything; resumes after an interruption
.venv/bin/python scripts/joint_or_separate.py --jobs 2            # two robots at a time, one core each
.venv/bin/python scripts/joint_or_separate.py --only-page         # write the page from existing results

All start from the same model of stage 1, which has visual but no action training in the three worlds. The recipe is
that of stage 2, each robot with its own part of the data and with as many samples of it as in the joint training.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro
import yaml
from experiments import evaluate, log_rows, run_all, train, write_above_notes

from qwen_vla.evaluation.intervals import wilson_interval

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("out/separate")
RECIPE = ROOT / "config/training/joint_actions.yaml"
JOINT_STEPS = 1500
# Batches of each robot that the joint training had drawn by then, to the nearest 20 (a log has a row every 20 steps):
# its shares with snapshots and questions were 0.405, 0.33 and 0.265 up to step 1,037, then 0.445, 0.43 and 0.125.
OWN_STEPS = {"widowx": 620, "aloha": 540, "mobile_base": 340}
ROBOTS = ("widowx", "aloha", "mobile_base")
FIRST_SCENE = 9000
PAGE = ROOT / "docs/explanation/joint_training.md"
INTRODUCTION = """# One model or three

The joint model of stage 2 at step {steps:,} and three models of the same size, one for each robot. All start from
the same model of stage 1 and are trained by the same recipe and schedule; the three on their parts of the same
data, for as many samples as in the joint training: together they cost as much as the joint one.
{episodes} validation scenes of each suite, seeds from {first}; Wilson intervals at 95 %. Error of actions: mean
over demonstrations held out of the training, in the units of normalized actions (-1 to 1 is the middle 98 % of the
data). `scripts/joint_or_separate.py` makes this page.

| suite, task | one model for all | a model for each robot |
|---|---|---|
"""


@dataclass
class Options:
    """What to run."""

    joint: Path = Path(f"out/train/joint_actions/step_{JOINT_STEPS}")
    """Folder of the joint model; of stage 2, because interventions depend on the model."""
    episodes: int = 50
    """Scenes of each suite, the same for both."""
    jobs: int = 1
    """Parallel robots; each uses one core."""
    only_page: bool = False
    """Write the page from existing results."""


def own_part(recipe: dict, robot: str) -> list[dict]:
    """A recipe's data of one robot."""
    return [entry for entry in recipe["data"] if Path(entry["path"]).name in (robot, f"{robot}_snapshots")]


def run_one(robot: str, options: Options) -> None:
    """Train a robot's own model and evaluate it and the joint one; finished work is not repeated."""
    recipe, output, steps = yaml.safe_load(RECIPE.read_text()), OUT / robot, OWN_STEPS[robot]
    changes = {"name": f"{robot}_alone", "output": str(output / "training"), "data": own_part(recipe, robot)}
    changes["steps"] = round(recipe["steps"] * steps / JOINT_STEPS)  # of the schedule, which is not completed
    train(RECIPE, changes | {"save_every": 25, "validate_every": steps}, steps)
    evaluate(robot, output / "training/model", output / "separate.json", options.episodes, FIRST_SCENE)
    evaluate(robot, options.joint, output / "joint.json", options.episodes, FIRST_SCENE)
    print(f"joint_or_separate: {robot}: done", flush=True)


def write_page(options: Options) -> None:
    """The table; the manual text below it is kept."""
    text = INTRODUCTION.format(steps=JOINT_STEPS, episodes=options.episodes, first=FIRST_SCENE)
    for robot in ROBOTS:
        both = [OUT / robot / f"{kind}.json" for kind in ("joint", "separate")]
        joint, separate = (json.loads(path.read_text()) if path.exists() else None for path in both)
        text += f"| **{robot}** | {_rate(joint)} | {_rate(separate)} |\n"
        for task in joint["tasks"] if joint else ():
            text += f"| {task} | {_rate(joint, task)} | {_rate(separate, task)} |\n"
        errors = _error(options.joint.parent, robot), _error(OUT / robot / "training", robot, OWN_STEPS[robot])
        text += f"| error of actions | {errors[0]} | {errors[1]} |\n"
    write_above_notes(PAGE, text + "\n")


def _rate(result: dict | None, task: str | None = None) -> str:
    """Success rate in percent with its interval, of all rows or of one task's."""
    if result is None:
        return "–"
    rows = [row["success"] for row in result["rows"] if task in (None, row["task"])]
    low, high = wilson_interval(sum(rows), len(rows))
    return f"{100 * sum(rows) / len(rows):.0f} % ({100 * low:.0f}–{100 * high:.0f}, n = {len(rows)})"


def _error(run: Path, robot: str, step: int = JOINT_STEPS) -> str:
    """Mean error of a robot's normalized actions in demonstrations held out of the training, at a step of a run."""
    key = f"held_out/{robot}/action"
    return next((f"{row[key]:.3f}" for row in log_rows(run) if row["step"] == step and key in row), "–")


def main() -> None:
    """Run what is missing, then write the page."""
    options = tyro.cli(Options, description=__doc__)
    os.chdir(ROOT)
    OUT.mkdir(parents=True, exist_ok=True)
    if not options.only_page:
        for robot in ROBOTS:
            (OUT / robot).mkdir(exist_ok=True)
        run_all((partial(run_one, robot, options) for robot in ROBOTS), options.jobs)
    write_page(options)


if __name__ == "__main__":
    main()
