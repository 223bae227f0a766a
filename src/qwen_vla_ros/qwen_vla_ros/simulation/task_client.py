# SPDX-License-Identifier: Apache-2.0
"""Gives the running stack one task, a scene and its instruction; follows the simulator's judge, returns the result."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from qwen_vla.evaluation.summary import EpisodeRow
from qwen_vla_control.observation.plausibility import DISTRUST
from qwen_vla_control.reasons import Reason
from qwen_vla_control.stamps import NANOSECONDS, nanoseconds
from qwen_vla_msgs.action import ExecuteInstruction
from qwen_vla_msgs.msg import ActionChunk, ChunkReport, TaskState
from qwen_vla_msgs.srv import ResetWorld
from qwen_vla_rclpy.qos import LATCHED, reliable
from qwen_vla_ros.commander.instruction_client import InstructionClient, SentInstruction
from qwen_vla_ros.ros.reports import Ending
from qwen_vla_ros.simulation.stack import SimulatedStack, change_state

ANSWER_TIMEOUT = 30.0  # [s] real: services and the action server respond in milliseconds on an idle machine
PATIENCE = 3600.0  # [s] real, where simulated time is the limit: reached only by a very slow simulation
STALL_TIMEOUT = 30.0  # [s] real without any message of the simulator
SETTLE_TIME = DISTRUST + 0.2  # [s] simulated, from a reset to the instruction: the jump is believed, the scene seen
CLOCK_ROUNDING = 1_000_000  # [ns] simulated; episodes begin at least 10 ms apart
OVERTIME = 10.0  # [s] simulated, for the policy to end a goal after its timeout

SUCCESS, STEP_LIMIT, TIMEOUT = "success", "step limit", "timeout"
_ENDINGS = {  # endings that are not faults of the stack
    Ending.TIMEOUT: TIMEOUT,
    Ending.REFUSED_TOO_OFTEN: "refused too often",
    Ending.SUCCESS: "ended by the policy",
}


class TaskError(RuntimeError):
    """The stack failed (as opposed to the task); the message names the node and what it did not do."""


@dataclass(frozen=True)
class Limits:
    """When an episode ends by itself.

    Attributes:
        timeout: simulated time from the instruction on [s].
        steps: executed control steps; None: any number.
    """

    timeout: float
    steps: int | None = None


@dataclass(frozen=True)
class Report:
    """The executor's report on one chunk; verdict and reasons are the constants of ChunkReport."""

    chunk_id: int
    verdict: int
    reasons: tuple[int, ...]
    message: str


@dataclass(frozen=True)
class TaskRow:
    """Result of one task.

    Attributes:
        task: its name within the suite. target: what the instruction names.
        success: the simulator's judge considers it done.
        ended: "success", "step limit", "timeout", or how the policy ended the goal.
        chunks: accepted by the executor. refused: by the executor.
        steps: control steps executed, for a base waypoints; a refused chunk counts as held for its execution horizon.
        seconds: simulated time from the reset to the end.
        distance: final distance from the tip, or the base, to its next goal [m].
        failure: how far it got, as a category; empty when done.
        metrics: further final figures of the suite, by name.
        latency_ms_p50, latency_ms_p99: from the observation to the published chunk; None without any chunk.
    """

    seed: int
    instruction: str
    task: str
    target: str
    success: bool
    ended: str
    chunks: int
    refused: int
    steps: int
    seconds: float
    distance: float
    failure: str
    metrics: Mapping[str, float]
    latency_ms_p50: float | None
    latency_ms_p99: float | None
    reports: tuple[Report, ...]


class TaskClient:
    """Gives tasks to a stack, one at a time.

    Attributes (written in the client's thread, under `client.changed`):
        latest: state from the judge, None before the first.
        activity: state of policy_node from its feedback.
    """

    def __init__(self, stack: SimulatedStack) -> None:
        self._client, self._simulator = stack.client, stack.simulator
        node = self._client.node
        self.latest: TaskState | None = None
        self.activity = ""
        self._heard_at = time.monotonic()
        self._seed, self._instruction, self._start_ns = 0, "", 0  # of the episode; its start in simulated time
        self._done: TaskState | None = None
        self._chunks: dict[int, ActionChunk] = {}
        self._reports: list[ChunkReport] = []
        self._reset = node.create_client(ResetWorld, f"{self._simulator}/reset")
        self._parameters = node.create_client(SetParameters, "policy_node/set_parameters")
        self._instructions = InstructionClient(self._client, "/policy_node")
        self._client.hear(TaskState, f"{self._simulator}/task_state", self._on_task_state, LATCHED)
        self._client.hear(ActionChunk, "policy_node/action_chunk", self._on_chunk, reliable(50))
        self._client.hear(ChunkReport, "executor_node/chunk_report", self._on_report, reliable(50))

    @property
    def task(self) -> TaskState:
        """The latest state from the judge; TaskError before the first."""
        if self.latest is None:
            raise TaskError(f"{self._simulator} has not published the state of a task yet")
        return self.latest

    @property
    def refusal(self) -> str:
        """Why the gate refused the latest chunk of the episode; empty if it accepted it."""
        decided = [r for r in self._reports if r.verdict in (ChunkReport.ACCEPTED, ChunkReport.REFUSED)]
        return str(decided[-1].message) if decided and decided[-1].verdict == ChunkReport.REFUSED else ""

    def reset(self, seed: int) -> str:
        """Start the episode of a scene; returns its instruction when all cameras have published the new scene.

        The robot and its controllers are elsewhere then: the executor starts anew, too.
        """
        change_state(self._client, "executor_node", Transition.TRANSITION_DEACTIVATE)
        self._client.wait(lambda: self.latest, "task state of the simulator", ANSWER_TIMEOUT)
        before = _start_ns(self.task) + CLOCK_ROUNDING
        reply = self._client.call(self._reset, ResetWorld.Request(seed=seed), ANSWER_TIMEOUT)
        if not reply.success:
            raise TaskError(f"{self._simulator} refused seed {seed}: {reply.message}")
        with self._client.changed:
            self._client.wait(lambda: _start_ns(self.task) > before, "task state of the new scene", ANSWER_TIMEOUT)
            self._seed, self._instruction, self._start_ns = seed, reply.instruction, _start_ns(self.task)
            self._chunks, self._reports, self._done, self.activity = {}, [], None, ""
        self.wait_until(SETTLE_TIME)
        change_state(self._client, "executor_node", Transition.TRANSITION_ACTIVATE)
        return reply.instruction

    def draw_from(self, noise_seed: int) -> None:
        """Make the policy sample the noise of chunk k from seed `noise_seed` + k, for reproducible runs."""
        parameter = Parameter("seed", value=noise_seed % 2**31).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        (verdict,) = self._client.call(self._parameters, request, ANSWER_TIMEOUT).results
        if not verdict.successful:
            raise TaskError(f"policy_node refused the parameter seed = {noise_seed % 2**31}: {verdict.reason}")

    def execute(self, limits: Limits, watch: Callable[[], None] = lambda: None) -> TaskRow:
        """Send the scene's instruction to the policy and return the result; requires a `reset` before.

        `watch` is called continually meanwhile. Raises TaskError, ChildEnded, or as SentInstruction.message and `send`
        for faults of the stack; a task that fails is not a fault.
        """
        goal = self._instructions.send(self._instruction, limits.timeout, self._on_feedback)

        def ending() -> str:
            watch()
            return self._ending(goal, limits)

        ended = self._client.wait(ending, f"end of {self._instruction!r}", PATIENCE)
        final = self._done or self.task
        if not goal.ended:
            goal.cancel()
        return self._row(ended, final, goal.message(ANSWER_TIMEOUT), limits)

    def wait_until(self, seconds: float) -> None:
        """Wait until this much simulated time of the episode has passed [s]."""

        def passed() -> bool:
            self._check_progress()
            return self.task.sim_time >= seconds

        self._client.wait(passed, f"simulated time {seconds:.1f} s", PATIENCE)

    # Messages -------------------------------------------------------------------------------------------------------

    def _on_task_state(self, message: TaskState) -> None:
        if self.latest is None or message.sim_time != self.latest.sim_time:
            self._heard_at = time.monotonic()
        self.latest = message
        if message.success and self._done is None and _start_ns(message) >= self._start_ns - CLOCK_ROUNDING:
            self._done = message

    def _on_chunk(self, message: ActionChunk) -> None:
        if self._belongs(message):
            self._chunks[message.chunk_id] = message

    def _on_report(self, message: ChunkReport) -> None:
        if self._belongs(message):
            self._reports.append(message)

    def _on_feedback(self, state: str, _figures: str) -> None:
        with self._client.changed:
            self.activity = state

    def _belongs(self, message: ActionChunk | ChunkReport) -> bool:
        return nanoseconds(message.header.stamp) >= self._start_ns

    # Result ---------------------------------------------------------------------------------------------------------

    def _ending(self, goal: SentInstruction, limits: Limits) -> str:
        """How the task ended; empty while it continues."""
        if self._done is not None:
            return SUCCESS
        if goal.ended:
            result = goal.result()
            return _ENDINGS.get(result.ending) or f"{result.ending}: {result.reason}"
        self._check_progress()
        counted, enough = self._counted(limits)
        # Only once the judge has seen the last step.
        if enough and nanoseconds(self.task.header.stamp) >= nanoseconds(counted[-1].header.stamp):
            return STEP_LIMIT
        return TIMEOUT if self.task.sim_time > limits.timeout + SETTLE_TIME + OVERTIME else ""

    def _steps(self, report: ChunkReport) -> int:
        """Control steps of a verdict: those sent; for a refused chunk, those during which the robot held instead."""
        if report.verdict in (ChunkReport.COMPLETED, ChunkReport.HELD):
            return report.steps_accepted
        if report.verdict == ChunkReport.REFUSED and report.chunk_id in self._chunks:
            return self._chunks[report.chunk_id].execution_horizon
        return 0

    def _counted(self, limits: Limits) -> tuple[list[ChunkReport], bool]:
        """The reports up to the one that reaches the step limit, and whether it is reached.

        What the policy starts before the cancellation reaches it is not part of the episode.
        """
        steps = 0
        for number, report in enumerate(self._reports):
            steps += self._steps(report)
            if limits.steps is not None and steps >= limits.steps:
                return self._reports[: number + 1], True
        return self._reports, False

    def _check_progress(self) -> None:
        if time.monotonic() - self._heard_at > STALL_TIMEOUT:
            raise TaskError(f"{self._simulator}: simulated time has not advanced for {STALL_TIMEOUT:.0f} s")

    def _row(self, ended: str, final: TaskState, outcome: ExecuteInstruction.Result, limits: Limits) -> TaskRow:
        with self._client.changed:
            reports, chunks = tuple(self._counted(limits)[0]), list(self._chunks.values())
        p50, p99 = _latency(outcome, chunks)
        return TaskRow(
            seed=self._seed,
            instruction=self._instruction,
            task=str(final.task),
            target=str(final.target),
            success=final.success,
            ended=ended,
            chunks=sum(report.verdict == ChunkReport.ACCEPTED for report in reports),
            refused=sum(report.verdict == ChunkReport.REFUSED for report in reports),
            steps=sum(map(self._steps, reports)),
            seconds=round(final.sim_time, 3),
            distance=final.distance,
            failure=str(final.failure),
            metrics=dict(zip(final.metric_names, final.metrics, strict=True)),
            latency_ms_p50=p50,
            latency_ms_p99=p99,
            reports=tuple(Report(r.chunk_id, r.verdict, tuple(r.reason_codes), str(r.message)) for r in reports),
        )


def _start_ns(state: TaskState) -> int:
    """Simulated start time of a task state's episode [ns]."""
    return nanoseconds(state.header.stamp) - round(state.sim_time * NANOSECONDS)


def _latency(outcome: ExecuteInstruction.Result, chunks: list[ActionChunk]) -> tuple[float | None, float | None]:
    """p50 and p99 [ms] measured by policy_node, which excludes the first chunk; of a single chunk, its own latency."""
    if math.isfinite(outcome.latency_ms_p50) and math.isfinite(outcome.latency_ms_p99):
        return outcome.latency_ms_p50, outcome.latency_ms_p99
    if not chunks:
        return None, None
    p50, p99 = np.percentile([chunk.inference_ms for chunk in chunks], [50, 99])
    return float(p50), float(p99)


def as_episode_row(row: TaskRow) -> EpisodeRow:
    """The fields of the in-process evaluation; chunks are those predicted by the policy, including refused ones."""
    refused = [report for report in row.reports if report.verdict == ChunkReport.REFUSED]
    refusals = Counter(Reason(code).name for report in refused for code in report.reasons)
    return EpisodeRow(
        seed=row.seed,
        instruction=row.instruction,
        target=row.target,
        success=row.success,
        chunks=row.chunks + row.refused,
        refused=row.refused,
        seconds=row.seconds,
        distance=row.distance,
        ended=row.ended,
        latency_ms_p50=row.latency_ms_p50 or 0.0,
        task=row.task,
        failure=row.failure,
        metrics=row.metrics,
        refusals=dict(refusals),
    )
