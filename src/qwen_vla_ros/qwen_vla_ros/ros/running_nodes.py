# SPDX-License-Identifier: Apache-2.0
"""What a client asks of any running node: whether it is there, its lifecycle state, its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python

from qwen_vla_ros.ros.question import Question
from qwen_vla_ros.ros.spinning_node import NoAnswer, SpinningNode

ANSWER_TIMEOUT = 30.0  # [s] services and goals are answered in milliseconds on an idle machine
STATE_TIMEOUT = 2.0  # [s] for a node to respond with its lifecycle state
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
        values = client.query(service, GetParameters.Request(names=list(names)), ANSWER_TIMEOUT).values
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
    """Requests a node's lifecycle state without waiting for the response."""

    def __init__(self, client: SpinningNode, node: str) -> None:
        """Look at a node, of which nothing is known yet."""
        self._spinning, self._node = client, node
        self._client = client.node.create_client(GetState, f"{node}/get_state")
        self._question = Question(self._client, GetState.Request())
        self._label = NOT_TOLD

    def label(self) -> str:
        """The last known state, as text."""
        answer = self._question.response()
        if answer is not None:
            self._label = answer.current_state.label
            self._question.close()
            self._question = Question(self._client, GetState.Request())
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
