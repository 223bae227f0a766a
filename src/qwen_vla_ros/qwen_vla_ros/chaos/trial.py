"""Episodes under faults: what the robot was commanded, what became of the tasks, and what was left behind."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from diagnostic_msgs.msg import DiagnosticArray
from tqdm import tqdm

from embodiment_descriptions import Embodiment
from qwen_vla.evaluation.in_process import EvaluateOptions
from qwen_vla.evaluation.summary import EpisodeRow
from qwen_vla.suites import load_suite
from qwen_vla_ros.chaos.monkey import Disturbed, Monkey
from qwen_vla_ros.over_ros import as_episode_row
from qwen_vla_ros.spinning_node import NoAnswer
from qwen_vla_ros.stack import SIMULATOR, SimulatedStack, simulated_stack
from qwen_vla_ros.task_client import Limits, TaskClient, TaskError

LIMITS_STATUS = f"{SIMULATOR}: limits"
PREFIX = "chaos"
EPISODE_SECONDS = 60.0  # [s] simulated: longer than in calm, for what is tried again
TRIES = 20  # sentences per episode


def run(options: EvaluateOptions, logs: Path) -> tuple[list[EpisodeRow], dict[str, Any]]:
    """Run the episodes.

    Returns:
        Rows, and findings: the faults by kind, how tries ended that had no result, the worst set point that reached
        the simulator's servos, and the processes that were left.
    """
    topics = relayed_topics(load_suite(options.suite).embodiment)
    policy = {"euler_steps": options.euler_steps}
    with simulated_stack(options.checkpoint, logs, policy, remappings=remappings(topics)) as stack:
        _start_relay(stack, topics, options.seed)
        monkey = Monkey(stack.processes, stack.commands, stack.environment, options.seed)
        limits = _LimitWatch(stack)
        tasks = TaskClient(stack)
        rows, endings = [], Counter()
        seeds = range(options.seed, options.seed + options.episodes)
        for seed in (bar := tqdm(seeds, desc=f"{options.suite} in chaos", unit="episode")):
            rows.append(_episode(stack, tasks, monkey, seed, endings))
            bar.set_postfix_str(f"{sum(row.success for row in rows)} picked, {monkey.deeds.total()} faults")
        worst = limits.latest()
        sessions = list(stack.processes.pids().values())
    findings = {"faults": dict(monkey.deeds), "tries": dict(endings), "limits": worst, "orphans": _left(sessions)}
    return rows, findings


def relayed_topics(embodiment: Embodiment) -> list[tuple[str, str, str, str]]:
    """What the relay takes: node that listens, topic, type, reliability."""
    policy, executor = "policy_node", "executor_node"
    return [
        (executor, "policy_node/action_chunk", "qwen_vla_msgs/msg/ActionChunk", "reliable"),
        (executor, "policy_node/heartbeat", "std_msgs/msg/Header", "reliable"),
        *((executor, s.topic, "sensor_msgs/msg/JointState", "reliable") for s in embodiment.joint_states),
        (policy, "executor_node/chunk_report", "qwen_vla_msgs/msg/ChunkReport", "reliable"),
        *((policy, camera.topic, "sensor_msgs/msg/Image", "best_effort") for camera in embodiment.cameras),
    ]


def remappings(topics: list[tuple[str, str, str, str]]) -> dict[str, dict[str, str]]:
    """Have the nodes listen to the relay."""
    renamed: dict[str, dict[str, str]] = {}
    for node, topic, _, _ in topics:
        renamed.setdefault(node, {})[topic] = f"{PREFIX}/{topic}"
    return renamed


def _start_relay(stack: SimulatedStack, topics: list[tuple[str, str, str, str]], seed: int) -> None:
    words = [w for _, topic, kind, how in topics for w in ("--topic", topic, kind, f"{PREFIX}/{topic}", how)]
    command = [sys.executable, "-m", "qwen_vla_ros.chaos.relay", "--seed", str(seed), *words]
    stack.processes.start("chaos_relay", command, stack.environment)


def _episode(stack: SimulatedStack, tasks: TaskClient, monkey: Monkey, seed: int, endings: Counter) -> EpisodeRow:
    """One scene; the sentence is given again whenever a fault has ended the goal. `endings` counts those faults."""
    stack.wait_until_ready()
    instruction, row = tasks.reset(seed), None
    for _ in range(TRIES):
        left = EPISODE_SECONDS - tasks.task.sim_time
        if left <= 0 or (row and row.success):
            break
        stack.client.check = monkey.act
        monkey.wake()
        try:
            row = tasks.execute(Limits(timeout=left))
        except (Disturbed, TaskError, NoAnswer) as fault:
            endings[str(fault)] += 1
        finally:
            monkey.rest()
            stack.client.check = stack.processes.check
        stack.wait_until_ready()
    if row is not None:
        return as_episode_row(row)
    task = tasks.task
    return EpisodeRow(seed, instruction, task.target, False, 0, 0, task.sim_time, task.distance, "disturbed", 0.0)


class _LimitWatch:
    """Hears what the simulator says about the set points that it got."""

    def __init__(self, stack: SimulatedStack) -> None:
        self._client, self._values = stack.client, {}
        stack.client.hear(DiagnosticArray, "/diagnostics", self._take, 10)

    def _take(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == LIMITS_STATUS:
                self._values = {item.key: item.value for item in status.values}

    def latest(self) -> Mapping[str, str]:
        """The worst of the whole run."""
        return self._client.wait(lambda: dict(self._values), f"word of {LIMITS_STATUS} on /diagnostics", 10.0)


def _left(sessions: list[int]) -> list[str]:
    """Processes of the stack that outlived it: each of its children was a session of its own."""
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
