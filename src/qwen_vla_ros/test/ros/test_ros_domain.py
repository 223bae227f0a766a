# SPDX-License-Identifier: Apache-2.0
"""A graph of our own has a ROS domain to itself, whatever else runs on this machine."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from qwen_vla_ros.ros import ros_domain
from qwen_vla_ros.ros.ros_domain import claim_domain, free_domain, is_silent
from qwen_vla_ros.ros.spinning_node import SpinningNode

CLAIM = """
import sys
from qwen_vla_ros.ros.ros_domain import claim_domain
domain, claim = claim_domain()
print(domain, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def only(monkeypatch):
    """Make a single domain the only choice."""
    return lambda domain: monkeypatch.setattr(ros_domain, "DOMAINS", [domain])


def test_a_domain_is_claimed_once_until_it_is_released(only):
    with free_domain() as domain:
        assert 1 <= domain <= 101
        only(domain)
        with pytest.raises(RuntimeError, match="in use"):
            claim_domain()
    with free_domain() as again:
        assert again == domain


@pytest.mark.parametrize("variable", ["ROS_DOMAIN_ID", ros_domain.AVOIDED])
def test_the_domain_of_the_shell_is_not_used(monkeypatch, variable):
    """A robot may be started in it."""
    with free_domain() as one, free_domain() as other:
        monkeypatch.setattr(ros_domain, "DOMAINS", [one, other])
    monkeypatch.setenv(variable, str(one))
    with free_domain() as chosen:
        assert chosen == other


def test_a_claim_ends_with_its_process_however_it_ends(only):
    process = subprocess.Popen([sys.executable, "-c", CLAIM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        only(int(process.stdout.readline()))
        with pytest.raises(RuntimeError, match="in use"):
            claim_domain()
        process.kill()
    _domain, claim = claim_domain()
    claim.close()


def test_a_claim_leaves_no_file_that_could_be_a_link(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with free_domain():
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("discovery", ["LOCALHOST", "SUBNET"])
def test_a_domain_with_a_listening_process_is_not_free(only, monkeypatch, discovery):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", discovery)
    with free_domain() as domain:  # nodes of other tests of this process may still use the tests' domain
        assert is_silent(domain)
    only(domain)
    with SpinningNode("somebody", domain):
        assert not is_silent(domain)
        with pytest.raises(RuntimeError, match="in use"):
            claim_domain()


def test_ports_that_may_not_be_bound_are_not_free(monkeypatch):
    def refuse(*_arguments):
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(PermissionError, match="sandbox"):
        claim_domain()
