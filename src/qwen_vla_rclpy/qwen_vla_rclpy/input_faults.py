"""What came in and could not be used, counted by where it came from. Free of ROS.

Whoever sends a bad message sends a thousand of them: each kind is said once, and again only now and then.
"""

from __future__ import annotations

from dataclasses import dataclass

REPEAT = 10.0  # [s] steady, between two words about the same fault
RECENT = 5.0  # [s] steady, for how long a fault is a problem of the node
PLACES = 64  # topics and services; what comes from more of them is counted under one name
ELSEWHERE = "elsewhere"


@dataclass
class Fault:
    """One place: how often it was at fault, the last reason, and when that was, and was said [s, steady]."""

    count: int = 0
    reason: str = ""
    at: float = 0.0
    told_at: float = -REPEAT


class InputFaults:
    """Faults by place.

    Attributes:
        total: of all places.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self.total = 0
        self._places: dict[str, Fault] = {}

    def add(self, place: str, reason: str, now: float) -> bool:
        """Count a fault at the steady time `now` [s]; True when it is to be said."""
        if place not in self._places and len(self._places) >= PLACES:
            place = ELSEWHERE
        fault = self._places.setdefault(place, Fault())
        self.total += 1
        fault.count, fault.reason, fault.at = fault.count + 1, reason, now
        if now - fault.told_at < REPEAT:
            return False
        fault.told_at = now
        return True

    def count(self, place: str) -> int:
        """How often a place was at fault."""
        return self._places[place].count if place in self._places else 0

    def recent(self, now: float) -> dict[str, str]:
        """The last reason by place, of those that were at fault lately."""
        return {place: fault.reason for place, fault in self._places.items() if now - fault.at < RECENT}
