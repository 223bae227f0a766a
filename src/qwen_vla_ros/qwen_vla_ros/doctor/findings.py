# SPDX-License-Identifier: Apache-2.0
"""The result of a check: a level, the fact behind it, and the remedy.

Facts may contain text from messages and from the graph: they are shown in printable characters only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum

from qwen_vla_rclpy.printable import printable


class Level(Enum):
    """Severity of a finding."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        area: heading of the table, for example "Cameras".
        subject: what was checked, for example "ego: rate".
        fact: the observation, with the value and the limit.
        remedy: what to do; empty when nothing has to be done.
    """

    level: Level
    area: str
    subject: str
    fact: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """Return plain data."""
        return asdict(self) | {"level": self.level.value}


@dataclass(frozen=True)
class Area:
    """Creates findings under one heading."""

    name: str

    def ok(self, subject: str, fact: str) -> Finding:
        """As it should be."""
        return self._finding(Level.OK, subject, fact)

    def warn(self, subject: str, fact: str, remedy: str) -> Finding:
        """Works, but not as well or as safely as it could."""
        return self._finding(Level.WARN, subject, fact, remedy)

    def fail(self, subject: str, fact: str, remedy: str) -> Finding:
        """Will not work, or not safely."""
        return self._finding(Level.FAIL, subject, fact, remedy)

    def _finding(self, level: Level, *words: str) -> Finding:
        return Finding(level, self.name, *map(printable, words))


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level; OK when there are none."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.FAIL, Level.WARN) if level in levels), Level.OK)


def exit_code(findings: Iterable[Finding], strict: bool) -> int:
    """Return 2 when something fails, 1 for warnings if `strict`, else 0."""
    level = worst(findings)
    return 2 if level is Level.FAIL else int(strict and level is Level.WARN)
