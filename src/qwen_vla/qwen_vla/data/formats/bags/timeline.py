# SPDX-License-Identifier: Apache-2.0
"""The time of a bag: when each message was there, in the clock of the stamps, and where that clock leaps.

Two clocks are recorded: the recorder's with every message, and the robot's in its stamp. They are the same within the
delay of the messages, or differ by a constant (two machines), or the stamps are of a simulator, which may be slower
than the recorder's clock. Clocks are set and simulators restarted while a bag is recorded, recordings are paused, and
parts of a file are damaged: there the recording is interrupted, and nothing is computed across.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from qwen_vla.data.formats.bags.storage import Damage
from qwen_vla_control.observation.streams import CLOCK_RESET_NS, OTHER_CLOCK
from qwen_vla_control.stamps import NANOSECONDS

LONGEST_PAUSE = 2 * NANOSECONDS  # without any measurement
DAY = 86400.0  # [s]


class Heard(NamedTuple):
    """A message of a bag.

    log_ns: when it was recorded [ns]. sensed: whether it is a measurement. stamp_ns: of a measurement [ns]; 0 without
    one. content: what it says.
    """

    topic: str
    type: str
    log_ns: int
    stamp_ns: int
    sensed: bool
    content: Any


class Arrival(NamedTuple):
    """A message, and when it was there [ns, the clock of the stamps]."""

    time_ns: int
    heard: Heard


@dataclass
class Stretch:
    """Messages between two interruptions, in order.

    ended: why it is interrupted after them, "" at the end of the bag. damaged: whether messages are lost there.
    """

    arrivals: list[Arrival] = field(default_factory=list)
    ended: str = ""
    damaged: bool = False


class ClockSetBack(ValueError):
    """The recorder's clock went back: which messages belong together is unknown."""

    def __init__(self, heard: Heard, seconds: float) -> None:
        """Keep the first message after it."""
        super().__init__(f"the recorder's clock was set back by {duration(seconds)} before it; record again")
        self.heard = heard


def stretches(messages: Sequence[Heard], damages: Sequence[Damage] = ()) -> list[Stretch]:
    """Divide a bag where it is interrupted.

    Args:
        messages: in the order of writing.
        damages: of its files; messages recorded between their times are left out, too.

    Returns:
        At least one; the last one ends with the bag.

    Raises:
        ClockSetBack: the times of a topic go back.
    """
    _check_order(messages)
    ordered = sorted(messages, key=lambda heard: heard.log_ns)
    pending = sorted(damages, key=lambda damage: -damage.begin_ns)
    clock = _Simulated() if _is_simulated(ordered) else _Recorder()
    found, current, blocked = [], [], -1
    for heard in ordered:
        while pending and pending[-1].begin_ns <= heard.log_ns:
            damage = pending.pop()
            blocked = max(blocked, damage.end_ns)
            found.append(Stretch(clock.arrivals(current), damage.why, damaged=True))
            current, clock = [], type(clock)()
        if heard.log_ns <= blocked:  # among what is lost it would be misunderstood
            continue
        if heard.sensed and (leap := clock.leap(heard)):
            found.append(Stretch(clock.arrivals(current), leap))
            current, clock = [], type(clock)()
        current.append(heard)
        clock.take(heard)
    found.append(Stretch(clock.arrivals(current), "; ".join(damage.why for damage in pending), bool(pending)))
    return found


def duration(seconds: float) -> str:
    """A time as text, in days where it is that of another clock."""
    return f"{seconds / DAY:,.0f} days" if abs(seconds) > 2 * DAY else f"{seconds:.1f} s"


def _check_order(messages: Iterable[Heard]) -> None:
    newest: dict[str, int] = {}
    for heard in messages:
        back = newest.get(heard.topic, heard.log_ns) - heard.log_ns
        if back > CLOCK_RESET_NS:
            raise ClockSetBack(heard, back / NANOSECONDS)
        newest[heard.topic] = heard.log_ns


def _is_simulated(messages: Iterable[Heard]) -> bool:
    offsets = [heard.stamp_ns - heard.log_ns for heard in messages if heard.stamp_ns]
    return bool(offsets) and abs(statistics.median(offsets)) > OTHER_CLOCK * NANOSECONDS


class _Clock:
    """The clocks of one stretch."""

    def __init__(self) -> None:
        self._stamps: dict[str, int] = {}

    def take(self, heard: Heard) -> None:
        """Keep what the next message is compared with."""
        if heard.stamp_ns:
            self._stamps[heard.topic] = heard.stamp_ns

    def _went_back(self, heard: Heard) -> str:
        back = self._stamps.get(heard.topic, heard.stamp_ns) - heard.stamp_ns
        if not heard.stamp_ns or back <= CLOCK_RESET_NS:
            return ""
        return (
            f"the stamps on {heard.topic} go back by {duration(back / NANOSECONDS)}: its clock was set, or the "
            "simulator was restarted"
        )


class _Recorder(_Clock):
    """The clock of the recorder, corrected where the stamps are ahead of it, or constantly behind: by the fastest
    message, whose delay is taken for none."""

    def __init__(self) -> None:
        super().__init__()
        self._log_ns: int | None = None
        self._offset: int | None = None  # largest distance from recorded to stamped

    def leap(self, heard: Heard) -> str:
        """Why a measurement does not continue the ones before; empty if it does."""
        pause = 0 if self._log_ns is None else heard.log_ns - self._log_ns
        if pause > LONGEST_PAUSE:
            seconds = duration(pause / NANOSECONDS)
            return f"no measurement was recorded for {seconds}: the recording was paused, or the clock was set"
        ahead = heard.stamp_ns - heard.log_ns - self._offset if heard.stamp_ns and self._offset is not None else 0
        if ahead > CLOCK_RESET_NS:
            return f"the stamps on {heard.topic} leap ahead by {duration(ahead / NANOSECONDS)}: its clock was set"
        return self._went_back(heard)

    def take(self, heard: Heard) -> None:
        super().take(heard)
        self._log_ns = heard.log_ns if heard.sensed else self._log_ns
        if heard.stamp_ns:
            offset = heard.stamp_ns - heard.log_ns
            self._offset = offset if self._offset is None else max(self._offset, offset)

    def arrivals(self, messages: Iterable[Heard]) -> list[Arrival]:
        """The messages of the stretch with their times."""
        offset = self._offset or 0
        shift = 0 if -CLOCK_RESET_NS <= offset <= 0 else offset
        return [Arrival(heard.log_ns + shift, heard) for heard in messages]


class _Simulated(_Clock):
    """A clock that only the stamps tell: it is as late as the newest of them."""

    def __init__(self) -> None:
        super().__init__()
        self._newest: int | None = None

    def leap(self, heard: Heard) -> str:
        """As _Recorder."""
        ahead = heard.stamp_ns - self._newest if heard.stamp_ns and self._newest is not None else 0
        if ahead > LONGEST_PAUSE:
            return f"the stamps on {heard.topic} leap ahead by {duration(ahead / NANOSECONDS)}: its clock was set"
        return self._went_back(heard)

    def take(self, heard: Heard) -> None:
        super().take(heard)
        if heard.stamp_ns:
            self._newest = heard.stamp_ns if self._newest is None else max(heard.stamp_ns, self._newest)

    def arrivals(self, messages: Sequence[Heard]) -> list[Arrival]:
        """As _Recorder; what was recorded before the first stamp was there when that one was."""
        newest = next((heard.stamp_ns for heard in messages if heard.stamp_ns), 0)
        found = []
        for heard in messages:
            newest = max(newest, heard.stamp_ns) if heard.stamp_ns else newest
            found.append(Arrival(newest, heard))
        return found
