"""Starts `qwen-vla serve` for a checkpoint, as the official protocols have it: the policy is behind a server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qwen_vla.policies.checkpoint import checkpoint_of

OPENPI = "openpi at "  # begins the line in which the server names the port of openpi's protocol
READY = "ready\n"


@contextmanager
def served(policy: str, robot: Path, clients: int, device: str = "cpu", threads: int = 1) -> Iterator[str]:
    """Reference of a policy on a server; a checkpoint is served as long as the context lasts, a server's is returned.

    Raises:
        RuntimeError: the server did not start; it has said why.
    """
    if checkpoint_of(policy) is None:
        yield policy
        return
    command = [sys.executable, "-m", "qwen_vla", "serve", "--policy", policy, "--robot", str(robot), "--port", "0"]
    command += ["--device", device, "--threads", str(threads), "--clients", str(clients)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"openpi://127.0.0.1:{_port(server)}"
        finally:
            server.terminate()


def _port(server: subprocess.Popen) -> int:
    """Wait until it is ready."""
    port = 0
    for line in server.stdout:
        if line.startswith(OPENPI):
            port = int(line.rsplit(":", 1)[1])
        if line == READY:
            return port
    raise RuntimeError("the server ended before it was ready; its own message is above")
