# SPDX-License-Identifier: Apache-2.0
"""Announces the use of test seeds, and prints and writes the results of an evaluation."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_vla.evaluation.partial_results import forget
from qwen_vla.evaluation.summary import (
    MAKER,
    mean_metrics,
    rate_as_text,
    refusals_as_text,
    rows_of,
    seeds_as_text,
)
from qwen_vla.evaluation.tables import as_markdown
from qwen_vla.output_files import write_json, write_text
from qwen_vla.output_paths import in_markdown, with_maker
from qwen_vla.seeds import FIRST_TEST_SEED


def announce_test(seeds: range) -> None:
    """Announce test seeds, and what that implies, on standard error, before the evaluation begins."""
    print(
        f"test seeds {seeds[0]}–{seeds[-1]}: use once, at the end. Anything selected or changed after that needs "
        f"other test seeds; for selection and tuning, use validation seeds (below {FIRST_TEST_SEED})",
        file=sys.stderr,
    )


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the rate, also by task if there are several, metrics, failures, refusals, and fault injection."""
    print(f"{summary['suite']}: {rate_as_text(summary)}, seeds {seeds_as_text(summary)}")
    if len(summary["tasks"]) > 1:
        for task, success in summary["tasks"].items():
            print(f"  {task}: {rate_as_text(success)}")
    for name, value in mean_metrics(rows_of(summary)).items():
        print(f"  {name}: {value:.3f}")
    if summary.get("reference_path"):
        print(f"  paths are compared with {summary['reference_path']}")
    if summary["failures"]:
        print("failures: " + "; ".join(f"{kind}: {count}" for kind, count in summary["failures"].items()))
    print(refusals_as_text(rows_of(summary)))
    if summary.get("chaos"):
        print(
            "\n".join(
                f"{name}: {summary[name] or 'none'}" for name in ("faults", "verdicts", "tries", "limits", "orphans")
            )
        )
        if not withstood(summary):
            print("chaos: NOT withstood: a command exceeded a limit, or processes were left behind")


def withstood(summary: Mapping[str, Any]) -> bool:
    """Whether no limit was exceeded under injected faults and no process left behind; true where none were injected."""
    return not summary.get("limits_exceeded") and not summary.get("orphans")


def write_summary(summary: Mapping[str, Any], json: Path | None, markdown: Path | None) -> None:
    """Write the requested files, and remove the partial results."""
    if markdown:
        write_text(markdown, in_markdown(MAKER, as_markdown(summary)))
    if json:
        write_json(json, with_maker(MAKER, summary))
        forget(json)
