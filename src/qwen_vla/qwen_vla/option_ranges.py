# SPDX-License-Identifier: Apache-2.0
"""Ranges of numeric options, declared in their types and checked before a command begins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints


@dataclass(frozen=True)
class Range:
    """The least and the greatest value of an option, as metadata of its type."""

    least: float
    most: float = math.inf

    def __str__(self) -> str:
        """What the value must be, as a phrase."""
        return f"at least {self.least:g}" if self.most == math.inf else f"{self.least:g} to {self.most:g}"


Count = Annotated[int, Range(1)]
CountOrDefault = Annotated[int, Range(0)]  # 0: a default
PORTS = Range(0, 65535)
RateHz = Annotated[float, Range(0.01, 1000)]


def check_ranges(command: Any) -> None:
    """ValueError for an option of a command that is outside the range of its type; None is no value."""
    for name, kind in get_type_hints(type(command), include_extras=True).items():
        value = getattr(command, name)
        for limits in getattr(kind, "__metadata__", ()):
            if isinstance(limits, Range) and value is not None and not limits.least <= value <= limits.most:
                raise ValueError(f"--{name.replace('_', '-')} {value}: it must be {limits}")
