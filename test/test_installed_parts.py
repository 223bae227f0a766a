# SPDX-License-Identifier: Apache-2.0
"""The parts without ROS are distributions: installed by pip into an empty environment, they pass their tests.

Not those that read other folders of the repository, or messages of ROS: whoever installs a part alone has none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PARTS = ("embodiment_descriptions", "qwen_vla_control", "qwen_vla")
# A test file with one of these reads other folders of the repository, or messages of ROS.
NEEDS_MORE = re.compile(r"examples/|docs/|config/controllers|_msgs\.msg import|from rcl_interfaces")
# What may be installed, in the versions that everything else here is tested with, where a part asks for it.
CONSTRAINTS = ("--constraint", REPOSITORY / "requirements.lock")

# What users write.
ROBOT_SIDE_CODE = """
from embodiment_descriptions import load_robot
from qwen_vla_control.gate import gate_of

robot = load_robot("widowx")
gate_of(robot)
reveal_type(robot.channel_names)
"""
MODEL_CODE = """
from qwen_vla import Observation, Policy


def act(policy: Policy, observation: Observation) -> None:
    reveal_type(policy.infer(observation))
"""


class Installation:
    """A virtual environment with parts of the suite, and nothing of the environment or shell of this process."""

    def __init__(self, folder: Path, parts: tuple[str, ...]) -> None:
        venv.create(folder / "venv", with_pip=True)
        self.folder, self.bin = folder, folder / "venv" / "bin"
        for part in parts:  # from a copy, because setuptools builds inside the source
            built_here = shutil.ignore_patterns("*.egg-info", "build")
            shutil.copytree(REPOSITORY / "src" / part, folder / part, ignore=built_here)
        sources = [f"./{part}[test]" for part in parts]
        self.run("pip", "install", "--quiet", *CONSTRAINTS, *sources)

    def run(self, program: str, *arguments: object) -> str:
        """The output of a program of the environment, which must succeed."""
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HOME", "SSL_", "HTTP"))}
        environment = kept | {"PATH": f"{self.bin}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        command = [self.bin / program, *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
        return done.stdout

    def check_types(self, code: str) -> str:
        """What pyright of this repository says of a user's file; an error if it is not clean."""
        file = self.folder / "user.py"
        file.write_text(code)
        command = [Path(sys.executable).with_name("pyright"), "--pythonpath", self.bin / "python", file]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def test(self, part: str) -> str:
        """The last line of pytest on the tests of a part that need nothing else."""
        tests = REPOSITORY / "src" / part / "test"
        settings = self.folder / "pytest.ini"
        settings.write_text(f"[pytest]\naddopts = --import-mode=importlib -p no:cacheprovider\npythonpath = {tests}\n")
        files = sorted(tests.rglob("test_*.py"))
        ignored = [f"--ignore={file}" for file in files if NEEDS_MORE.search(file.read_text(encoding="utf-8"))]
        assert len(ignored) < len(files) / 2
        return self.run("pytest", "-q", "-c", settings, f"--confcutdir={tests}", *ignored, tests).splitlines()[-1]


@pytest.fixture(scope="module")
def robot_side(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The two parts that need no torch."""
    return Installation(tmp_path_factory.mktemp("robot_side"), PARTS[:2])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", PARTS[:2])
def test_what_runs_on_the_robot_passes_its_tests(part: str, robot_side: Installation) -> None:
    assert " passed" in robot_side.test(part)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_comes_from_the_repository_and_types_are_told(robot_side: Installation) -> None:
    for part in PARTS[:2]:
        file = Path(robot_side.run("python", "-c", f"import {part}; print({part}.__file__)").strip())
        assert file.is_relative_to(robot_side.folder) and (file.parent / "py.typed").is_file()
    installed = robot_side.run("pip", "list").lower()
    assert "torch" not in installed and "rclpy" not in installed
    told = robot_side.check_types(ROBOT_SIDE_CODE)
    assert 'Type of "robot.channel_names" is "tuple[str, ...]"' in told


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_model_library_predicts_and_its_commands_run(tmp_path: Path) -> None:
    whole = Installation(tmp_path, PARTS)
    assert "qwen-vla 0." in whole.run("qwen-vla", "--version")
    assert "demo" not in whole.run("qwen-vla", "--help"), "it needs ROS"
    checkpoint = REPOSITORY / "checkpoints" / "tiny"
    code = f"from qwen_vla import Policy; print(Policy.from_pretrained({str(checkpoint)!r}, embodiment='widowx'))"
    assert "Policy" in whole.run("python", "-c", code)
    told = whole.check_types(MODEL_CODE)
    assert 'Type of "policy.infer(observation)" is "ActionChunk"' in told
