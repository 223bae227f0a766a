"""Errors in a file that pydantic validates, as one readable line."""

from __future__ import annotations

from pydantic import ValidationError


def as_text(error: ValidationError, whole: str) -> str:
    """All problems, each with its field; ``whole``: name for the file as a whole."""
    problems = []
    for problem in error.errors():
        field = ".".join(map(str, problem["loc"])) or whole
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            problems.append(f"{field}: unknown field")
        elif problem["type"] == "missing":
            problems.append(f"{field}: missing")
        elif problem["type"] == "value_error":
            problems.append(problem["msg"].removeprefix("Value error, "))
        else:
            problems.append(f"{field}: {problem['msg']}, got {problem['input']!r}")
    return "; ".join(problems)
