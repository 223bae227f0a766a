# SPDX-License-Identifier: Apache-2.0
"""Compares evaluations: which pairs are comparable, and the difference of their success rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen_vla.evaluation.intervals import newcombe_interval
from qwen_vla.evaluation.summary import CONDITIONS

ASPECTS = ("split", *CONDITIONS)  # in which two evaluations of a suite may differ
Evaluations = Mapping[str, Mapping[str, Any]]  # summaries by name


@dataclass(frozen=True)
class Difference:
    """Success of two evaluations, as (successes, episodes), in one task or in all ("all").

    difference and interval: second rate minus first, with its 95 % interval (Newcombe).
    """

    task: str
    first: tuple[int, int]
    second: tuple[int, int]
    difference: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> str:
        """The conclusion at 95 %."""
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "inconclusive"


@dataclass(frozen=True)
class Comparison:
    """Two evaluations that differ in one condition, named in `condition`, with the values of both."""

    first: str
    second: str
    condition: str
    values: tuple[Any, Any]
    differences: tuple[Difference, ...]


def comparisons(evaluations: Evaluations) -> list[Comparison]:
    """Every evaluation with its reference, once for each condition (or split) that is its only difference from others.

    The reference is the one without the condition (no shift, not blind), else the first (of two checkpoints).
    """
    found = []
    for condition in ASPECTS:
        for group in alike_but_for(condition, evaluations):
            reference = min(group, key=lambda name: bool(group[name].get(condition)))  # the first of equals
            value = group[reference].get(condition)
            for name, summary in group.items():
                other = summary.get(condition)
                if (other or None) != (value or None):
                    differences = compare(group[reference], summary)
                    found.append(Comparison(reference, name, condition, (value, other), differences))
    return found


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[Difference, ...]:
    """The difference over all episodes and, if both have several tasks, in each of these."""
    tasks = [task for task in first["tasks"] if task in second["tasks"]]
    rows = [_difference(task, first["tasks"][task], second["tasks"][task]) for task in tasks]
    return (*(rows if len(rows) > 1 else ()), _difference("all", first, second))


def alike_but_for(condition: str, evaluations: Evaluations) -> Sequence[Evaluations]:
    """Groups of evaluations of one suite, or of one task of it, whose other conditions are all equal."""
    groups: dict[tuple, dict[str, Mapping[str, Any]]] = {}
    for name, summary in evaluations.items():
        others = tuple(str(summary.get(key) or None) for key in ASPECTS if key != condition)
        groups.setdefault((summary["suite"], summary.get("task"), *others), {})[name] = summary
    return list(groups.values())


def _difference(task: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Difference:
    before, after = ((int(entry["successes"]), int(entry["episodes"])) for entry in (first, second))
    difference = second["success_rate"] - first["success_rate"]
    return Difference(task, before, after, difference, newcombe_interval(before, after))
