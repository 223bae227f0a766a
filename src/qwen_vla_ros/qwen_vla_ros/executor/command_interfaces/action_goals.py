# SPDX-License-Identifier: Apache-2.0
"""The common part of backends whose device takes action goals: one at a time, canceled by a stop."""

from __future__ import annotations

from typing import Any

from action_msgs.msg import GoalInfo, GoalStatus
from action_msgs.srv import CancelGoal
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.task import Future
from unique_identifier_msgs.msg import UUID

from qwen_vla_ros.ros.question import Question

NO_GOAL = CancelGoal.Request(goal_info=GoalInfo(goal_id=UUID(uuid=[255] * 16)))  # asks to cancel what was never sent


class ActionGoals:
    """Sends goals without waiting for them; the newest replaces the others, as in servers of one goal at a time.

    Nothing blocks: responses arrive as callbacks of the node.
    """

    def __init__(self, node: Node, kind: Any, action: str) -> None:
        """Create the client; `kind` is the action type."""
        self._node, self._kind = node, kind
        self._name = node.resolve_topic_name(action)
        self._client = ActionClient(node, kind, action)
        # The youngest client: a server that answers it has found those of the action, too, so no response is lost.
        self._probe = node.create_client(CancelGoal, f"{action}/_action/cancel_goal")
        self._question = Question(self._probe, NO_GOAL)
        self._number = 0
        self._destroyed = False
        self._handle: Any = None
        self._wanted = False
        self._fault = ""

    def preflight(self) -> list[str]:
        """Check that a server of the action is available and answers."""
        if not self._client.server_is_ready():
            self._question.close()
            self._question = Question(self._probe, NO_GOAL)
            return [f"no server of the action {self._name} ({self._kind.__name__}); is it active?"]
        if self._question.response() is None:
            return [f"the server of the action {self._name} has not answered yet; is it running?"]
        return []

    def fault(self) -> str:
        """Return why the server rejected or aborted the newest goal."""
        return self._fault

    def send_goal(self, goal: Any) -> None:
        """Send a goal that replaces the previous one."""
        self._number += 1
        number = self._number
        self._wanted, self._fault = True, ""
        self._client.send_goal_async(goal).add_done_callback(lambda future: self._on_answer(future, number))

    def cancel(self) -> None:
        """Cancel the goal, even if its response is still pending. A goal that is over is left alone."""
        self._wanted, self._fault = False, ""
        if self._handle is not None:
            self._handle.cancel_goal_async()
            self._handle = None

    @property
    def at_work(self) -> bool:
        """Whether a goal has been sent and is not over."""
        return self._wanted

    def wait_until_delivered(self, seconds: float) -> bool:
        """Return True: waiting for a cancellation would require spinning; the middleware resends it if necessary."""
        return True

    def destroy(self) -> None:
        """Remove the client without waiting for pending responses."""
        self._destroyed = True
        self._client.destroy()
        self._node.destroy_client(self._probe)

    def _on_answer(self, future: Future, number: int) -> None:
        if self._destroyed:
            return
        handle = future.result()
        if handle is None:  # canceled with the client
            return
        if not handle.accepted:
            if number == self._number:
                self._wanted, self._fault = False, f"{self._name} rejected the goal"
            return
        if not self._wanted:  # stopped in the meantime
            handle.cancel_goal_async()
            return
        if number == self._number:
            self._handle = handle
        handle.get_result_async().add_done_callback(lambda result: self._on_result(result, number))

    def _on_result(self, future: Future, number: int) -> None:
        if self._destroyed or number != self._number or not self._wanted:
            return
        self._handle, self._wanted = None, False
        answer = future.result()
        if answer is not None and answer.status == GoalStatus.STATUS_ABORTED:
            self._fault = f"{self._name} failed: {_as_text(answer.result)}"


def _as_text(result: Any) -> str:
    """Failure that a result states; fields differ between distributions."""
    words = [str(getattr(result, name)) for name in ("error_msg", "error_code", "stalled") if getattr(result, name, "")]
    return ", ".join(words) or "no reason given"
