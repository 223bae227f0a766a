# SPDX-License-Identifier: Apache-2.0
"""Episodes of a benchmark and the numbers of their start states. Imports nothing: simulators read it, too."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_DEMONSTRATION = 1_000_000  # start states from here on are for demonstrations, those below for measurements
FIRST_SNAPSHOT = 2_000_000  # and from here on for single labeled frames
FIRST_INTERVENTION = 3_000_000  # and from here on for demonstrations that go on from where a policy has led
FIRST_EXPERT = 500_000  # on these the expert is measured
STATES_PER_TASK = 1000  # of evaluation: state i of task number n is 1000·n + i


@dataclass(frozen=True)
class Trial:
    """One episode of the protocol: a task and the number of its start state; the number is unique in the benchmark."""

    task: str
    start: int
