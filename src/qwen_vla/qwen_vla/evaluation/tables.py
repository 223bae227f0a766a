# SPDX-License-Identifier: Apache-2.0
"""Evaluations as text tables, of a single one and of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen_vla.evaluation.comparison import Comparison, Difference, Evaluations, alike_but_for, comparisons
from qwen_vla.evaluation.summary import (
    CONDITIONS,
    METRIC_UNITS,
    condition_as_text,
    conditions_as_text,
    mean_metrics,
    rate_as_text,
    refusals_as_text,
    rows_of,
    seeds_as_text,
)

RATE = "success (rate, 95 % interval)"
UNSHIFTED = "in distribution"
DIFFERENCE = ("reference", "here", "difference [points], 95 % interval", "verdict")


@dataclass(frozen=True)
class Table:
    """Rows of text under a header, all of the same length."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table without its title."""
        return markdown_table(self.header, self.rows)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; bars in cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def as_markdown(summary: Mapping[str, Any]) -> str:
    """Conditions, success by task, metrics and failures of one evaluation."""
    unusual = conditions_as_text(summary)
    title = f"# {summary['suite']}" + (f" ({unusual})" if unusual != "–" else "")
    said = [f"{name.replace('_', ' ')} {summary[name]}" for name in CONDITIONS if summary.get(name)]
    tasks = [(task, rate_as_text(success)) for task, success in summary["tasks"].items()]
    every = [("all", rate_as_text(summary))] if len(tasks) != 1 else []
    parts = [title, ", ".join([*said, f"seeds {seeds_as_text(summary)}"]) + "."]
    parts.append(markdown_table(("task", RATE), [*tasks, *every]))
    if metrics := mean_metrics(rows_of(summary)):
        parts.append(
            markdown_table(("metric", "mean"), [(name, f"{value:.3f}{_unit(name)}") for name, value in metrics.items()])
        )
    if summary["failures"]:
        parts.append(markdown_table(("failure", "episodes"), list(summary["failures"].items())))
    parts.append(refusals_as_text(rows_of(summary)) + ".")
    return "\n\n".join(parts) + "\n"


def as_markdown_page(evaluations: Evaluations) -> str:
    """All tables of several evaluations: overview, success by task and shift, differences."""
    parts = ["# Evaluation", overview(evaluations).markdown()]
    parts += [f"## {(why := refusals(evaluations)).title}", why.markdown()]
    for table in (*by_shift(evaluations), *(table for tables in differences(evaluations) for table in tables)):
        parts += [f"## {table.title}", table.markdown()]
    return "\n\n".join(parts) + "\n"


def overview(evaluations: Evaluations) -> Table:
    """A row per evaluation."""
    rows = []
    for name, summary in evaluations.items():
        means = mean_metrics(rows_of(summary))
        metrics = ", ".join(
            f"{key} {round(value, 2) + 0.0:.2f}{_unit(key)}" for key, value in means.items()
        )  # not -0.00
        facts = (summary.get("checkpoint", "–"), conditions_as_text(summary))
        rows.append((name, *facts, seeds_as_text(summary), rate_as_text(summary), metrics or "–"))
    return Table("Overview", ("evaluation", "checkpoint", "conditions", "seeds", RATE, "metrics, mean"), rows)


def refusals(evaluations: Evaluations) -> Table:
    """Number of chunks refused by the gate in each evaluation, in total and by reason."""
    rows = [(name, refusals_as_text(rows_of(summary))) for name, summary in evaluations.items()]
    return Table("Refused chunks", ("evaluation", "by the gate; one chunk may have several reasons"), rows)


def shift_groups(evaluations: Evaluations) -> list[Evaluations]:
    """Evaluations that differ only in their shift; in distribution comes first."""
    groups = [group for group in alike_but_for("shift", evaluations) if any(s.get("shift") for s in group.values())]
    return [dict(sorted(group.items(), key=lambda item: bool(item[1].get("shift")))) for group in groups]


def by_shift(evaluations: Evaluations) -> Iterator[Table]:
    """Counts by shift and task, for each of `shift_groups`."""
    for group in shift_groups(evaluations):
        first, *_ = group.values()
        tasks = list(dict.fromkeys(task for summary in group.values() for task in summary["tasks"]))
        rows = []
        for summary in group.values():
            cells = [_counts(summary["tasks"][task]) if task in summary["tasks"] else "–" for task in tasks]
            rows.append((summary.get("shift") or UNSHIFTED, *cells, _counts(summary)))
        title = f"{first['suite']}, {first.get('checkpoint', '')}, {first['split']} seeds"
        yield Table(title, ("shift", *tasks, "all"), rows)


def differences(evaluations: Evaluations) -> Iterator[tuple[Table, ...]]:
    """For each reference and condition, the differences over all episodes and, if there are several tasks, by task."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons(evaluations):
        groups.setdefault((comparison.first, comparison.condition), []).append(comparison)
    for (reference, condition), group in groups.items():
        title = f"{condition_as_text(condition)}, against {_value(group[0].values[0])} ({reference})"
        rows = [(c.second, _value(c.values[1]), *_difference(c.differences[-1])) for c in group]
        tables = [Table(title, ("evaluation", "value", *DIFFERENCE), rows)]
        if by_task := [(c.second, d.task, *_difference(d)) for c in group for d in c.differences[:-1]]:
            tables.append(Table(f"{title}, by task", ("evaluation", "task", *DIFFERENCE), by_task))
        yield tuple(tables)


def _unit(metric: str) -> str:
    return f" {METRIC_UNITS[metric]}" if metric in METRIC_UNITS else ""


def _counts(success: Mapping[str, Any]) -> str:
    return f"{success['successes']} of {success['episodes']}"


def _value(value: Any) -> str:
    """A condition's value as text."""
    return {None: "none", False: "off", True: "on"}.get(value, str(value))


def _difference(difference: Difference) -> tuple[str, ...]:
    points = [f"{100 * value:+.0f}".replace("-", "−") for value in (difference.difference, *difference.interval)]
    counts = [f"{successes} of {episodes}" for successes, episodes in (difference.first, difference.second)]
    return *counts, f"{points[0]} ({points[1]} to {points[2]})", difference.verdict
