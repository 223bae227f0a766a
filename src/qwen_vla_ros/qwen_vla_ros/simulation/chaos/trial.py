# SPDX-License-Identifier: Apache-2.0
"""Episodes under faults: the commands sent to the robot, the outcomes of the tasks, and the processes left behind."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from tqdm import tqdm

from embodiment_descriptions import Embodiment
from qwen_vla.evaluation.options import EvaluateOptions
from qwen_vla.evaluation.summary import EpisodeRow
from qwen_vla.suites import Suite
from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ChunkReport
from qwen_vla_rclpy.qos import reliable
from qwen_vla_ros.commander import Lost, Rejected
from qwen_vla_ros.ros.spinning_node import NoAnswer
from qwen_vla_ros.simulation.chaos.monkey import Disturbed, Monkey
from qwen_vla_ros.simulation.chaos.saboteur import Saboteur
from qwen_vla_ros.simulation.stack import SimulatedStack, SimulatedWorld, simulated_stack
from qwen_vla_ros.simulation.task_client import Limits, TaskClient, TaskError, as_episode_row

PREFIX = "chaos"
VERDICTS = {getattr(ChunkReport, name): name.lower() for name in ("ACCEPTED", "REFUSED", "COMPLETED", "HELD")}
SPARE_SECONDS = 44.0  # [s] simulated, for retries after faults
TRIES = 20  # goals per episode
PAUSE = 1.0  # [s] simulated, after an attempt that a fault has ended
PAUSE_TIMEOUT = 60.0  # [s] real; the machine may be busy
RELAY_TIMEOUT = 60.0  # [s] real, to start; takes seconds on an idle machine


def run(
    options: EvaluateOptions, suite: Suite, world: SimulatedWorld, logs: Path
) -> tuple[list[EpisodeRow], dict[str, Any]]:
    """Run the episodes.

    Returns:
        Rows, and findings: the faults by kind, executor_node's verdicts and reasons, the endings of attempts without a
        result, the worst setpoint that reached the simulator's servos (of a base: the worst commanded velocity),
        whether it exceeded a limit, and the processes left behind.
    """
    topics = relayed_topics(suite.embodiment)
    seconds = suite.max_steps * suite.embodiment.period + SPARE_SECONDS
    policy = {"euler_steps": options.euler_steps, "quantize": options.quantize}
    with simulated_stack(options.policy, logs, policy, remappings=remappings(topics), world=world) as stack:
        _start_relay(stack, topics, options.seed)
        monkey = Monkey(stack.processes, stack.commands, stack.environment, options.seed)
        culprits = [monkey, Saboteur(stack.client, stack.simulator, suite.embodiment, options.seed)]
        limits, verdicts = _LimitWatch(stack), _Verdicts(stack)
        tasks = TaskClient(stack)
        rows, endings = [], Counter()
        for seed in (bar := tqdm(options.seeds(suite), desc=f"{options.suite} in chaos", unit="episode")):
            rows.append(_episode(stack, tasks, culprits, seed, seconds, endings))
            bar.set_postfix_str(f"{sum(row.success for row in rows)} succeeded, {_deeds(culprits).total()} faults")
        worst, exceeded = limits.latest()
        sessions = list(stack.processes.pids().values())
    findings = {
        "faults": dict(_deeds(culprits)),
        "verdicts": dict(sorted(verdicts.counts.items())),
        "tries": dict(endings),
        "limits": worst,
        "limits_exceeded": exceeded,
        "orphans": _left(sessions),
    }
    return rows, findings


def relayed_topics(embodiment: Embodiment) -> list[tuple[str, str, str, str]]:
    """The topics that the relay forwards: subscribing node, topic, type, reliability."""
    policy, executor = "policy_node", "executor_node"
    if embodiment.control_mode.moves_base and embodiment.odometry is not None:
        measured = [(embodiment.odometry.topic, "nav_msgs/msg/Odometry")]
    else:
        measured = [(stream.topic, "sensor_msgs/msg/JointState") for stream in embodiment.joint_states]
    return [
        (executor, "policy_node/action_chunk", "qwen_vla_msgs/msg/ActionChunk", "reliable"),
        (executor, "policy_node/heartbeat", "std_msgs/msg/Header", "reliable"),
        *((executor, topic, kind, "reliable") for topic, kind in measured),
        (policy, "executor_node/chunk_report", "qwen_vla_msgs/msg/ChunkReport", "reliable"),
        *((policy, camera.topic, "sensor_msgs/msg/Image", "best_effort") for camera in embodiment.cameras),
    ]


def remappings(topics: list[tuple[str, str, str, str]]) -> dict[str, dict[str, str]]:
    """Have the nodes subscribe to the relay's topics."""
    renamed: dict[str, dict[str, str]] = {}
    for node, topic, _, _ in topics:
        renamed.setdefault(node, {})[topic] = f"{PREFIX}/{topic}"
    return renamed


def _start_relay(stack: SimulatedStack, topics: list[tuple[str, str, str, str]], seed: int) -> None:
    words = [w for _, topic, kind, how in topics for w in ("--topic", topic, kind, f"{PREFIX}/{topic}", how)]
    command = [sys.executable, "-m", "qwen_vla_ros.simulation.chaos.relay", "--seed", str(seed), *words]
    stack.processes.start("chaos_relay", command, stack.environment)
    node, names = stack.client.node, [f"{PREFIX}/{topic}" for _, topic, _, _ in topics]
    stack.client.wait(lambda: all(map(node.count_publishers, names)), "chaos_relay", RELAY_TIMEOUT)


def _episode(
    stack: SimulatedStack,
    tasks: TaskClient,
    culprits: Sequence[Monkey | Saboteur],
    seed: int,
    seconds: float,
    endings: Counter,
) -> EpisodeRow:
    """Run one scene for `seconds` of simulated time; the instruction is sent again whenever a fault has ended the goal.

    `endings` counts those faults.
    """
    stack.wait_until_ready()
    instruction, row = tasks.reset(seed), None
    for _ in range(TRIES):
        left = seconds - tasks.task.sim_time
        if left <= 0 or (row and row.success):
            break
        stack.client.check = partial(_act, culprits)
        for culprit in culprits:
            culprit.wake()
        try:
            row = tasks.execute(Limits(timeout=left))
        except (Disturbed, TaskError, Rejected, Lost, NoAnswer) as fault:
            endings[str(fault)] += 1
            row = None  # the result of an earlier attempt is out of date
        finally:
            for culprit in culprits:
                culprit.rest()
            stack.client.check = stack.processes.check
        stack.wait_until_ready()
        if row is None:
            _pause(stack, tasks)
    if row is not None:
        return as_episode_row(row)
    task = tasks.task
    return EpisodeRow(
        seed=seed,
        instruction=instruction,
        target=str(task.target),
        success=task.success,
        chunks=0,
        refused=0,
        seconds=task.sim_time,
        distance=task.distance,
        ended="disturbed",
        latency_ms_p50=0.0,
        task=str(task.task),
        failure=str(task.failure),
        metrics=dict(zip(task.metric_names, task.metrics, strict=True)),
    )


def _pause(stack: SimulatedStack, tasks: TaskClient) -> None:
    """Give policy_node time to end the goal: it has one at a time."""
    until = tasks.task.sim_time + PAUSE
    stack.client.wait(lambda: tasks.task.sim_time >= until, "simulated time", PAUSE_TIMEOUT)


def _act(culprits: Sequence[Monkey | Saboteur]) -> None:
    for culprit in culprits:
        culprit.act()


def _deeds(culprits: Sequence[Monkey | Saboteur]) -> Counter[str]:
    return sum((culprit.deeds for culprit in culprits), Counter())


class _LimitWatch:
    """Receives the simulator's judgment of the commands that reached its servos or wheels."""

    def __init__(self, stack: SimulatedStack) -> None:
        self._client, self._status = stack.client, None
        self._name = f"{stack.simulator}: limits"
        stack.client.hear(DiagnosticArray, "/diagnostics", self._take, 10)

    def _take(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._name:
                self._status = status

    def latest(self) -> tuple[Mapping[str, str], bool]:
        """The worst values of the whole run, and whether one of them exceeded a limit."""
        status = self._client.wait(lambda: self._status, f"status {self._name} on /diagnostics", 10.0)
        return {item.key: item.value for item in status.values}, status.level == DiagnosticStatus.ERROR


class _Verdicts:
    """Counts executor_node's reports: by verdict, and by the reasons of those that were refused or held.

    Attributes:
        counts: "accepted": 12, "refused STALE": 3; a report with several reasons counts for each.
    """

    def __init__(self, stack: SimulatedStack) -> None:
        self.counts: Counter[str] = Counter()
        stack.client.hear(ChunkReport, "executor_node/chunk_report", self._take, reliable(50))

    def _take(self, report: ChunkReport) -> None:
        verdict = VERDICTS[report.verdict]
        names = [f"{verdict} {Reason(code).name}" for code in report.reason_codes]
        self.counts.update(names or [verdict])


def _left(sessions: list[int]) -> list[str]:
    """Processes of the stack that are still running after it: each of its children had a session of its own."""
    return [
        process.info["name"]
        for process in psutil.process_iter(["name"])
        if process.status() != psutil.STATUS_ZOMBIE and _session(process.pid) in sessions
    ]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1
