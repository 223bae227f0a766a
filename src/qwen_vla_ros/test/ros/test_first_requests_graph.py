# SPDX-License-Identifier: Apache-2.0
"""Requests to a server that has not discovered their client yet: it drops its responses, and tells nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from rcl_interfaces.srv import GetParameters
from spinning_peer import SpinningPeer
from std_srvs.srv import Trigger

from qwen_vla_ros.ros.spinning_node import ListeningNode

DROPPED = 2  # responses


class Server(ListeningNode):
    """Its responses are dropped until it has discovered its client; it serves its parameters itself.

    Attributes:
        requests: the services that were called, in order.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, start_parameter_services=False, **options)
        self.requests: list[str] = []
        for kind, service in ((GetParameters, "get_parameters"), (Trigger, "act")):
            self.create_service(kind, f"{name}/{service}", lambda _, reply, s=service: self.answer(s, reply))

    def answer(self, service: str, reply: Any) -> Any:
        self.requests.append(service)
        if len(self.requests) <= DROPPED:
            raise RuntimeError("failed to send response (timeout): client will not receive response")
        return reply


@pytest.fixture
def peers() -> Iterator[tuple[Server, SpinningPeer]]:
    with SpinningPeer("server", kind=Server) as server, SpinningPeer("client") as client:
        yield server.node, client


def test_a_request_without_an_effect_is_repeated_until_it_is_answered(peers):
    server, client = peers
    service = client.node.create_client(GetParameters, "/server/get_parameters")
    assert client.query(service, GetParameters.Request(), 10.0) is not None
    assert len(server.requests) > DROPPED


def test_a_request_with_an_effect_is_sent_once_when_the_server_has_found_the_client(peers):
    server, client = peers
    service = client.node.create_client(Trigger, "/server/act")
    assert client.call(service, Trigger.Request(), 10.0) is not None
    assert server.requests.count("act") == 1 and server.requests.index("act") > DROPPED


def test_a_server_whose_node_has_no_parameter_services_is_called_all_the_same(peers):
    _, client = peers
    with SpinningPeer("other") as other:
        other.node.create_service(Trigger, "elsewhere/act", lambda _, reply: reply)
        service = client.node.create_client(Trigger, "/elsewhere/act")
        assert client.call(service, Trigger.Request(), 10.0) is not None
