# SPDX-License-Identifier: Apache-2.0
"""Starts `qwen-vla serve` for a policy: a benchmark is a client of the server that users run, too."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qwen_vla.policies.opening import split_reference
from qwen_vla.policies.servers.connection import KEY

PROTOCOL = "openpi"
LOOPBACK = "127.0.0.1"
ADDRESS = "openpi at "  # begins the line in which the server names the port of openpi's protocol
READY = "ready\n"


@contextmanager
def served(
    policy: str, robot: Path, clients: int, device: str = "cpu", threads: int = 1, host: str = LOOPBACK
) -> Iterator[str]:
    """Reference of the policy on a server, which runs as long as the context lasts; another server's stays as it is.

    On an address that other machines reach, it demands a key, which clients find in the environment of this process.

    Raises:
        RuntimeError: the server did not start; it has said why.
    """
    if split_reference(policy)[0] == PROTOCOL:
        yield policy
        return
    command = [sys.executable, "-m", "qwen_vla", "serve", "--policy", policy, "--robot", str(robot), "--port", "0"]
    command += ["--device", device, "--threads", str(threads), "--clients", str(clients)]
    command += ["--host", host]
    if host != LOOPBACK:
        os.environ.setdefault(KEY, secrets.token_urlsafe())
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"{PROTOCOL}://{host}:{_port(server)}"
        finally:
            server.terminate()


def _port(server: subprocess.Popen) -> int:
    """Wait until it is ready."""
    port = 0
    for line in server.stdout:
        if line.startswith(ADDRESS):
            port = int(line.rsplit(":", 1)[1])
        if line == READY:
            return port
    raise RuntimeError("the server ended before it was ready; its own message is above")
