# SPDX-License-Identifier: Apache-2.0
"""Where a finding of the type checker is ignored, the line names its rule and says why."""

from __future__ import annotations

import re
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
IGNORED = re.compile(r"#\s*(type|pyright):\s*(ignore|basic|standard)")
EXPLAINED = re.compile(r"# pyright: ignore\[report\w+\]  # \w.{4,}")


def test_every_ignored_finding_names_its_rule_and_says_why() -> None:
    lines = [(file, line) for file in SOURCE.rglob("*.py") for line in file.read_text(encoding="utf-8").splitlines()]
    ignored = [(file.name, line.strip()) for file, line in lines if IGNORED.search(line)]
    assert ignored, "or this test shows nothing"
    assert [found for found in ignored if not EXPLAINED.search(found[1])] == []
