# SPDX-License-Identifier: Apache-2.0
"""Errors in a file that pydantic validates, as one readable line."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

MOST = 5  # problems are shown


def as_text(error: ValidationError, whole: str) -> str:
    """The first problems, each with its field; ``whole``: name for the file as a whole."""
    problems = error.errors()
    texts = [_problem_as_text(problem, whole) for problem in problems[:MOST]]
    return "; ".join(texts) + (f"; and {len(problems) - MOST} more" if len(problems) > MOST else "")


def _problem_as_text(problem: Mapping[str, Any], whole: str) -> str:
    field = ".".join(printable(str(part)) for part in problem["loc"]) or whole
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{field}: unknown field"
    if problem["type"] == "missing":
        return f"{field}: missing"
    if problem["type"] == "json_invalid":
        return f"not JSON ({problem['ctx']['error']})"
    if problem["type"] == "value_error":
        return printable(problem["msg"].removeprefix("Value error, "), 500)
    return f"{field}: {problem['msg']}, got {reprlib.repr(problem['input'])}"


def printable(text: str, longest: int = 100) -> str:
    """Text of a file on one line, at most this long."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
