# SPDX-License-Identifier: Apache-2.0
"""Whoever has ROS 2 installed gets the suite into a workspace by one script. Here, the wheels are that installation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = "scripts/into_workspace.sh"
COPIED = ("src", "scripts", "launch", "config", "checkpoints")


def sourced() -> dict[str, str]:
    """The shell's variables after `source /opt/ros/.../setup.bash`, with the wheels as that installation."""
    prefix = Path(sys.prefix)
    packages = Path(sysconfig.get_path("purelib"))
    libraries = [prefix / "lib", *packages.glob("ros_*.libs")]
    beside = packages.glob("cmeel.prefix/lib/python3.*/site-packages")  # of pinocchio; a .pth file names it here
    return {
        "HOME": os.environ["HOME"],
        "PATH": f"{prefix / 'bin'}:{os.environ['PATH']}",
        "AMENT_PREFIX_PATH": str(prefix),
        "CMAKE_PREFIX_PATH": str(prefix),
        "PYTHONPATH": ":".join(map(str, [packages, *beside])),
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
    }


def run(command: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_page_names_the_script() -> None:
    page = (REPOSITORY / "docs/how-to/into_my_workspace.md").read_text(encoding="utf-8")
    assert f"qwen_vla_suite/{SCRIPT}\n" in page and f"{SCRIPT} --no-rosdep" in page


def test_what_is_missing_is_said_first(tmp_path: Path) -> None:
    bare = {"PATH": "/usr/bin:/bin"}
    assert "source /opt/ros/<distribution>/setup.bash" in run(SCRIPT, REPOSITORY, bare).stderr
    elsewhere = run(f"{SCRIPT} {tmp_path}", REPOSITORY, bare | {"AMENT_PREFIX_PATH": "/opt/ros/jazzy"}).stderr
    assert f"is not in {tmp_path}/src; clone or link it there" in elsewhere


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_suite_is_built_in_a_workspace_and_its_nodes_start(tmp_path: Path) -> None:
    clone = tmp_path / "src" / "qwen_vla_suite"
    built_here = shutil.ignore_patterns("*.egg-info", "build")
    for name in COPIED:
        shutil.copytree(REPOSITORY / name, clone / name, symlinks=True, ignore=built_here)
    for name in ("requirements.lock", "LICENSE"):
        shutil.copy(REPOSITORY / name, clone)
    built = run(f"{SCRIPT} --no-rosdep", clone, sourced())
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
    activate = "source venv/bin/activate && source install/setup.bash"
    where = run(f"{activate} && python -c 'import qwen_vla_msgs.msg as m; print(m.__file__)'", tmp_path, sourced())
    assert str(tmp_path / "install") in where.stdout, where.stderr
    programs = tmp_path / "install/qwen_vla_ros/lib/qwen_vla_ros"
    for node in ("policy_node", "executor_node"):
        said = run(f"{activate} && {programs / node} --version", tmp_path, sourced())
        assert said.stdout.startswith(f"{node} 0."), said.stderr
        assert f"#!{tmp_path}/venv/bin/python" in (programs / node).read_text()
