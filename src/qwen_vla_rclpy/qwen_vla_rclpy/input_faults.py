# SPDX-License-Identifier: Apache-2.0
"""Input that could not be used, counted by its source. Free of ROS.

A sender of one bad message sends a thousand of them: each fault is logged once, and again only now and then.
"""

from __future__ import annotations

from dataclasses import dataclass

REPEAT = 10.0  # [s] steady, between two reports of the same fault
RECENT = 5.0  # [s] steady, for how long a fault counts as a problem of the node
PLACES = 64  # topics and services; further ones are counted under one name
ELSEWHERE = "elsewhere"


@dataclass
class Fault:
    """One place: how often it was at fault, the last reason, when that was, and when it was reported [s, steady]."""

    count: int = 0
    reason: str = ""
    at: float = 0.0
    reported_at: float = -REPEAT


class InputFaults:
    """Faults by place.

    Attributes:
        total: of all places.
    """

    def __init__(self) -> None:
        """Create an empty record."""
        self.total = 0
        self._places: dict[str, Fault] = {}

    def add(self, place: str, reason: str, now: float) -> bool:
        """Count a fault at the steady time `now` [s]; True when it is to be reported."""
        if place not in self._places and len(self._places) >= PLACES:
            place = ELSEWHERE
        fault = self._places.setdefault(place, Fault())
        self.total += 1
        fault.count, fault.reason, fault.at = fault.count + 1, reason, now
        if now - fault.reported_at < REPEAT:
            return False
        fault.reported_at = now
        return True

    def count(self, place: str) -> int:
        """How often a place was at fault."""
        return self._places[place].count if place in self._places else 0

    def recent(self, now: float) -> dict[str, str]:
        """The last reason by place, for recent faults."""
        return {place: fault.reason for place, fault in self._places.items() if now - fault.at < RECENT}
