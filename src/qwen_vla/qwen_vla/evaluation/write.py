"""Says and writes what an evaluation measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_vla.evaluation.kept_episodes import forget
from qwen_vla.evaluation.summary import MAKER, mean_metrics, rate_in_words, rows_of
from qwen_vla.evaluation.tables import as_markdown
from qwen_vla.output_files import write_json, write_text
from qwen_vla.output_paths import in_markdown, with_maker


def print_summary(summary: Mapping[str, Any]) -> None:
    """The rate, where there are several also by task, the metrics, the failures, and what chaos did."""
    print(f"{summary['suite']}: {rate_in_words(summary)}, seeds from {summary['seed']}")
    if len(summary["tasks"]) > 1:
        for task, success in summary["tasks"].items():
            print(f"  {task}: {rate_in_words(success)}")
    for name, value in mean_metrics(rows_of(summary)).items():
        print(f"  {name}: {value:.3f}")
    if summary["failures"]:
        print("failures: " + "; ".join(f"{kind}: {count}" for kind, count in summary["failures"].items()))
    if summary.get("chaos"):
        print("\n".join(f"{name}: {summary[name] or 'none'}" for name in ("faults", "tries", "limits", "orphans")))


def write_summary(summary: Mapping[str, Any], json: Path | None, markdown: Path | None) -> None:
    """Write what was asked for; what was kept in case of an interruption is needed no longer then."""
    if markdown:
        write_text(markdown, in_markdown(MAKER, as_markdown(summary)))
    if json:
        write_json(json, with_maker(MAKER, summary))
        forget(json)
