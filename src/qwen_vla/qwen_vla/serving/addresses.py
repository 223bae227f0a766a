# SPDX-License-Identifier: Apache-2.0
"""Whether the server can listen where it is told to, asked before a model is loaded."""

from __future__ import annotations

import socket
from collections.abc import Sequence


def check_addresses(host: str, ports: Sequence[int]) -> None:
    """Refuse ports on which nobody can listen now; 0 is any free one.

    Raises:
        ValueError: a port is given twice.
        OSError: a port is in use, or the host is no address of this machine.
    """
    chosen = [port for port in ports if port]
    if twice := [port for port in chosen if chosen.count(port) > 1]:
        raise ValueError(f"port {twice[0]} is given for two protocols; choose another one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports:
        try:
            socket.create_server((host, port), family=family).close()
        except OSError as error:
            why = str(error.strerror).partition(" (")[0]
            raise OSError(f"cannot listen on {host}:{port}: {why}; choose another host or port") from error
