# SPDX-License-Identifier: Apache-2.0
"""What a client asks of any running node: whether it is there, its lifecycle state, its parameters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from rclpy.task import Future

from qwen_vla_ros.ros.spinning_node import NoAnswer, SpinningNode

ANSWER_TIMEOUT = 30.0  # [s] services and goals are answered in milliseconds on an idle machine
STATE_TIMEOUT = 2.0  # [s] for a node to respond with its lifecycle state before another request
NOT_TOLD = "starting"  # the state of a node that has not told it yet


def is_there(client: SpinningNode, node: str, timeout: float) -> bool:
    """Whether a node, given by its full name, is in the graph, or appears within `timeout` [s]."""

    def found() -> bool:
        return any(f"{space.rstrip('/')}/{name}" == node for name, space in client.node.get_node_names_and_namespaces())

    try:
        return client.wait(found, node, timeout)
    except NoAnswer:
        return False


def absent(client: SpinningNode, node: str) -> str:
    """That a node is not in the graph, and what to do about it."""
    domain = client.node.context.get_domain_id()
    start = "start a robot (qwen-vla sim widowx, or ros2 launch …), or choose another domain or namespace"
    return f"no {node} is running in ROS domain {domain}; {start}"


def read_parameters(client: SpinningNode, node: str, names: Sequence[str]) -> dict[str, Any]:
    """Values of parameters of a running node."""
    service = client.node.create_client(GetParameters, f"{node}/get_parameters")
    try:
        values = client.call(service, GetParameters.Request(names=list(names)), ANSWER_TIMEOUT).values
    finally:
        client.in_turn(lambda: client.node.destroy_client(service))
    return dict(zip(names, map(parameter_value_to_python, values), strict=True))


def wait_until_active(client: SpinningNode, node: str, timeout: float) -> None:
    """Wait until a managed node is active; NoAnswer, with its state, when it is not within `timeout` [s]."""
    state = LifecycleState(client, node)
    try:
        client.wait(lambda: state.label() == "active", f"active {node}", timeout)
    except NoAnswer as error:
        raise NoAnswer(f"{error}: {state.remedy()}") from None
    finally:
        state.close()


def explain(client: SpinningNode, node: str) -> str:
    """Why a managed node does not do what it is asked, and what to do about it."""
    state = LifecycleState(client, node)
    try:
        client.wait(lambda: state.label() != NOT_TOLD, f"state of {node}", STATE_TIMEOUT)
    except NoAnswer:
        pass  # which the text says
    finally:
        state.close()
    return state.remedy()


class LifecycleState:
    """Requests a node's lifecycle state without waiting for the response; requests again when none arrives."""

    def __init__(self, client: SpinningNode, node: str) -> None:
        """Look at a node, of which nothing is known yet."""
        self._spinning, self._node = client, node
        self._client = client.node.create_client(GetState, f"{node}/get_state")
        self._asked: Future | None = None
        self._asked_at = 0.0
        self._label = NOT_TOLD

    def label(self) -> str:
        """The last known state, as text."""
        if self._asked is not None and self._asked.done():
            answer = self._asked.result()
            self._label = self._label if answer is None else answer.current_state.label
            self._asked = None
        overdue = time.monotonic() - self._asked_at > STATE_TIMEOUT
        if self._client.service_is_ready() and (self._asked is None or overdue):
            if self._asked is not None:
                self._client.remove_pending_request(self._asked)
            self._asked, self._asked_at = self._client.call_async(GetState.Request()), time.monotonic()
        return self._label

    def remedy(self) -> str:
        """Why the node does not do what it is asked, and what to do about it."""
        if self._label == NOT_TOLD:
            there = is_there(self._spinning, self._node, 0.0)
            return "it does not answer; see its log" if there else absent(self._spinning, self._node)
        if self._label == "active":
            return "it is active, but does not answer; see its log"
        activate = f"ros2 lifecycle set {self._node} activate, or autostart:=true"
        return f"it is {self._label}; activate it ({activate}), or see in its log what it waits for"

    def close(self) -> None:
        """Ask no more."""
        self._spinning.in_turn(lambda: self._spinning.node.destroy_client(self._client))
