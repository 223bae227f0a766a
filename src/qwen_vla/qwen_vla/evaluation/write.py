"""Says what an evaluation is about to look at, and says and writes what it measured."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_vla.evaluation.kept_episodes import forget
from qwen_vla.evaluation.summary import (
    MAKER,
    mean_metrics,
    rate_in_words,
    refusals_in_words,
    rows_of,
    seeds_in_words,
)
from qwen_vla.evaluation.tables import as_markdown
from qwen_vla.output_files import write_json, write_text
from qwen_vla.output_paths import in_markdown, with_maker
from qwen_vla.seeds import FIRST_TEST_SEED


def announce_test(seeds: range) -> None:
    """Say that these are test seeds, and what that means; on standard error, before the evaluation begins."""
    print(
        f"test seeds {seeds[0]}–{seeds[-1]}: look once, at the end. Whatever is chosen or changed after looking needs "
        f"other test seeds; to choose and to tune, use validation seeds (below {FIRST_TEST_SEED})",
        file=sys.stderr,
    )


def print_summary(summary: Mapping[str, Any]) -> None:
    """The rate, where there are several also by task, the metrics, failures, refusals, and what chaos did."""
    print(f"{summary['suite']}: {rate_in_words(summary)}, seeds {seeds_in_words(summary)}")
    if len(summary["tasks"]) > 1:
        for task, success in summary["tasks"].items():
            print(f"  {task}: {rate_in_words(success)}")
    for name, value in mean_metrics(rows_of(summary)).items():
        print(f"  {name}: {value:.3f}")
    if summary["failures"]:
        print("failures: " + "; ".join(f"{kind}: {count}" for kind, count in summary["failures"].items()))
    print(refusals_in_words(rows_of(summary)))
    if summary.get("chaos"):
        print("\n".join(f"{name}: {summary[name] or 'none'}" for name in ("faults", "tries", "limits", "orphans")))


def write_summary(summary: Mapping[str, Any], json: Path | None, markdown: Path | None) -> None:
    """Write what was asked for; what was kept in case of an interruption is needed no longer then."""
    if markdown:
        write_text(markdown, in_markdown(MAKER, as_markdown(summary)))
    if json:
        write_json(json, with_maker(MAKER, summary))
        forget(json)
