# SPDX-License-Identifier: Apache-2.0
"""Evaluates the shipped model with one phrase of its robot's prompt changed at a time, and writes a page.

.venv/bin/python scripts/prompt_wording.py                     # everything; resumes after an interruption
.venv/bin/python scripts/prompt_wording.py --jobs 2            # two evaluations at a time, one core each
.venv/bin/python scripts/prompt_wording.py --only-page         # write the page from existing results
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro
import yaml
from experiments import evaluate, run_all, write_above_notes

from embodiment_descriptions import load_robot
from embodiment_descriptions.robots import embodiment_file
from qwen_vla.evaluation.intervals import wilson_interval
from qwen_vla.evaluation.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("out/prompt_wording")
PAGE = ROOT / "docs/explanation/prompt_wording.md"
SUITE, MODEL = "widowx", Path("checkpoints/tiny")
SETS = (8000, 8100, 8200)  # first scenes of three sets, so that the spread between sets of scenes is seen, too
SAME, ONE_ARM, TWO_ARMS = "as trained", "widowx", "aloha"
OF_WIDOWX = {"robot_tag": "WidowX", "rate_hz": 5.0, "chunk_size": 16}
VARIANTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    SAME: (ONE_ARM, {}),
    "tag: with the model number": (ONE_ARM, {"robot_tag": "WidowX 250s"}),
    "tag: of an unknown robot": (ONE_ARM, {"robot_tag": "Franka Panda"}),
    "tag: of another trained robot": (ONE_ARM, {"robot_tag": "ALOHA"}),
    "rate: twice as fast": (ONE_ARM, {"rate_hz": 10.0}),
    "rate: of another trained robot": (ONE_ARM, {"rate_hz": 50.0}),
    "chunk: half as long": (ONE_ARM, {"chunk_size": 8}),
    "chunk: of another trained robot": (ONE_ARM, {"chunk_size": 50}),
    "arms: two": (TWO_ARMS, OF_WIDOWX),
    "all four: another trained robot": (TWO_ARMS, {}),
}
INTRODUCTION = """# What the wording of the prompt does

The prompt names the robot, its arms, its control frequency and the length of a chunk. Here the shipped model runs
suite `{suite}` with one of these phrases changed, and everything else, the robot included, as before. {sets} sets of
{episodes} validation scenes, seeds from {first}, the same for all rows; Wilson intervals at 95 % of all of them
together. `scripts/prompt_wording.py` makes this page.

"""


@dataclass
class Options:
    """What to run."""

    episodes: int = 20
    """Scenes of each set, the same for all variants."""
    jobs: int = 1
    """Parallel evaluations; each uses one core."""
    only_page: bool = False
    """Write the page from existing results."""


def stem(variant: str) -> str:
    """The name of a variant's files."""
    return "".join(letter if letter.isalnum() else "_" for letter in variant)


def described(variant: str) -> Path:
    """The embodiment YAML that yields the changed prompt, written now."""
    robot, changes = VARIANTS[variant]
    path = OUT / f"{stem(variant)}.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(embodiment_file(robot).read_text()) | changes, sort_keys=False))
    return path


def result(variant: str, first: int) -> Path:
    """The summary of one evaluation."""
    return OUT / f"{stem(variant)}_{first}.json"


def run_one(variant: str, first: int, options: Options) -> None:
    """Evaluate one variant in one set of scenes; finished work is not repeated."""
    changed = [] if variant == SAME else ["--prompt-of", str(described(variant))]
    evaluate(SUITE, MODEL, result(variant, first), options.episodes, first, *changed)
    print(f"prompt wording: {variant}, scenes from {first}: done", flush=True)


def row(variant: str) -> tuple[str, ...]:
    """The cells of a variant: its sentence, successes in each set, and in all of them."""
    prompt = load_robot(described(variant)).prompt("…").partition(" to execute")[0]
    found = [json.loads(path.read_text()) for first in SETS if (path := result(variant, first)).exists()]
    successes, episodes = (sum(one[name] for one in found) for name in ("successes", "episodes"))
    if not episodes:
        return variant, prompt, "–", "–"
    low, high = wilson_interval(successes, episodes)
    each = ", ".join(f"{one['successes']}/{one['episodes']}" for one in found)
    return variant, prompt, each, f"**{successes} of {episodes}** ({100 * low:.0f}–{100 * high:.0f} %)"


def write_page(options: Options) -> None:
    """The table; the manual text below it is kept."""
    text = INTRODUCTION.format(suite=SUITE, sets=len(SETS), episodes=options.episodes, first=SETS[0])
    table = markdown_table(("", "the prompt begins", "each set", "all"), [row(variant) for variant in VARIANTS])
    write_above_notes(PAGE, f"{text}{table}\n\n")


def main() -> None:
    """Run what is missing, then write the page."""
    options = tyro.cli(Options, description=__doc__)
    os.chdir(ROOT)
    OUT.mkdir(parents=True, exist_ok=True)
    if not options.only_page:
        run_all((partial(run_one, variant, first, options) for first in SETS for variant in VARIANTS), options.jobs)
    write_page(options)


if __name__ == "__main__":
    main()
