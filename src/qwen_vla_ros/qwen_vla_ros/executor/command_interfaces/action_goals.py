"""What backends have in common whose device takes goals of an action: one at a time, and a stop cancels it."""

from __future__ import annotations

from typing import Any

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.task import Future


class ActionGoals:
    """Sends goals without waiting for them; the newest counts, as servers of one goal at a time see it, too.

    Nothing blocks: answers arrive as callbacks of the node.
    """

    def __init__(self, node: Node, kind: Any, action: str) -> None:
        """Create the client; `kind` is the action type."""
        self._node, self._kind = node, kind
        self._name = node.resolve_topic_name(action)
        self._client = ActionClient(node, kind, action)
        self._number = 0
        self._destroyed = False
        self._handle: Any = None
        self._wanted = False
        self._fault = ""

    def preflight(self) -> list[str]:
        """Whether somebody serves the action."""
        if self._client.server_is_ready():
            return []
        return [f"nobody serves the action {self._name} ({self._kind.__name__}); is its server active?"]

    def fault(self) -> str:
        """Why the newest goal was rejected or given up by the server."""
        return self._fault

    def send_goal(self, goal: Any) -> None:
        """Send a goal in place of the one before."""
        self._number += 1
        number = self._number
        self._wanted, self._fault = True, ""
        self._client.send_goal_async(goal).add_done_callback(lambda future: self._on_answer(future, number))

    def cancel(self) -> None:
        """End the goal, also one whose answer is still on its way. A goal that is over is left alone."""
        self._wanted, self._fault = False, ""
        if self._handle is not None:
            self._handle.cancel_goal_async()
            self._handle = None

    @property
    def at_work(self) -> bool:
        """A goal has been sent and is not over."""
        return self._wanted

    def wait_until_delivered(self, seconds: float) -> bool:
        """Return True: a cancellation cannot be waited for without spinning; the middleware repeats it if need be."""
        return True

    def destroy(self) -> None:
        """Remove the client; answers that are on their way are not waited for."""
        self._destroyed = True
        self._client.destroy()

    def _on_answer(self, future: Future, number: int) -> None:
        if self._destroyed:
            return
        handle = future.result()
        if not handle.accepted:
            if number == self._number:
                self._wanted, self._fault = False, f"{self._name} rejected the goal"
            return
        if not self._wanted:  # stopped meanwhile
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
        if answer.status == GoalStatus.STATUS_ABORTED:
            self._fault = f"{self._name} gave up: {_in_words(answer.result)}"


def _in_words(result: Any) -> str:
    """What a result says about its failure; fields differ between distributions."""
    words = [str(getattr(result, name)) for name in ("error_msg", "error_code", "stalled") if getattr(result, name, "")]
    return ", ".join(words) or "without a reason"
