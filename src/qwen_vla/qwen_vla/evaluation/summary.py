# SPDX-License-Identifier: Apache-2.0
"""The result of an evaluation: a row per episode, and rates, failures and metrics over all, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from qwen_vla.evaluation.intervals import wilson_interval
from qwen_vla.json_files import read_json
from qwen_vla.output_paths import plain_marker
from qwen_vla.seeds import split_of

SWITCHES = ("shuffle_instructions", "blind", "over_ros", "chaos")  # conditions that are on or off
# In which two evaluations may differ.
CONDITIONS = ("checkpoint", "shift", "prompt_of", "euler_steps", "quantize", *SWITCHES)
METRIC_UNITS = {"ne": "m", "lift": "m", "gap": "m"}  # of the metrics of suites that have one
MAKER = "qwen-vla evaluate"  # as in `output_paths`
VIDEOS = plain_marker(MAKER)  # of the folder of videos
Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class EpisodeRow:
    """One episode.

    Attributes:
        success: as judged by the suite.
        chunks: chunks from the policy, including refused ones.
        refused: chunks that the gate refused.
        seconds: simulated time.
        distance: at the end, from the tip or the base to its next goal [m].
        ended: "success", "step limit", "refused too often" or another reason.
        latency_ms_p50: wall time of a chunk.
        task: name of the task within its suite.
        failure: progress, as a category of the suite; empty on success.
        metrics: further figures of the suite by name.
        refusals: number of chunks refused for each reason, by its name; a chunk may have several.
    """

    seed: int
    instruction: str
    target: str
    success: bool
    chunks: int
    refused: int
    seconds: float
    distance: float
    ended: str
    latency_ms_p50: float
    task: str = ""
    failure: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)

    @property
    def category(self) -> str:
        """ "success", or the kind of its failure."""
        return "success" if self.success else self.failure or self.ended


class Rate(BaseModel):
    """How often some episodes succeeded, see `success_of`."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    episodes: Number
    successes: Number
    success_rate: Share
    wilson_95: tuple[Share, Share]

    @model_validator(mode="after")
    def _consistent(self) -> Rate:
        if self.successes > self.episodes:
            raise ValueError(f"{self.successes} successes in {self.episodes} episodes")
        return self


class ResultFile(Rate):
    """The file of `qwen-vla evaluate --json`; further keys are conditions, and metrics of the suite."""

    suite: str
    seed: Number
    split: str
    latency_ms_p50: float
    tasks: dict[str, Rate]
    failures: dict[str, Number]
    rows: list[EpisodeRow]
    task: str | None = None
    shift: str | None = None
    prompt_of: str | None = None
    checkpoint: str | None = None
    step: int | None = None


def summarize(suite: str, seed: int, rows: Sequence[EpisodeRow], **conditions: Any) -> dict:
    """The evaluation as plain data, ready for JSON; metrics of the suite are means over the episodes.

    ValueError if a metric has the name of another key.
    """
    summary = {
        "suite": suite,
        "seed": seed,
        "split": split_of(range(seed, seed + len(rows))),
        **success_of(rows),
        "latency_ms_p50": float(np.median([row.latency_ms_p50 for row in rows])) if rows else 0.0,
        "tasks": {task: success_of([r for r in rows if r.task == task]) for task in _in_order(r.task for r in rows)},
        "failures": dict(Counter(row.category for row in rows if not row.success).most_common()),
        "endings": dict(Counter(row.ended for row in rows).most_common()),
        "refusals": refusals_of(rows),
        **conditions,
        "rows": [asdict(row) for row in rows],
    }
    metrics = mean_metrics(rows)
    if taken := sorted(metrics.keys() & summary.keys()):
        raise ValueError(f"suite {suite!r}: metrics {taken} have names of keys of the summary; rename them there")
    return {**summary, **metrics}


def success_of(rows: Sequence[EpisodeRow]) -> dict[str, Any]:
    """Number of successes in some episodes, and the rate with its 95 % interval."""
    successes = sum(row.success for row in rows)
    return {
        "episodes": len(rows),
        "successes": successes,
        "success_rate": successes / len(rows) if rows else 0.0,
        "wilson_95": list(wilson_interval(successes, len(rows))),
    }


def refusals_of(rows: Sequence[EpisodeRow]) -> dict[str, int]:
    """Number of chunks refused for each reason in some episodes, the most frequent first."""
    reasons: Counter[str] = Counter()
    for row in rows:
        reasons.update(row.refusals)
    return dict(reasons.most_common())


def refusals_as_text(rows: Sequence[EpisodeRow]) -> str:
    """For instance "12 of 300 chunks refused (VELOCITY_LIMIT 9, SELF_COLLISION 4)"."""
    refused, chunks = sum(row.refused for row in rows), sum(row.chunks for row in rows)
    why = ", ".join(f"{reason} {count}" for reason, count in refusals_of(rows).items())
    return f"{refused} of {chunks} chunks refused" + (f" ({why})" if why else "")


def mean_metrics(rows: Sequence[EpisodeRow]) -> dict[str, float]:
    """Mean of every metric over the episodes that have it."""
    names = _in_order(name for row in rows for name in row.metrics)
    return {name: float(np.mean([row.metrics[name] for row in rows if name in row.metrics])) for name in names}


def read_summary(path: Path) -> dict:
    """The result of `qwen-vla evaluate --json`; ValueError names the file if it is missing or invalid."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; `qwen-vla evaluate SUITE --json {path}` writes such a file")
    remedy = "give a result of `qwen-vla evaluate --json`"
    return read_json(path, ResultFile, remedy).model_dump(mode="json", exclude_unset=True)


def rows_of(summary: Mapping[str, Any]) -> list[EpisodeRow]:
    """The rows of a summary read from a file."""
    return [EpisodeRow(**row) for row in summary["rows"]]


def condition_as_text(name: str) -> str:
    """For instance "over ROS" for over_ros."""
    return name.replace("_", " ").replace("over ros", "over ROS")


def conditions_as_text(summary: Mapping[str, Any]) -> str:
    """The special conditions of an evaluation, for instance "shift colour, blind"; "–" if there are none."""
    words = [f"only {summary['task']}"] if summary.get("task") else []
    words += [f"shift {summary['shift']}"] if summary.get("shift") else []
    words += [f"prompt of {summary['prompt_of']}"] if summary.get("prompt_of") else []
    words += [condition_as_text(name) for name in SWITCHES if summary.get(name)]
    return ", ".join(words) or "–"


def seeds_as_text(summary: Mapping[str, Any]) -> str:
    """For instance "9000–9049 (validation)"."""
    return f"{summary['seed']}–{summary['seed'] + summary['episodes'] - 1} ({summary['split']})"


def rate_as_text(success: Mapping[str, Any]) -> str:
    """For instance "45 of 50 (90 %, 79–96 %)": the rate and its 95 % interval."""
    low, high = success["wilson_95"]
    rate = f"{100 * success['success_rate']:.0f} %, {100 * low:.0f}–{100 * high:.0f} %"
    return f"{success['successes']} of {success['episodes']} ({rate})"


def _in_order(names) -> list[str]:
    """Each once, in order of first occurrence."""
    return list(dict.fromkeys(names))
