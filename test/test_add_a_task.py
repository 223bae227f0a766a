# SPDX-License-Identifier: Apache-2.0
"""docs/how-to/add_a_task.md as it stands there: its one module in a package of its own, and its commands."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_vla.data.formats.lerobot import LeRobotReader
from qwen_vla.suites import load_suite

PAGE = Path(__file__).resolve().parents[1] / "docs/how-to/add_a_task.md"
TASK = "touch_cube"


def block(language: str) -> str:
    """The only block of a language on the page."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return text


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder in which the page's package is installed, with nothing but itself; no network."""
    folder, source = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("touch_cube")
    (source / f"{TASK}.py").write_text(block("python"))
    (source / "pyproject.toml").write_text(block("toml"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", folder, source], check=True)
    return folder


def run(command: str, folder: Path, path: str = "") -> subprocess.CompletedProcess:
    """A command of the page in a folder of its own, with `path` to find more packages in."""
    program, *words = shlex.split(command)
    return subprocess.run(
        [Path(sys.executable).parent / program, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def test_the_task_is_played_by_its_expert_and_by_a_policy(package, tmp_path):
    collect, evaluate = block("sh").splitlines()
    shown = run(collect, tmp_path, str(package))
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["expert_success_rate"] == 1.0
    reader = LeRobotReader(tmp_path / "out/data/touch_cube")
    assert len(reader.episodes) == 3 and all("cube" in instruction for instruction in reader.tasks)
    assert reader.info["tasks"][reader.frames["annotation.task"][0]] == TASK

    played = run(evaluate, tmp_path, str(package))
    assert played.returncode == 0, played.stderr
    summary = json.loads((tmp_path / "out/touch_cube.json").read_text())
    assert summary["task"] == TASK and list(summary["tasks"]) == [TASK]
    assert [(row["seed"], row["task"]) for row in summary["rows"]] == [(9000, TASK)]


def test_without_the_package_the_tasks_that_there_are_are_named(tmp_path):
    refused = run(block("sh").splitlines()[1], tmp_path)
    assert refused.returncode == 1
    assert "suite widowx has no task 'touch_cube'; it has: spoon_on_towel, carrot_on_plate" in refused.stderr


def test_a_task_that_was_added_changes_no_scene_that_was_there(package, monkeypatch):
    names = ("widowx", "widowx_pick", "aloha", "mobile_base")
    before = {name: load_suite(name) for name in names}
    monkeypatch.syspath_prepend(package)
    after = {name: load_suite(name) for name in names}
    assert after["widowx"].tasks == (*before["widowx"].tasks, TASK)
    for name in names:
        assert [after[name].scene(seed) for seed in range(20)] == [before[name].scene(seed) for seed in range(20)]
        for task in before[name].tasks:
            assert after[name].seed_of(5, 9000, task) == before[name].seed_of(5, 9000, task)
    suite = after["widowx"]
    assert [suite.seed_of(number, 9000, TASK) for number in range(3)] == [9000, 9001, 9002]
    assert {suite.scene(seed, task=TASK).task.name for seed in range(3)} == {TASK}
