# SPDX-License-Identifier: Apache-2.0
"""scripts/reproduce.py as it is, on recipes that are the suite's own but for their size: the whole way once."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALLER = {
    r"\bepisodes: \d+": "episodes: 4",
    r"\bsteps: \d+": "steps: 2",
    r"\bwarmup_steps: \d+": "warmup_steps: 1",
    r"\bbatch_size: \d+": "batch_size: 2",
}
SUITES = ("widowx", "aloha", "mobile_base")
NEEDED = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "normalization.json",
    "embodiments.json",
    "training.json",
}


@pytest.fixture
def checkout(tmp_path):
    """The script and small recipes in a folder of their own, with this environment."""
    root = tmp_path / "checkout"
    for folder in ("config/training", "config/data"):
        shutil.copytree(ROOT / folder, root / folder)
    for path in (root / "config").glob("*/*.yaml"):
        text = path.read_text()
        for pattern, replacement in SMALLER.items():
            text = re.sub(pattern, replacement, text)
        path.write_text(text)
    (root / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/reproduce.py", root / "scripts")
    (root / ".venv").symlink_to(sys.prefix)
    return root


def reproduce(checkout, cwd, *options):
    command = [sys.executable, checkout / "scripts/reproduce.py", "--episodes", "1", "--workers", "2", *options]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def times_of_data(checkout):
    return {path: path.stat().st_mtime_ns for path in checkout.glob("out/data/joint/*/data/*/*")}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_way_and_again(checkout, tmp_path):
    first = reproduce(checkout, tmp_path, "--processes", "2")
    assert first.returncode == 0, first.stderr
    stages = [line for line in first.stdout.splitlines() if line.startswith("reproduce: ")]
    assert [re.match(r"reproduce: (\d+/14|done)", line)[1] for line in stages] == [
        *(f"{i}/14" for i in range(1, 15)),
        "done",
    ]
    model = checkout / "out/reproduce/tiny"
    names = {path.name for path in model.iterdir()}
    assert names >= NEEDED and "grounding_head.safetensors" not in names and not any("state" in name for name in names)
    assert set(json.loads((model / "embodiments.json").read_text())) == set(SUITES)
    for suite in SUITES:
        found = json.loads((checkout / f"out/reproduce/tiny_{suite}.json").read_text())
        assert (found["episodes"], found["seed"], found["checkpoint"]) == (1, 9000, "out/reproduce/tiny")
        assert found["split"] == "validation"
    kinds = {data["kind"] for data in json.loads((model / "training.json").read_text())["data"]}
    assert kinds == {"demonstrations", "snapshots", "questions"}
    recorded = times_of_data(checkout)
    assert len({path.parents[2] for path in recorded}) == 13
    weights = (model / "model.safetensors").read_bytes()
    again = reproduce(checkout, tmp_path, "--out", "mine/model", "--processes", "1")
    assert again.returncode == 0, again.stderr
    assert times_of_data(checkout) == recorded
    assert (tmp_path / "mine/model/model.safetensors").read_bytes() == weights, "nothing was left to train"
    assert (tmp_path / "mine/model_aloha.json").is_file()


def test_a_failing_stage_ends_it(checkout, tmp_path):
    done = reproduce(checkout, tmp_path, "--workers", "0")
    assert done.returncode == 1 and "--workers 0: it must be at least 1" in done.stderr
    assert done.stdout.splitlines()[-1] == "reproduce: 1/14 collect the data of joint_grounding"


def test_a_folder_with_something_else_is_refused_before_anything_is_made(checkout, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    done = reproduce(checkout, tmp_path, "--out", "mine")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.endswith("mine is not empty and was not made by train; choose another folder\n")
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
