# SPDX-License-Identifier: Apache-2.0
"""Errors in a file that pydantic validates, as one readable line."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

MOST = 5  # problems are shown


def as_text(error: ValidationError, whole: str, known: Collection[str] = ()) -> str:
    """The first problems, each with its field.

    Args:
        error: of pydantic.
        whole: name for the file as a whole.
        known: names of fields, one of which an unknown one may have meant.
    """
    problems = error.errors()
    texts = [_problem_as_text(problem, whole, known) for problem in problems[:MOST]]
    return "; ".join(texts) + (f"; and {len(problems) - MOST} more" if len(problems) > MOST else "")


def meant(name: str, known: Collection[str]) -> str:
    """The known name that was probably meant, for the end of an error message; empty if none is close."""
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _problem_as_text(problem: Mapping[str, Any], whole: str, known: Collection[str]) -> str:
    field = ".".join(printable(str(part)) for part in problem["loc"]) or whole
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{field}: unknown field{meant(str(problem['loc'][-1]), known)}"
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
