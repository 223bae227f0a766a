# SPDX-License-Identifier: Apache-2.0
"""A policy that has just been started meets the executor: nothing of their first exchange may be lost."""

from __future__ import annotations

from lifecycle_msgs.srv import GetState
from spinning_peer import SpinningPeer
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from qwen_vla_msgs.msg import ActionChunk, ChunkReport, PolicyIdentity
from qwen_vla_ros.policy.executor_client import ExecutorClient

DROPPED = 2  # responses


class Executor(SpinningPeer):
    """Drops its first responses, as to a client that it has not discovered; `heard` is what arrived, in order."""

    def __init__(self) -> None:
        super().__init__("executor_node")
        self.heard: list[str] = []
        self.node.create_publisher(ChunkReport, "executor_node/chunk_report", 10)
        self.hear(ActionChunk, "policy_node/action_chunk", lambda _: self.heard.append("chunk"), 10)
        self.hear(Header, "policy_node/heartbeat", lambda _: self.heard.append("heartbeat"), 10)
        self.node.create_service(GetState, "executor_node/get_state", self._tell_state)

    def _tell_state(self, _request: GetState.Request, reply: GetState.Response) -> GetState.Response:
        self.heard.append("question")
        if len(self.heard) <= DROPPED:
            raise RuntimeError("failed to send response (timeout): client will not receive response")
        return reply


def client_of(policy: SpinningPeer) -> ExecutorClient:
    node = policy.node
    heartbeats = node.create_publisher(Header, "policy_node/heartbeat", 10)
    return ExecutorClient(
        node,
        node.create_publisher(ActionChunk, "policy_node/action_chunk", 10),
        heartbeats,
        "executor_node/chunk_report",
        hold=node.create_client(Trigger, "executor_node/hold"),
        state=node.create_client(GetState, "executor_node/get_state"),
        base_frame="base_link",
        policy=PolicyIdentity(),
        is_active=lambda: True,
        beat=lambda: heartbeats.publish(Header()),
    )


def test_the_executor_is_asked_until_it_answers_and_has_heard_a_heartbeat_before_the_first_chunk():
    with Executor() as executor, SpinningPeer("policy_node") as policy:
        client_of(policy).find_executor()
        assert executor.heard.index("heartbeat") > DROPPED and executor.heard[-1] == "question"
