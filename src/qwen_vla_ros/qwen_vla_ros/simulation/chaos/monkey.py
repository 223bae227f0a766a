# SPDX-License-Identifier: Apache-2.0
"""Kills and restarts nodes, and freezes them for a while, at random times. Free of ROS."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Mapping

from qwen_vla_ros.simulation.child_processes import ChildProcesses

VICTIMS = ("policy_node", "executor_node")
CALM = (1.0, 4.0)  # [s] between two faults
ABSENCE = (0.2, 3.0)  # [s] between the death of a node and its restart
FREEZE = (0.1, 2.0)  # [s]
SHARE_OF_KILLS = 0.5  # the other faults are freezes


class Disturbed(RuntimeError):
    """A node was killed; pending requests to it will not be answered."""


class Monkey:
    """Injects faults when called, in the caller's thread.

    Attributes:
        deeds: number of faults by kind ("killed policy_node": 3).
    """

    def __init__(self, processes: ChildProcesses, commands: Mapping[str, list[str]], environment, seed: int) -> None:
        """`commands` and `environment` restart the victims."""
        self._processes, self._commands, self._environment = processes, commands, environment
        self._random = random.Random(seed)
        self._due = float("inf")
        self._frozen: dict[str, float] = {}  # until when
        self._missing: dict[str, float] = {}  # until when
        self.deeds: Counter[str] = Counter()

    def wake(self) -> None:
        """Start injecting faults."""
        self._due = time.monotonic() + self._random.uniform(*CALM)

    def rest(self) -> None:
        """Repair everything and stop injecting faults."""
        self._due = float("inf")
        self._repair(float("inf"))

    def act(self) -> None:
        """Inject the faults that are due. Raises Disturbed after a kill, and what ChildProcesses.check raises."""
        now = time.monotonic()
        self._repair(now)
        self._processes.check()
        if now < self._due:
            return
        self._due = now + self._random.uniform(*CALM)
        free = [name for name in VICTIMS if name not in self._missing and name not in self._frozen]
        if not free:
            return
        victim = self._random.choice(free)
        if self._random.random() < SHARE_OF_KILLS:
            self._processes.kill(victim)
            self._missing[victim] = now + self._random.uniform(*ABSENCE)
            self.deeds[f"killed {victim}"] += 1
            raise Disturbed(f"{victim} was killed")
        self._processes.send_signal(victim, signal.SIGSTOP)
        self._frozen[victim] = now + self._random.uniform(*FREEZE)
        self.deeds[f"froze {victim}"] += 1

    def _repair(self, now: float) -> None:
        for name in [name for name, until in self._frozen.items() if until <= now]:
            self._processes.send_signal(name, signal.SIGCONT)
            del self._frozen[name]
        for name in [name for name, until in self._missing.items() if until <= now]:
            self._processes.start(name, self._commands[name], self._environment)
            del self._missing[name]
