# SPDX-License-Identifier: Apache-2.0
"""A ROS domain that is otherwise unused on this machine, so that two graphs do not communicate.

Free of ROS: the configuration of the tests (conftest.py) uses it before anything of ROS is imported.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

DOMAINS = range(1, 102)  # above, the ports of a domain overlap Linux's ephemeral ports
# Discovery ports (RTPS 2.5, 9.6.2.3): all participants listen on the first port of their domain, each on one of its
# own. Those limited to this machine (ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST) do without the first.
FIRST_PORT, PORTS_PER_DOMAIN = 7400, 250
OWN_PORTS = range(10, 74, 2)  # of the 32 participants that discover each other on one machine
# The last port of a domain, that of its 120th participant, claims the domain. Unlike a lock file, a port is the same
# for every user and every container that shares the network, and it is released when its process ends.
CLAIM_PORT = PORTS_PER_DOMAIN - 1
AVOIDED = "QWEN_VLA_AVOIDED_DOMAIN"  # ROS_DOMAIN_ID of the user's shell, in an environment of our own


@contextmanager
def free_domain() -> Iterator[int]:
    """Yield an unused domain that is reserved within the context; RuntimeError when there is none."""
    domain, claim = claim_domain()
    with claim:
        yield domain


def claim_domain() -> tuple[int, socket.socket]:
    """Return an unused domain, and the claim to it, which holds until it is closed or the process ends.

    Never the domain of the user's shell, even if it is unused: the user's robot may be started in it.
    """
    avoided = {os.environ.get(name) for name in ("ROS_DOMAIN_ID", AVOIDED)}
    domains = [domain for domain in DOMAINS if str(domain) not in avoided]
    for domain in random.SystemRandom().sample(domains, len(domains)):
        claim = _bound(_port(domain, CLAIM_PORT), "127.0.0.1")
        if claim is None:
            continue
        if is_silent(domain):
            return domain, claim
        claim.close()
    raise RuntimeError(
        f"all ROS domains {DOMAINS[0]}..{DOMAINS[-1]} are in use on this machine; stop some of their processes"
    )


def is_silent(domain: int) -> bool:
    """Whether no process of this machine listens in the domain; only DDS processes use these ports."""
    return all(_is_free(_port(domain, offset)) for offset in (0, *OWN_PORTS))


def _port(domain: int, offset: int) -> int:
    return FIRST_PORT + PORTS_PER_DOMAIN * domain + offset


def _is_free(port: int) -> bool:
    probe = _bound(port, "")
    if probe is None:
        return False
    probe.close()
    return True


def _bound(port: int, address: str) -> socket.socket | None:
    """A socket with exclusive use of the port; None when the port is in use."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.bind((address, port))
    except OSError as error:
        probe.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return probe
