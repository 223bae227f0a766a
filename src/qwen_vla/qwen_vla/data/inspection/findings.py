# SPDX-License-Identifier: Apache-2.0
"""What an inspection found: problems, columns, cameras, instructions, one row; as JSON and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen_vla.errors.error_text import as_line
from qwen_vla.errors.validation_errors import printable

LISTED = 100  # bad rows and instructions in the JSON; all are counted
SHOWN = 10  # of them on the terminal
WIDEST = 2000  # characters of one of them there


@dataclass(frozen=True)
class Problem:
    """Why training would be wrong: the place, the fault, and what to do about it."""

    where: str
    what: str
    remedy: str = ""

    @classmethod
    def of(cls, error: Exception, where: str) -> Problem:
        """From an exception; `where` unless the error names its place itself."""
        place = getattr(error, "where", "") or where
        what = getattr(error, "what", "") or " ".join(as_line(error).split())
        return cls(place, what.removeprefix(f"{place}: "), getattr(error, "remedy", ""))


@dataclass(frozen=True)
class ColumnFinding:
    """One column. All lists have one entry per element of the file, in its unit; None: unknown or unlimited.

    mapped_to: the robot's joint or channel; empty if the element is not used. signs: -1 where the robot counts in the
    other direction.
    """

    column: str
    names: Sequence[str]
    mapped_to: Sequence[str]
    unit: str
    min: Sequence[float | None]
    max: Sequence[float | None]
    lower: Sequence[float | None] = ()
    upper: Sequence[float | None] = ()
    signs: Sequence[int] = ()


@dataclass(frozen=True)
class CameraFinding:
    """A camera: its column, its tag in the prompt, its size [px] and codec, and the rows whose image is unusable."""

    column: str
    tag: str
    width: int
    height: int
    codec: str
    bad_rows: int = 0


@dataclass
class Findings:
    """Of one dataset. rate_hz: of the rows; gaps: rows before which frames are missing. sample: one row, if wanted."""

    path: str
    kind: str
    robot: str = ""
    rate_hz: float | None = None
    robot_rate_hz: float | None = None
    action_kind: str = ""
    episodes: int = 0
    rows: int = 0
    usable_rows: int = 0
    gaps: int = 0
    bad_rows: int = 0
    bad_rows_listed: list[str] = field(default_factory=list)
    columns: list[ColumnFinding] = field(default_factory=list)
    cameras: list[CameraFinding] = field(default_factory=list)
    instructions: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    sample: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether training on the dataset would be right."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """As written by --json."""
        values = {key: value for key, value in vars(self).items() if key != "sample" or value is not None}
        parts = {key: [vars(one) for one in values[key]] for key in ("columns", "cameras", "problems")}
        return {"ok": self.ok, **values, **parts, "instructions": self.instructions[:LISTED]}

    def print(self, console: Console) -> None:
        """As text."""
        rate = f", {self.rate_hz:g} rows per second" if self.rate_hz else ""
        own = f" (the robot's: {self.robot_rate_hz:g})" if self.robot_rate_hz not in (None, self.rate_hz) else ""
        console.print(f"{self.path}: {self.kind}{f' of {self.robot}' if self.robot else ''}", highlight=False)
        console.print(
            f"{self.episodes} episodes, {self.rows} rows, {self.bad_rows} bad, {self.gaps} gaps{rate}{own}",
            highlight=False,
        )
        for column in self.columns:
            console.print(_column_table(column))
        for camera in self.cameras:
            size = f"{camera.width} x {camera.height} px {camera.codec}".strip()
            line = f"camera {camera.tag}: {camera.column}, {size}, {camera.bad_rows} unusable images"
            console.print(line, highlight=False, markup=False)
        for told in self.instructions[:SHOWN]:
            console.print(f"{told['rows']} rows: {printable(told['text'], WIDEST)}", highlight=False, markup=False)
        if len(self.instructions) > SHOWN:
            console.print(f"… and {len(self.instructions) - SHOWN} more instructions")
        if self.sample:
            console.print_json(data=self.sample)
        for line in self.bad_rows_listed[:SHOWN]:
            console.print(f"bad: {printable(line, WIDEST)}", highlight=False, markup=False)
        self._print_verdict(console)

    def _print_verdict(self, console: Console) -> None:
        for problem in self.problems:
            line = f"PROBLEM {problem.where}: {printable(problem.what, WIDEST)}"
            console.print(line, highlight=False, markup=False, style="red")
            if problem.remedy:
                console.print(f"  remedy: {problem.remedy}", highlight=False, markup=False)
        console.print("ok: training on it would be right" if self.ok else "not ok: do not train on it as it is")


def bounds(values: np.ndarray) -> tuple[list[float | None], list[float | None]]:
    """Least and greatest finite value of each column of (N, C); None where there is none."""
    finite = np.where(np.isfinite(values), values, np.nan)
    known = np.isfinite(finite).any(axis=0)
    low, high = (np.full(values.shape[1], np.nan) for _ in range(2))
    low[known], high[known] = np.nanmin(finite[:, known], axis=0), np.nanmax(finite[:, known], axis=0)
    return as_numbers(low), as_numbers(high)


def as_numbers(values: Sequence[float] | np.ndarray) -> list[float | None]:
    """Floats for JSON; None for what is not finite."""
    return [float(value) if math.isfinite(value) else None for value in values]


def told(instructions: Sequence[str] | np.ndarray) -> list[dict[str, Any]]:
    """Each instruction with the number of its rows, the most frequent first."""
    texts, counts = np.unique(np.asarray(instructions, dtype=str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [{"text": str(texts[k]), "rows": int(counts[k])} for k in order]


def _column_table(column: ColumnFinding) -> Table:
    title = Text(f"{column.column}{f' [{column.unit}]' if column.unit else ''}")
    table = Table(title=title, title_justify="left", show_edge=False)
    for heading in ("", "name", "is", "min", "max", "limits"):
        table.add_column(heading)
    for index, target in enumerate(column.mapped_to):
        name = column.names[index] if index < len(column.names) else ""
        limits = ""
        if column.lower:
            limits = f"{_number(column.lower[index])} … {_number(column.upper[index])}"
        sign = "- " if column.signs and column.signs[index] < 0 else ""
        low, high = _number(column.min[index]), _number(column.max[index])
        table.add_row(str(index), name, f"{sign}{target}" if target else "(not used)", low, high, limits)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
