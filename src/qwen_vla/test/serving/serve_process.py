# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla serve` as a process of its own, for tests that speak to it from outside."""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

PORT = re.compile(r"(\S+) at \w+://[^\s:]+:(\d+)")


class ServeProcess:
    """A running server, whose output is read all the time. ports: by protocol."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self.ports: dict[str, int] = {}
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def read_until(self, text: str, seconds: float = 240) -> None:
        """Wait for a line with this text; fails when the server ends before."""
        said = []
        while (line := self._lines.get(timeout=seconds)) is not None:
            said.append(line)
            self.ports |= {name: int(port) for name, port in PORT.findall(line)}
            if text in line:
                return
        raise AssertionError(f"the server ended: {''.join(said)}")


def serving(*arguments: str) -> AbstractContextManager[ServeProcess]:
    """A running `qwen-vla serve`."""
    return serving_by(sys.executable, "-m", "qwen_vla", "serve", *arguments)


@contextmanager
def serving_by(*command: str | Path) -> Iterator[ServeProcess]:
    """A server that has reported ready; it is terminated at the end, if it still runs."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        server = ServeProcess(process)
        try:
            server.read_until("ready")
            yield server
        finally:
            process.terminate()
            process.wait(60)
