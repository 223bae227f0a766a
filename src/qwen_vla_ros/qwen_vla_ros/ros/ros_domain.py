"""A ROS domain that nobody else on this machine uses, so that two simulations do not talk to each other."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

DOMAINS = range(1, 102)  # above, the ports of a domain run into those that Linux gives to outgoing connections
# Where participants listen for each other (RTPS 2.5, 9.6.2.3): all at the first port of their domain, each at one of
# its own. Those that keep to this machine (ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST) do without the first.
FIRST_PORT, PORTS_PER_DOMAIN = 7400, 250
OWN_PORTS = range(10, 74, 2)  # of the 32 participants that look for each other on one machine


@contextmanager
def ros_domain() -> Iterator[int]:
    """Yields ROS_DOMAIN_ID where the user set it, else a free domain, which is reserved inside the context.

    Raises ValueError for a ROS_DOMAIN_ID that is no domain, RuntimeError when all domains are taken.
    """
    given = os.environ.get("ROS_DOMAIN_ID", "")
    if given:
        if not given.isdecimal() or int(given) > 232:
            raise ValueError(f"ROS_DOMAIN_ID={given!r} is not a ROS domain; set it to 0..101, or unset it")
        yield int(given)
        return
    domain, lock = _claim()
    with lock:
        yield domain


def _claim() -> tuple[int, TextIO]:
    for domain in random.SystemRandom().sample(DOMAINS, len(DOMAINS)):
        lock = _lock(domain)
        if lock is None:
            continue
        if is_silent(domain):
            return domain, lock
        lock.close()
    raise RuntimeError(f"all ROS domains {DOMAINS[0]}..{DOMAINS[-1]} are in use on this machine; set ROS_DOMAIN_ID")


def _lock(domain: int) -> TextIO | None:
    """Against others who are about to use the domain: the same lock files as those of the tests (conftest.py)."""
    try:
        lock = Path(tempfile.gettempdir(), f"ros_test_domain_{domain}.lock").open("w")
    except OSError:  # made by another user
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def is_silent(domain: int) -> bool:
    """Against others who already use it: True when no process of this machine listens there.

    Middlewares other than DDS have no such ports.
    """
    first = FIRST_PORT + PORTS_PER_DOMAIN * domain
    return all(_is_free(first + offset) for offset in (0, *OWN_PORTS))


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True
