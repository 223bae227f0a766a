# SPDX-License-Identifier: Apache-2.0
"""What one goal needs of policy_node, provided by the node. Free of ROS.

Implements `instruction_run.GoalContext`; used in the inference thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qwen_vla.policies import ActionChunk, ChunkPolicy, ContinuingPolicy
from qwen_vla_control.observation.image_decoding import DecodingError
from qwen_vla_control.observation.streams import NotObserved, Observation, Waiting
from qwen_vla_ros.policy.executor_client import ExecutorClient
from qwen_vla_ros.policy.instruction_run import PreviousChunk, PublishedChunk, RunEnded
from qwen_vla_ros.policy.observation_reader import ObservationReader
from qwen_vla_ros.ros.reports import Ending


@dataclass(frozen=True)
class Parts:
    """The parts of a configured node that every goal uses.

    Attributes:
        now: ROS time [ns].
        reader: of observations.
        policy: predicts chunks.
        chunk_size: rows of the robot's chunks.
        executor: receives chunks and requests to hold.
        parameters: of the node: seed, execution_horizon, guidance_schedule; they may change during a goal.
    """

    now: Callable[[], int]
    reader: ObservationReader
    policy: ChunkPolicy
    chunk_size: int
    executor: ExecutorClient
    parameters: Any


class NodeGoalContext:
    """One goal: its instruction, its start time, and the number of chunks predicted for it."""

    def __init__(
        self,
        parts: Parts,
        instruction: str,
        interruption: Callable[[], RunEnded | None],
        tell: Callable[[str, int, int, float], None],
    ) -> None:
        """Begin now; so does the history of its observations.

        Args:
            parts: of the node.
            instruction: the instruction to execute.
            interruption: why the goal must end at once, see GoalContext.interruption.
            tell: gives feedback, see GoalContext.tell.
        """
        self._parts, self._instruction = parts, instruction
        self.now, self.interruption, self.tell, self.hold = parts.now, interruption, tell, parts.executor.hold
        self._predicted = 0
        self._began_ns = parts.now()

    def observe(self, not_before_ns: int) -> Observation | Waiting:
        """Select the policy's input; its history begins with the goal."""
        return self._parts.reader.select(self.now(), not_before_ns, self._began_ns)

    def infer(self, observation: Observation, refusals: int, previous: PreviousChunk | None = None) -> ActionChunk:
        """Decode the selected images and predict a chunk."""
        try:
            seen = self._parts.reader.read(observation, self._instruction, refusals)
        except (DecodingError, NotObserved) as error:
            raise RunEnded(Ending.INFERENCE_STOPPED, str(error)) from error
        parameters, horizon = self._parts.parameters, self._parts.chunk_size
        seed = None if parameters.seed < 0 else parameters.seed + self._predicted
        self._predicted += 1
        policy = self._parts.policy
        if previous is None or previous.consumed >= horizon or not isinstance(policy, ContinuingPolicy):
            return policy.infer(seen, seed=seed)
        steps = min(parameters.execution_horizon or previous.chunk.execution_horizon, horizon)
        return policy.continue_chunk(
            seen,
            previous.chunk,
            inference_delay=min(previous.delay, steps, horizon - steps),
            execution_horizon=steps,
            schedule=parameters.guidance_schedule,
            consumed=previous.consumed,
            seed=seed,
        )

    def publish(self, chunk: ActionChunk) -> PublishedChunk:
        """Send a chunk to the executor."""
        return self._parts.executor.publish(chunk, self._parts.parameters.execution_horizon)
