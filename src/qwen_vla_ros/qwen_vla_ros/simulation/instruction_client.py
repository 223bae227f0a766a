# SPDX-License-Identifier: Apache-2.0
"""A client of a running robot: one instruction to its policy_node, its progress and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.parameter import parameter_value_to_python

from qwen_vla_msgs.action import ExecuteInstruction
from qwen_vla_rclpy.printable import printable
from qwen_vla_ros.ros.spinning_node import NoAnswer, SpinningNode

ANSWER_TIMEOUT = 30.0  # [s] services and goals are answered in milliseconds on an idle machine
READY_TIMEOUT = 600.0  # [s] a policy that is being started loads its model
ASK_AGAIN = 10.0  # [s] without the result: its response may have been lost, or its node
_RESULT = ExecuteInstruction.Result
_NAMES = {getattr(_RESULT, name): name for name in dir(type(_RESULT)) if name.isupper() and name[0] != "_"}
REGULAR = (_RESULT.SUCCESS, _RESULT.TIMEOUT)  # endings without a fault


class Rejected(RuntimeError):
    """policy_node did not accept the instruction; the message states why, as far as it is known."""


@dataclass(frozen=True)
class Outcome:
    """How an instruction ended.

    Attributes:
        ending: name of the error code of ExecuteInstruction, as text.
        message: the fault, with its remedy; empty without one.
        executed, refused: chunks, by the executor.
        seconds: duration, in the robot's time.
        obeyed: whether chunks were executed, and no fault ended it.
    """

    ending: str
    message: str
    executed: int
    refused: int
    seconds: float
    obeyed: bool


def is_there(client: SpinningNode, node: str, timeout: float) -> bool:
    """Whether a node, given by its full name, is in the graph, or appears within `timeout` [s]."""

    def found() -> bool:
        return any(f"{space.rstrip('/')}/{name}" == node for name, space in client.node.get_node_names_and_namespaces())

    try:
        return client.wait(found, node, timeout)
    except NoAnswer:
        return False


def read_parameters(client: SpinningNode, node: str, names: Sequence[str]) -> dict[str, Any]:
    """Values of parameters of a running node."""
    service = client.node.create_client(GetParameters, f"{node}/get_parameters")
    values = client.call(service, GetParameters.Request(names=list(names)), ANSWER_TIMEOUT).values
    return dict(zip(names, map(parameter_value_to_python, values), strict=True))


def execute(
    client: SpinningNode, node: str, instruction: str, timeout: float, show: Callable[[str, str], None]
) -> Outcome:
    """Send an instruction to policy_node and wait for its end; an interruption cancels it, and waits for that.

    Args:
        client: in the robot's domain; its `check` is called while waiting.
        node: full name of policy_node.
        instruction, timeout: of the goal; 0 s is the node's default.
        show: called with the instruction's state and its figures as they change.

    Raises:
        Rejected: policy_node is busy or not active.
        NoAnswer: it does not answer.
    """
    action = client.in_turn(lambda: ActionClient(client.node, ExecuteInstruction, f"{node}/execute_instruction"))
    show(f"waiting for {node}", "")
    client.wait(action.server_is_ready, f"action server of {node}", READY_TIMEOUT)

    def on_feedback(message: Any) -> None:
        told = message.feedback
        show(printable(told.state), f"{told.chunks_executed} chunks executed, {told.chunks_refused} refused")

    goal = ExecuteInstruction.Goal(instruction=instruction, timeout=timeout)
    sent = action.send_goal_async(goal, feedback_callback=on_feedback)
    handle = client.result(sent, f"response of {node} to the instruction", ANSWER_TIMEOUT)
    if not handle.accepted:
        raise Rejected(f"{node} rejected the instruction: it is not active, or executes another one; see its log")
    try:
        return _outcome(_result(client, handle, node))
    except (KeyboardInterrupt, SystemExit):
        client.result(handle.cancel_goal_async(), f"response of {node} to the cancellation", ANSWER_TIMEOUT)
        _result(client, handle, node)
        raise


def _result(client: SpinningNode, handle: ClientGoalHandle, node: str) -> ExecuteInstruction.Result:
    """Wait for the end of a goal, which has a timeout of its own, in the robot's time."""
    while True:
        try:
            return client.result(handle.get_result_async(), f"result of {node}", ASK_AGAIN).result
        except NoAnswer:
            if not is_there(client, node, ASK_AGAIN):
                raise


def _outcome(result: ExecuteInstruction.Result) -> Outcome:
    return Outcome(
        ending=_NAMES.get(result.error_code, f"error code {result.error_code}").lower().replace("_", " "),
        message=printable(result.error_msg),
        executed=result.chunks_executed,
        refused=result.chunks_refused,
        seconds=result.duration,
        obeyed=result.error_code in REGULAR and result.chunks_executed > 0,
    )
