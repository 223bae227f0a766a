# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a command line, in one line: what was given, and what would be right."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import fields
from difflib import get_close_matches
from io import StringIO
from itertools import pairwise
from typing import NoReturn

_COLOR = re.compile(r"\x1b\[[\d;]*m")
_RULE = re.compile(r"\s*[─-]{3,}\s*")  # between the parts of tyro's message


def refuse(message: str) -> NoReturn:
    """End the process because of its arguments."""
    print(f"qwen-vla: {message}", file=sys.stderr)
    raise SystemExit(2)


@contextmanager
def in_one_line() -> Iterator[None]:
    """Print the box in which tyro explains a wrong command line as one line."""
    said = StringIO()
    try:
        with redirect_stderr(said):
            yield
    except SystemExit as end:
        if end.code != 2:
            raise
        refuse(condensed(said.getvalue()))


def condensed(box: str) -> str:
    """The parts of a box, without its frame, its title and its colors, one after the other."""
    rows = [line.strip("│ ") for line in _COLOR.sub("", box).splitlines()]
    framed = rows[0].startswith("╭")
    parts: list[list[str]] = [[]]
    for row in rows[1:-1] if framed else rows[1:]:
        if _RULE.fullmatch(row):
            parts.append([])
        elif row:
            parts[-1].append(row)
    return "; ".join(" ".join(part).removesuffix(".") for part in parts if part)


def refuse_unknown(name: str, commands: Sequence[str]) -> NoReturn:
    """End the process because there is no such command."""
    close = get_close_matches(name, commands, 1)
    meant = f"did you mean {close[0]}? All" if close else "the"
    refuse(f"unknown command {name!r}; {meant} commands: {', '.join(commands)}")


def refuse_empty_lists(command: type, arguments: Sequence[str]) -> None:
    """End the process because of an option without a value, which would otherwise count as an option not given."""
    lists = {f"--{field.name.replace('_', '-')}" for field in fields(command) if isinstance(field.default, tuple)}
    for option, following in pairwise([*arguments, "--"]):
        if option in lists and following.startswith("--"):
            refuse(f"{option} is given without a value; add one or more after it, or omit the option")
