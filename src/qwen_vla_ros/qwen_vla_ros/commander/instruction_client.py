# SPDX-License-Identifier: Apache-2.0
"""Sends instructions to a running policy_node, and follows them to their end.

Requests are sent in the node's own thread: the action client of Jazzy's rclpy has no lock, and drops a response that
arrives before the request is noted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle

from qwen_vla_msgs.action import ExecuteInstruction
from qwen_vla_rclpy.printable import printable
from qwen_vla_ros.ros.chunk_messages import checked_instruction, checked_timeout
from qwen_vla_ros.ros.reports import Ending
from qwen_vla_ros.ros.running_nodes import ANSWER_TIMEOUT, is_there
from qwen_vla_ros.ros.spinning_node import NoAnswer, SpinningNode

ASK_AGAIN = 10.0  # [s] without the result: its response may have been lost, or its node
PATIENCE = 3600.0  # [s] real, where the robot's time is the limit: for an instruction without a timeout of its own
SLOWEST = 0.1  # simulated seconds per real second
REGULAR = (Ending.SUCCESS, Ending.TIMEOUT)  # endings without a fault

Show = Callable[[str, str], None]


class Rejected(RuntimeError):
    """policy_node did not accept an instruction; the message has the remedy."""


class Lost(RuntimeError):
    """policy_node no longer knows an instruction that it had accepted."""


@dataclass(frozen=True)
class InstructionResult:
    """How an instruction ended.

    A policy does not know whether the task is completed: `success` says that the robot was commanded, without a fault.

    Attributes:
        ending: what ended it.
        reason: the fault, with its value and remedy; empty without one.
        chunks_executed, chunks_refused: by the executor.
        seconds: duration [s, the robot's time].
    """

    ending: Ending
    reason: str
    chunks_executed: int
    chunks_refused: int
    seconds: float

    @property
    def success(self) -> bool:
        """Whether chunks were executed, and nothing but the timeout ended it."""
        return self.ending in REGULAR and self.chunks_executed > 0

    def __str__(self) -> str:
        """Return it as a line for people."""
        chunks = f"chunks: {self.chunks_executed} executed, {self.chunks_refused} refused, {self.seconds:.1f} s"
        return f"{self.ending} ({chunks})" + (f": {self.reason}" if self.reason else "")

    @classmethod
    def from_message(cls, result: ExecuteInstruction.Result) -> InstructionResult:
        """Convert the result of the action."""
        return cls(
            ending=Ending(result.error_code),
            reason=printable(result.error_msg),
            chunks_executed=result.chunks_executed,
            chunks_refused=result.chunks_refused,
            seconds=result.duration,
        )


class InstructionClient:
    """Sends instructions to one policy_node."""

    def __init__(self, client: SpinningNode, node: str) -> None:
        """Become a client of the action; `node` is the full name of policy_node."""
        self._client, self._node = client, node
        self._action = client.in_turn(
            lambda: ActionClient(client.node, ExecuteInstruction, f"{node}/execute_instruction")
        )

    def send(self, instruction: str, timeout: float = 0.0, show: Show | None = None) -> SentInstruction:
        """Have policy_node begin with an instruction.

        Args:
            instruction: what the robot should do.
            timeout: when to end it [s, the robot's time]; 0: the node's default.
            show: called with the instruction's state and its figures as they change.

        Raises:
            ValueError: no policy could execute the instruction.
            Rejected: the node is busy or not active.
            NoAnswer: it does not answer.
        """
        goal = ExecuteInstruction.Goal(instruction=checked_instruction(instruction), timeout=checked_timeout(timeout))
        self._client.wait(self._action.server_is_ready, f"action server of {self._node}", ANSWER_TIMEOUT)
        self._client.be_found_by(self._node, ANSWER_TIMEOUT)
        shown = None if show is None else _shown(show)
        sent = self._client.in_turn(lambda: self._action.send_goal_async(goal, feedback_callback=shown))
        what = f"response of {self._node} to the instruction"
        try:
            handle = self._client.result(sent, what, ANSWER_TIMEOUT)
        except (KeyboardInterrupt, SystemExit):  # it may begin all the same
            self._accepted(self._client.result(sent, what, ANSWER_TIMEOUT), goal).cancel()
            raise
        return self._accepted(handle, goal)

    def _accepted(self, handle: ClientGoalHandle, goal: ExecuteInstruction.Goal) -> SentInstruction:
        if not handle.accepted:
            busy = "it is not active, or executes another one; see its log"
            raise Rejected(f"{self._node} rejected the instruction '{goal.instruction}': {busy}")
        return SentInstruction(self._client, self._node, handle, PATIENCE + goal.timeout / SLOWEST)


class SentInstruction:
    """An instruction that policy_node has accepted."""

    def __init__(self, client: SpinningNode, node: str, handle: ClientGoalHandle, patience: float) -> None:
        """Follow a goal, which ends within `patience` [s]."""
        self._client, self._node, self._handle, self._patience = client, node, handle, patience
        self._result = client.in_turn(handle.get_result_async)

    @property
    def ended(self) -> bool:
        """Whether its result has arrived."""
        return self._result.done()

    def cancel(self) -> None:
        """Have it end; NoAnswer when policy_node does not answer."""
        asked = self._client.in_turn(self._handle.cancel_goal_async)
        self._client.result(asked, f"response of {self._node} to the cancellation", ANSWER_TIMEOUT)

    def message(self, patience: float | None = None) -> ExecuteInstruction.Result:
        """Wait for the end; an interruption cancels it, and waits for that.

        Args:
            patience: how long to wait [s]; by default, longer than it can reasonably take.

        Raises:
            NoAnswer: policy_node is gone, or has not come to an end in time; then it is told to cancel.
            Lost: it was restarted.
        """
        try:
            return self._wait(self._patience if patience is None else patience)
        except (KeyboardInterrupt, SystemExit):
            self.cancel()
            self._wait(ANSWER_TIMEOUT)
            raise

    def result(self) -> InstructionResult:
        """Like `message`, as a type of its own."""
        return InstructionResult.from_message(self.message())

    def _wait(self, patience: float) -> ExecuteInstruction.Result:
        limit = time.monotonic() + patience
        while True:
            try:
                return self._known(self._client.result(self._result, f"result of {self._node}", ASK_AGAIN))
            except NoAnswer:
                if not is_there(self._client, self._node, ASK_AGAIN):
                    raise NoAnswer(f"{self._node} is gone, with the end of the instruction; see its log") from None
            if time.monotonic() > limit:
                self.cancel()
                raise NoAnswer(f"{self._node} has not ended the instruction within {patience:.0f} s; see its log")
            self._result = self._client.in_turn(self._handle.get_result_async)

    def _known(self, response: Any) -> ExecuteInstruction.Result:
        if response.status == GoalStatus.STATUS_UNKNOWN:
            raise Lost(f"{self._node} was restarted, and no longer knows the instruction; send it again")
        return response.result


def _shown(show: Show) -> Callable[[Any], None]:
    def on_feedback(message: Any) -> None:
        told = message.feedback
        show(printable(told.state), f"chunks: {told.chunks_executed} executed, {told.chunks_refused} refused")

    return on_feedback
