"""An evaluation as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwen_vla.evaluation.summary import CONDITIONS, conditions_in_words, mean_metrics, rate_in_words, rows_of


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; bars within cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def as_markdown(summary: Mapping[str, Any]) -> str:
    """Conditions, success by task, metrics and failures of one evaluation."""
    unusual = conditions_in_words(summary)
    title = f"# {summary['suite']}" + (f" ({unusual})" if unusual != "–" else "")
    said = [f"{name.replace('_', ' ')} {summary[name]}" for name in CONDITIONS if summary.get(name)]
    seeds = f"seeds {summary['seed']} to {summary['seed'] + summary['episodes'] - 1}"
    tasks = [(task, rate_in_words(success)) for task, success in summary["tasks"].items()]
    parts = [title, ", ".join([*said, seeds]) + ".", _success_table([*tasks, ("all", rate_in_words(summary))])]
    if metrics := mean_metrics(rows_of(summary)):
        parts.append(markdown_table(("metric", "mean"), [(name, f"{value:.3f}") for name, value in metrics.items()]))
    if summary["failures"]:
        parts.append(markdown_table(("failure", "episodes"), list(summary["failures"].items())))
    return "\n\n".join(parts) + "\n"


def _success_table(rows: Sequence[tuple[str, str]]) -> str:
    return markdown_table(("task", "success (rate, 95 % interval)"), rows)
