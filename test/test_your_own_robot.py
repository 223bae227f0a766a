# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial/your_own_robot.md as it stands there: its commands in their order, for both robots of the page."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwen_vla_ros.ros.environment import own_environment
from qwen_vla_ros.ros.ros_domain import free_domain

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs/tutorial/your_own_robot.md").read_text()
ROBOTS = ("examples/so101/so101.yaml", "examples/ur5e_2f85/ur5e_2f85_stand_in.yaml")
EXPORT = "export ROS_DOMAIN_ID=42 "
DEADLINE = 240.0  # [s] of a command

pytestmark = pytest.mark.alone


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


COMMANDS = [line.split("    #")[0] for block in blocks("sh") for line in block.splitlines()]
(RECIPE,) = blocks("yaml")


class Shell:
    """Runs the page's lines in a folder with a space; those that end with & run until the end."""

    def __init__(self, folder: Path, robot: str, domain: int) -> None:
        self.folder, self._background = folder, {}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        places = {"PATH": path, "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)}
        self._environment = {**own_environment(), **places, "ROS_DOMAIN_ID": str(domain), "ROBOT": robot}

    def run(self, line: str) -> subprocess.CompletedProcess | None:
        if line.endswith("&"):
            self._start(line.removesuffix("&"))
            return None
        how = {"cwd": self.folder, "env": self._environment, "timeout": DEADLINE}
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, **how)
        print(f"$ {line}\n{done.stdout}{done.stderr}")
        return done

    def _start(self, line: str) -> None:
        log = (self.folder / f"{len(self._background)}.log").open("wb")
        command = ["bash", "-c", f"exec {line}"]
        process = subprocess.Popen(command, cwd=self.folder, env=self._environment, stdout=log, stderr=log)
        self._background[line] = process, log

    def end(self) -> None:
        """End what runs in the background, as Ctrl-C would."""
        for process, _ in self._background.values():
            process.send_signal(signal.SIGINT)
        for line, (process, log) in self._background.items():
            code = process.wait(30)
            log.close()
            assert code in (0, 130), f"{line} ended with {code}:\n{Path(log.name).read_text()}"


def test_the_page_names_both_robots() -> None:
    assert COMMANDS[0].startswith(EXPORT) and COMMANDS[0].endswith(f"ROBOT={ROBOTS[0]}") and ROBOTS[1] in PAGE


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("robot", ROBOTS, ids=["so101", "ur5e"])
def test_its_commands_lead_to_a_policy_that_is_refused_or_obeyed(robot: str, tmp_path_factory) -> None:
    folder, began = tmp_path_factory.mktemp("a checkout"), time.monotonic()
    for name in ("examples", "checkpoints"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "out/tutorial").mkdir(parents=True)
    (folder / "out/tutorial/training.yaml").write_text(RECIPE)
    with free_domain() as domain:
        shell = Shell(folder, robot, domain)
        try:
            for line in COMMANDS[1:-1]:
                done = shell.run(line)
                # The doctor may find something about this machine.
                assert done is None or done.returncode in ((0, 2) if "doctor" in line else (0,)), line
                assert done is None or "Traceback" not in done.stderr
            asked = shell.run(COMMANDS[-1])
        finally:
            shell.end()
    assert "qwen-vla say" in COMMANDS[-1] and asked.returncode in (0, 1)
    assert re.search(r"“hold still”: .* \(chunks: \d+ executed, \d+ refused, ", asked.stderr), asked.stderr
    assert len(list((folder / "out/tutorial/episodes").iterdir())) == 2
    print(f"{robot}: {time.monotonic() - began:.0f} s")
