# SPDX-License-Identifier: Apache-2.0
"""docs/how-to/add_a_policy.md as it stands there: its one module in a package of its own, and its commands."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs/how-to/add_a_policy.md"


def block(language: str) -> str:
    """The only block of a language on the page."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return text


IN_PROCESS, OVER_ROS = block("sh").splitlines()


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder in which the page's package is installed, with nothing but itself; no network."""
    folder, source = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("wave")
    (source / "wave.py").write_text(block("python"))
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


@pytest.mark.parametrize(
    ("command", "over_ros"), [(IN_PROCESS, False), pytest.param(OVER_ROS, True, marks=pytest.mark.slow)]
)
def test_the_policy_plays_an_episode_and_the_gate_lets_it(package, tmp_path, command, over_ros):
    """Over ROS it runs in policy_node, and executor_node decides about its chunks."""
    played = run(command, tmp_path, str(package))
    assert played.returncode == 0, played.stderr
    (result,) = (tmp_path / "out").glob("*.json")
    summary = json.loads(result.read_text())
    assert (summary["checkpoint"], summary["step"], summary["over_ros"]) == ("wave://0.02", None, over_ros)
    (row,) = summary["rows"]
    assert (row["seed"], row["success"], row["ended"]) == (9000, False, "step limit")
    assert over_ros or row["refused"] == 0, row["refusals"]  # on a busy computer a chunk may come too late
    # Half of each chunk of 16 steps is executed before the next, of 80 steps.
    assert row["chunks"] - row["refused"] >= 9, row["refusals"]


def test_a_robot_that_it_does_not_fit_is_refused_by_all_that_differs(package, tmp_path):
    refused = run(IN_PROCESS.replace("widowx", "mobile_base"), tmp_path, str(package))
    assert refused.returncode == 1
    text = "wave://0.02 does not fit 'mobile_base': channels: it has x y z rx ry rz gripper, the robot dx dy dtheta"
    assert text in refused.stderr


def test_without_the_package_the_policies_that_there_are_are_named(tmp_path):
    refused = run(IN_PROCESS, tmp_path)
    assert refused.returncode == 1
    assert (
        "no package provides the policy 'wave://0.02'; installed: groot://, mock://, openpi://, qwen_vla://"
        in refused.stderr
    )
