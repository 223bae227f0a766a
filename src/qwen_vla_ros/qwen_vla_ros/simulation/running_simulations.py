# SPDX-License-Identifier: Apache-2.0
"""Which simulated robots this user has running, so that another command finds them. Free of ROS.

A file per process, in a folder of this user; its process is identified by its ID and start time, so that a file that
was left behind by a killed process is not taken for a robot.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from qwen_vla.json_files import read_json
from qwen_vla.output_files import write_json

SUFFIX = ".json"


class RunningSimulation(BaseModel):
    """A simulated robot: its name, its ROS domain, and its process."""

    model_config = ConfigDict(strict=True, frozen=True)

    robot: str
    domain: int
    process: int
    started: float

    def is_running(self) -> bool:
        """Whether its process is still the one that wrote this."""
        try:
            return psutil.Process(self.process).create_time() == self.started
        except psutil.NoSuchProcess:
            return False


@contextmanager
def announced(robot: str, domain: int) -> Iterator[None]:
    """Inside, `running_simulations` of this user finds this process."""
    process = psutil.Process()
    own = RunningSimulation(robot=robot, domain=domain, process=process.pid, started=process.create_time())
    file = _folder() / f"{process.pid}{SUFFIX}"
    write_json(file, own.model_dump())
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def running_simulations() -> list[RunningSimulation]:
    """The simulated robots of this user; files of processes that have ended are removed."""
    found = []
    for file in sorted(_folder().glob(f"*{SUFFIX}")):
        simulation = read_json(file, RunningSimulation, "remove it")
        if simulation.is_running():
            found.append(simulation)
        else:
            file.unlink(missing_ok=True)
    return found


def _folder() -> Path:
    """Below XDG_RUNTIME_DIR, which only this user may read; where there is none, in the cache."""
    parent = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(parent, "qwen_vla", "simulations")
