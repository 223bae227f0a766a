# SPDX-License-Identifier: Apache-2.0
"""What policy_node sends to the executor: numbered chunks, and requests to abort a motion."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from lifecycle_msgs.srv import GetState
from rclpy.client import Client
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.topic_endpoint_info import TopicEndpointInfo
from std_srvs.srv import Trigger

from qwen_vla.policies import ActionChunk
from qwen_vla.policies.identity import PolicyIdentity
from qwen_vla_msgs.msg import PolicyIdentity as PolicyIdentityMessage
from qwen_vla_rclpy.printable import printable
from qwen_vla_ros.policy.instruction_run import PublishedChunk
from qwen_vla_ros.ros.chunk_messages import message_from_prediction
from qwen_vla_ros.ros.question import Question

DISCOVERY = 2.0  # [s] for the executor of a running graph to be found by a node that has just been started
POLL_PERIOD = 0.02  # [s]
LONGEST_NAME = 120  # characters of a policy's name
HOLD_PATIENCE = 1.0  # [s] for the executor to respond to a request to hold


class ExecutorClient:
    """Used in the inference thread; numbers the chunks of all goals.

    Attributes:
        latest_latency_ms: age of the latest chunk's observation when it was published [ms]; NaN before the first.
    """

    def __init__(
        self,
        node: Node,
        chunks: Publisher,
        heartbeats: Publisher,
        reports: str,
        hold: Client,
        state: Client,
        base_frame: str,
        policy: PolicyIdentityMessage,
        is_active: Callable[[], bool],
        beat: Callable[[], None],
    ) -> None:
        """Use publishers and clients created by the node.

        Args:
            node: for its clock and log.
            chunks: publisher of ActionChunk.
            heartbeats: publisher of what `beat` sends.
            reports: topic of the executor's reports.
            hold: client of the service that aborts a motion.
            state: client of the service that tells the executor's state, created after the subscription to its reports.
            base_frame: of the robot.
            policy: provenance of the chunks.
            is_active: returns whether the node is active.
            beat: publishes a heartbeat.
        """
        self._node, self._chunks, self._reports, self._hold, self._state = node, chunks, reports, hold, state
        self._heartbeats = heartbeats
        self._base_frame, self._policy, self._is_active, self._beat = base_frame, policy, is_active, beat
        self._chunk_id = 0
        self.latest_latency_ms = float("nan")

    def find_executor(self) -> None:
        """Wait until the executor and, in simulated time, the clock are found, but no longer than DISCOVERY.

        A chunk that is published before is lost, and so is its report. The executor has found this node, too, when it
        answers: DDS announces endpoints in the order of their creation, and the client is the youngest. The second
        answer follows a heartbeat, without which the first chunk would be refused.
        """
        limit = time.monotonic() + DISCOVERY
        self._wait_until(self._is_found, limit)
        self._ask(limit)
        self._beat()
        self._ask(limit)

    def _ask(self, limit: float) -> None:
        question = Question(self._state, GetState.Request())
        self._wait_until(lambda: question.response() is not None, limit)
        question.close()

    def _wait_until(self, is_so: Callable[[], bool], limit: float) -> None:
        idle = threading.Event()
        while not is_so() and self._is_active() and time.monotonic() < limit:
            idle.wait(POLL_PERIOD)

    def _is_found(self) -> bool:
        """Whether a node that reports is known to hear both topics: others hear them, too."""
        executors = _names(self._node.get_publishers_info_by_topic(self._reports))
        for topic in (self._chunks.topic_name, self._heartbeats.topic_name):
            executors &= _names(self._node.get_subscriptions_info_by_topic(topic))
        return bool(executors) and self._state.service_is_ready() and self._node.get_clock().now().nanoseconds > 0

    def publish(self, chunk: ActionChunk, execution_horizon: int) -> PublishedChunk:
        """Number a chunk and publish it; with `execution_horizon` 0, the chunk's own is used."""
        self._chunk_id += 1
        message = message_from_prediction(chunk, self._chunk_id, self._base_frame, execution_horizon)
        message.policy = self._policy
        self._chunks.publish(message)
        self.latest_latency_ms = (self._node.get_clock().now().nanoseconds - chunk.stamp_ns) / 1e6
        executed, whole = message.execution_horizon * message.period, message.horizon * message.period
        return PublishedChunk(self._chunk_id, executed, self.latest_latency_ms, whole, message.period)

    def hold(self) -> None:
        """Have the executor abort its current motion."""
        future = self._hold.call_async(Trigger.Request())
        if not self._is_active():
            return  # a transition waits for this thread, and until it is over, no response is received
        answered = threading.Event()
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(HOLD_PATIENCE):
            self._hold.remove_pending_request(future)
            self._node.get_logger().error(
                f"{self._hold.srv_name} has not responded; the robot stops at the end of the chunk"
            )


def _names(endpoints: Iterable[TopicEndpointInfo]) -> set[tuple[str, str]]:
    return {(endpoint.node_namespace, endpoint.node_name) for endpoint in endpoints}


def identity_message(identity: PolicyIdentity) -> PolicyIdentityMessage:
    """Build the message; what a server says about itself is made printable and cut."""
    return PolicyIdentityMessage(
        name=printable(identity.name, LONGEST_NAME),
        hash=printable(identity.hash, 64),
        protocol=printable(identity.protocol, 64),
        embodiment=identity.embodiment,
    )
