# SPDX-License-Identifier: Apache-2.0
"""The result of a public benchmark: score, rates with intervals by task and group, failures, and how it came about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.public.protocol.benchmark import Benchmark
from qwen_vla.evaluation.summary import EpisodeRow, rate_as_text, success_of
from qwen_vla.model.checkpoint.files import read_training

UNKNOWN = "unknown: the policy is on a server, which does not describe its training"


def summarize(
    benchmark: Benchmark, rows: Sequence[EpisodeRow], starts: str = "official", **conditions: Any
) -> dict[str, Any]:
    """The result as plain data, ready for JSON.

    `score` is the mean of the groups' rates, of those groups and tasks that were run; `complete` is whether that is the
    official protocol: all tasks, with at least its number of episodes.
    """
    tasks = {task: success_of([row for row in rows if row.task == task]) for task in benchmark.tasks}
    tasks = {task: rate for task, rate in tasks.items() if rate["episodes"]}
    groups = {
        name: success_of([row for row in rows if row.task in members])
        for name, members in benchmark.groups.items()
        if set(members) & set(tasks)
    }
    whole = len(tasks) == len(benchmark.tasks) and min(r["episodes"] for r in tasks.values()) >= benchmark.episodes
    return {
        "benchmark": benchmark.name,
        "protocol": benchmark.protocol,
        "starts": starts,
        "complete": whole and starts == "official",
        **conditions,
        **success_of(rows),
        "score": float(np.mean([rate["success_rate"] for rate in groups.values()])),
        "latency_ms_p50": float(np.median([row.latency_ms_p50 for row in rows])),
        "groups": groups,
        "tasks": tasks,
        "failures": dict(Counter(row.category for row in rows if not row.success).most_common()),
        "published": dict(benchmark.published),
        "rows": [asdict(row) for row in rows],
    }


def trained_on(checkpoint: Path | None) -> str:
    """In words, what a checkpoint was trained on, by its own record; the same data in two stages count once."""
    if checkpoint is None:
        return UNKNOWN
    episodes: Counter[str] = Counter()
    sources = [source.model_dump() for source in read_training(checkpoint).data]
    different = {source.get("hash") or number: source for number, source in enumerate(sources)}
    for source in different.values():
        if "total_episodes" in source:
            episodes[f"{source['kind']} of {source['robot']}"] += source["total_episodes"]
    words = [f"{count:,} {what}" for what, count in episodes.items()]
    return f"our own scripted {', '.join(words)}" if words else "unknown: the checkpoint has no record of its training"


def as_text(result: Mapping[str, Any]) -> str:
    """Score, groups, tasks and failures, a line each, with the published figures."""
    lines = [f"{result['benchmark']}: score {100 * result['score']:.1f}; {rate_as_text(result)}"]
    lines.append(f"  {result['protocol']}{_restriction(result)}")
    lines.append(f"  trained on {result['trained_on']}")
    lines += [f"  {name}: {rate_as_text(rate)}" for name, rate in result["groups"].items()]
    lines += [f"    {task}: {rate_as_text(rate)}" for task, rate in result["tasks"].items()]
    lines += [f"  failed: {kind}: {count}" for kind, count in result["failures"].items()]
    if result["published"]:
        named = ", ".join(f"{name} {value:g}" for name, value in result["published"].items())
        lines.append(f"  published, trained on other demonstrations: {named}")
    return "\n".join(lines)


def _restriction(result: Mapping[str, Any]) -> str:
    if result["starts"] != "official":
        return " (on start states for validation, which are not the protocol's)"
    return "" if result["complete"] else " (only a part of it was run)"
