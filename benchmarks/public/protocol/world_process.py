# SPDX-License-Identifier: Apache-2.0
"""A benchmark's simulator in a process of its own, with the benchmark's own environment."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.public.protocol.world_server import received, sendable

ROOT = Path(__file__).parents[3]  # of the repository
# Paths that would mix another environment into the simulator's.
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
CLOSE_SECONDS = 10.0


class WorldError(RuntimeError):
    """The simulator failed, or its process ended."""


class WorldProcess:
    """Calls a `World` that runs in another process; see there for arguments and results."""

    def __init__(self, python: Path, module: str) -> None:
        """Start it.

        Args:
            python: interpreter of the benchmark's environment.
            module: started as `python -m module FD`; it calls `serve_world`.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [str(python), "-m", module, str(theirs.fileno())],
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if name not in FOREIGN},
                pass_fds=[theirs.fileno()],
            )
        self._module, self._connection = module, Connection(ours.detach())

    def start(self, task: str, start: int) -> dict:
        return self._call("start", task, start)

    def execute(self, rows: np.ndarray, film: bool) -> dict:
        return self._call("execute", rows, film)

    def demonstrate(self, task: str, start: int, size: Sequence[int] | None) -> dict:
        return self._call("demonstrate", task, start, size)

    def take_over(self, size: Sequence[int] | None) -> dict:
        return self._call("take_over", size)

    def snapshot(self, task: str, start: int, size: Sequence[int]) -> dict:
        return self._call("snapshot", task, start, size)

    def close(self) -> None:
        """End the process; it ends by itself, too, when this one does."""
        self._connection.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _call(self, method: str, *arguments: Any) -> Any:
        """The result of a method; WorldError if it failed, with the simulator's traceback."""
        try:
            self._connection.send((method, sendable(list(arguments))))
            kind, value = self._connection.recv()
        except (EOFError, OSError) as error:
            status = self._process.wait()
            raise WorldError(f"{self._module} ended with status {status}; its own message is above") from error
        if kind == "error":
            raise WorldError(f"{self._module}: {method} failed:\n{value}")
        return received(value)
