# SPDX-License-Identifier: Apache-2.0
"""Findings as a table readable in 80 columns, and as JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from qwen_vla_ros.doctor.findings import Finding, Level, worst

COLORS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}
SUBJECT_WIDTH, WIDEST = 26, 120
ENDINGS = {
    Level.OK: "Everything is as it should be.",
    Level.WARN: "Nothing is broken; address the warnings when you can.",
    Level.FAIL: "Do not move the robot yet. Start at the top: one fault often causes those below it.",
}


def show(title: str, findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print findings under their headings, and a summary."""
    console = console or Console()
    width = min(console.width, WIDEST)
    console.print(Group(Text(title, style="bold"), *_areas(findings), Text(), *_summary(findings)), width=width)


def _summary(findings: Sequence[Finding]) -> list[Text]:
    """Counts and failures, repeated at the end, which is what is seen of a long table."""
    counts, level = Counter(finding.level for finding in findings), worst(findings)
    lines = [Text(", ".join(f"{counts[kind]} {kind.value}" for kind in Level), COLORS[level])]
    failed: dict[str, list[str]] = {}
    for finding in findings:
        if finding.level is Level.FAIL:
            failed.setdefault(finding.area, []).append(finding.subject)
    lines += [Text(f"fail: {area} ({', '.join(subjects)})") for area, subjects in failed.items()]
    return [*lines, Text(ENDINGS[level])]


def _areas(findings: Sequence[Finding]) -> list[Any]:
    shown: list[Any] = []
    order = list(dict.fromkeys(finding.area for finding in findings))
    ordered = sorted(findings, key=lambda finding: order.index(finding.area))
    for area, members in groupby(ordered, key=lambda finding: finding.area):
        shown += [Text(f"\n{area}", style="bold"), Padding(_table(list(members)), (0, 0, 0, 1))]
    return shown


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(width=4, no_wrap=True)
    table.add_column(width=SUBJECT_WIDTH, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for finding in findings:
        table.add_row(Text(finding.level.value, COLORS[finding.level]), Text(_broken(finding.subject)), _fact(finding))
    return table


def _broken(subject: str) -> str:
    """Break a long name after a slash or a space rather than anywhere."""
    lines = [""]
    for part in re.findall(r"[^/ ]*[/ ]?", subject):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > SUBJECT_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _fact(finding: Finding) -> Text:
    if not finding.remedy:
        return Text(finding.fact)
    return Text.assemble(finding.fact, "\n", ("→ ", "bold"), (finding.remedy, "cyan"))


def as_json(robot: str, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the result as plain data."""
    counts = Counter(finding.level for finding in findings)
    return {
        "robot": robot,
        "result": worst(findings).value,
        "counts": {level.value: counts[level] for level in Level},
        "findings": [finding.to_json() for finding in findings],
    }
