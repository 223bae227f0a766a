# SPDX-License-Identifier: Apache-2.0
"""Ring buffers of stamped messages, and which of them belong together: live and, by the same code, from a bag.

Free of rclpy and torch: messages are any objects with the fields of their ROS type.

Two clocks, never mixed: `stamp_ns` and `now_ns` are ROS time (simulated under use_sim_time) and give the age of the
content; `steady_ns` is the steady clock and gives the time without news, also while ROS time stands still.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from qwen_vla_control.reasons import Reason, Refused, Violation
from qwen_vla_control.stamps import NANOSECONDS

# A stamp this much before the newest one is not a late message: the clock was set back (a bag that loops, a simulator
# that was restarted).
CLOCK_RESET_NS = NANOSECONDS
# An age beyond this means another clock [s].
OTHER_CLOCK = 86400.0
MAX_SKEW = 0.1  # [s]
MAX_SILENCE = 2.0  # [s]
MAX_LEAD = 0.1  # [s]
MAX_IDENTICAL = 1.0  # [s]
IS_THE_DRIVER_RUNNING = "is the driver running?"


class Alignment(StrEnum):
    """Which messages are combined with the anchor, the newest stamp that all streams have reached.

    HOLD: of each stream the newest at or before the anchor, however long before; only its max age bounds it.
    ASOF: the same, but one that lies more than the largest skew before the anchor is a fault.
    DROP: of each stream the nearest to the anchor, before or after; where that is farther away than the largest skew,
    the anchor is dropped and the next one awaited.
    """

    HOLD = "hold"
    ASOF = "asof"
    DROP = "drop"


@dataclass(frozen=True)
class Rules:
    """When messages may be used, and which of them together.

    Attributes:
        alignment: see Alignment.
        max_skew: largest distance between two messages of one observation [s].
        max_silence: time without a new stamp after which a stream counts as dead although its age, by a ROS clock
            that may stand still, is fine [s, steady clock].
        max_lead: how far in the future a stamp may lie [s, ROS time].
        max_identical: for how long the content may stay bit-identical under new stamps [s, steady clock]; applies to
            streams whose content is compared. Sensors have noise; a simulator without it needs infinity.
        require_camera_info: a CameraInfo that is missing or does not match its image is a fault.
    """

    alignment: Alignment = Alignment.DROP
    max_skew: float = MAX_SKEW
    max_silence: float = MAX_SILENCE
    max_lead: float = MAX_LEAD
    max_identical: float = MAX_IDENTICAL
    require_camera_info: bool = False


@dataclass(frozen=True)
class Stamped:
    """A message, its stamp [ns, ROS time], and the size of its content [bytes]."""

    stamp_ns: int
    message: Any
    size: int = 0


@dataclass(frozen=True)
class Past:
    """What a stream keeps beyond its newest messages: one every `step` [s], for `span` [s]."""

    step: float
    span: float


class Watched(Protocol):
    """What can say why it must not be used: a stream, or several that are one topic."""

    name: str
    max_age: float

    def fault(
        self,
        now_ns: int,
        steady_ns: int,
        max_age: float,
        max_silence: float,
        max_lead: float = math.inf,
        max_identical: float = math.inf,
    ) -> str:
        """Why it must not be used, see `Stream.fault`."""
        ...


class Stream:
    """The newest messages of one topic, in the order of their stamps.

    Attributes:
        name: for messages to the user, for example "camera 'ego'".
        noun: what it carries, in those messages.
        topic: where it comes from.
        max_age: age beyond which a message must not be used [s].
        remedy: how the topic is offered, or what to do to have it offered; part of the messages.
        frozen: the last message repeated the stamp before it.
        received, repeated, late: messages so far; those that repeated the newest stamp; those with an older one.
    """

    def __init__(
        self,
        name: str,
        topic: str,
        max_age: float,
        capacity: int,
        noun: str = "message",
        window: float = math.inf,
        past: Past | None = None,
        budget: float = math.inf,
    ) -> None:
        """Create an empty buffer.

        It holds up to `capacity` messages that are at most `window` older than the newest [s], and, besides the newest,
        no more than `budget` bytes of their content.
        """
        self.name, self.topic, self.max_age, self.noun = name, topic, max_age, noun
        self.remedy = IS_THE_DRIVER_RUNNING
        self.frozen, self._behind = False, 0.0
        self.received = self.repeated = self.late = 0
        self._capacity, self._window = capacity, window
        self._ring: deque[Stamped] = deque()
        self._thinned: deque[Stamped] = deque()
        self._past = past
        self._budget, self._held = budget, 0
        self._last_new_ns: int | None = None
        self._content, self._same_since_ns = None, 0

    def __len__(self) -> int:
        """Return the number of messages held."""
        return len(self._ring) + len(self._thinned)

    def __bool__(self) -> bool:
        """True: an empty stream is a stream, too."""
        return True

    def __iter__(self) -> Iterator[Stamped]:
        """Iterate over the messages held, oldest first."""
        yield from self._thinned
        yield from self._ring

    def __reversed__(self) -> Iterator[Stamped]:
        """Iterate over the messages held, newest first."""
        yield from reversed(self._ring)
        yield from reversed(self._thinned)

    def push(self, stamp_ns: int, message: Any, steady_ns: int, content: Any = None) -> bool:
        """Store a message; False when it is no newer than the newest and therefore not kept.

        Args:
            stamp_ns: ROS time.
            message: what is stored.
            steady_ns: steady time.
            content: compared with that of the message before, to detect a frozen source; None: not compared.
        """
        self.received += 1
        if self._ring and stamp_ns < self._ring[-1].stamp_ns - CLOCK_RESET_NS:
            self._ring.clear()
            self._thinned.clear()
            self._held = 0
        if self._ring and stamp_ns <= self._ring[-1].stamp_ns:
            self._behind = (self._ring[-1].stamp_ns - stamp_ns) / NANOSECONDS
            self.frozen = not self._behind
            self.repeated += self.frozen
            self.late += not self.frozen
            return False
        self.frozen, self._behind = False, 0.0
        if content is None or not _same(content, self._content):
            self._same_since_ns = steady_ns
        self._content = content
        self._last_new_ns = steady_ns
        size = 0 if content is None or isinstance(content, int) else len(content)
        self._held += size
        self._ring.append(Stamped(stamp_ns, message, size))
        self._forget()
        return True

    def _forget(self) -> None:
        newest = self._ring[-1].stamp_ns
        oldest = newest - self._window * NANOSECONDS
        while len(self._ring) > self._capacity or self._ring[0].stamp_ns < oldest:
            item = self._ring.popleft()
            due = self._past is not None and (
                not self._thinned or item.stamp_ns - self._thinned[-1].stamp_ns >= self._past.step * NANOSECONDS
            )
            if due:
                self._thinned.append(item)
            else:
                self._held -= item.size
        if self._past is not None:
            while self._thinned and self._thinned[0].stamp_ns < newest - self._past.span * NANOSECONDS:
                self._held -= self._thinned.popleft().size
        while self._held > self._budget and len(self) > 1:
            self._held -= (self._thinned or self._ring).popleft().size

    @property
    def advice(self) -> str:
        """What the user should check when nothing arrives."""
        return self.remedy

    @property
    def latest(self) -> Stamped | None:
        """The newest message."""
        return self._ring[-1] if self._ring else None

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest message [ns, ROS time]; 0 before the first."""
        return self._ring[-1].stamp_ns if self._ring else 0

    def nearest(self, stamp_ns: int) -> Stamped | None:
        """Return the message whose stamp is nearest, or None when empty."""
        best = None
        for item in reversed(self):
            if best is not None and abs(item.stamp_ns - stamp_ns) >= abs(best.stamp_ns - stamp_ns):
                break  # all others are farther away
            best = item
        return best

    def gap(self, stamp_ns: int) -> float:
        """Distance from a stamp to the message nearest to it [s]; infinite when empty."""
        nearest = self.nearest(stamp_ns)
        return math.inf if nearest is None else abs(nearest.stamp_ns - stamp_ns) / NANOSECONDS

    def at_or_before(self, stamp_ns: int) -> Stamped | None:
        """Return the newest message that is not newer than a stamp, or None."""
        return next((item for item in reversed(self) if item.stamp_ns <= stamp_ns), None)

    def silence(self, steady_ns: int) -> float:
        """Time since the stream last advanced [s, steady clock]; infinite when it never did."""
        return math.inf if self._last_new_ns is None else (steady_ns - self._last_new_ns) / NANOSECONDS

    def age(self, now_ns: int) -> float:
        """Age of the newest message [s, ROS time]; infinite without one."""
        return (now_ns - self._ring[-1].stamp_ns) / NANOSECONDS if self._ring else math.inf

    def identical(self) -> float:
        """For how long new stamps have had the same content [s, steady clock]."""
        return 0.0 if self._last_new_ns is None else (self._last_new_ns - self._same_since_ns) / NANOSECONDS

    def rate(self) -> float:
        """Messages per second of the newest ones, by their stamps [Hz]; 0 with fewer than two."""
        if len(self._ring) < 2:
            return 0.0
        return (len(self._ring) - 1) * NANOSECONDS / (self._ring[-1].stamp_ns - self._ring[0].stamp_ns)

    def fault(
        self,
        now_ns: int,
        steady_ns: int,
        max_age: float,
        max_silence: float,
        max_lead: float = math.inf,
        max_identical: float = math.inf,
    ) -> str:
        """Why the stream must not be used now, and what to do, as text; empty when it may be used.

        Args:
            now_ns: ROS time.
            steady_ns: steady time.
            max_age: limit of the age of the newest message [s, ROS time].
            max_silence: limit of the time without a new stamp [s, steady clock].
            max_lead: how far in the future the newest stamp may lie [s, ROS time].
            max_identical: for how long new stamps may have the same content [s, steady clock].
        """
        if not self._ring:
            return f"{self.name}: no {self.noun} yet on {self.topic}; {self.advice}"
        age, silence, same = self.age(now_ns), self.silence(steady_ns), self.identical()
        if age > max_age or silence > max_silence:
            return f"{self.name}: {self._too_old(age, silence, max_age, max_silence)}"
        if age < -max_lead:
            return f"{self.name}: {self._from_the_future(-age, max_lead)}"
        if same > max_identical:
            return (
                f"{self.name}: identical {self.noun}s with new stamps for {same:.1f} s on {self.topic} "
                f"(limit {max_identical:.1f} s); the stream is frozen; restart its driver"
            )
        return ""

    def _too_old(self, age: float, silence: float, max_age: float, max_silence: float) -> str:
        if age > OTHER_CLOCK:
            if not self._ring[-1].stamp_ns:
                return f"{self.topic} has no stamps; its driver must fill in header.stamp"
            return f"{self.topic} has stamps of another clock; is use_sim_time the same everywhere?"
        if age - silence > max_age and silence <= max_silence:
            return (
                f"the {self.noun}s on {self.topic} are {age - silence:.1f} s old when they arrive (limit {max_age:.1f} "
                "s); is the network slow, or do the clocks of the machines disagree?"
            )
        seconds, limit = (age, max_age) if age > max_age else (silence, max_silence)
        if self.frozen:
            return (
                f"the same {self.noun} for {seconds:.1f} s on {self.topic} (limit {limit:.1f} s); "
                "the stream is frozen; restart its driver"
            )
        if self._behind:
            return (
                f"no new {self.noun} for {seconds:.1f} s on {self.topic} (limit {limit:.1f} s): its stamps have gone "
                f"back by {self._behind:.2f} s; is its clock being set?"
            )
        return f"no {self.noun} for {seconds:.1f} s on {self.topic} (limit {limit:.1f} s); {self.advice}"

    def _from_the_future(self, lead: float, max_lead: float) -> str:
        if lead > OTHER_CLOCK:
            return f"{self.topic} has stamps of another clock; is use_sim_time the same everywhere?"
        return (
            f"stamps on {self.topic} are {lead:.2f} s in the future (limit {max_lead:.2f} s); synchronize the clocks "
            "of the machines (chrony), or, if ROS time was set back, wait for new ones"
        )


@dataclass(frozen=True)
class Observation:
    """What was observed at `stamp_ns` [ns, ROS time], the stamp of the oldest of the current images; raw messages.

    Attributes:
        images: by camera tag, from the oldest of the history to the current one.
        joints: positions nearest to the stamp, as reported, by URDF name [rad | m]; all that are known.
        base: the BasePose nearest to the stamp, or None.
    """

    stamp_ns: int
    images: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    joints: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    base: Any = None


@dataclass(frozen=True)
class Waiting:
    """Why there is no observation yet.

    Attributes:
        stream: name of the stream at fault.
        message: for the user.
        fault: an input is missing or too old; False when the inputs are fine and only a newer one is awaited.
    """

    stream: str
    message: str
    fault: bool


class NotObserved(Refused):
    """The robot's position at some time is unknown; the message names the stream that has nothing near it.

    Attributes:
        stream: name of that stream.
    """

    def __init__(self, reason: Reason, stream: str, message: str) -> None:
        """Refuse for `reason` what depends on it."""
        super().__init__([Violation(reason, message)])
        self.stream = stream


def first_fault(streams: Iterable[Watched], now_ns: int, steady_ns: int, rules: Rules) -> Waiting | None:
    """Find the first stream that must not be used at a ROS time and a steady time."""
    for stream in streams:
        if fault := fault_of(stream, now_ns, steady_ns, rules):
            return Waiting(stream.name, fault, fault=True)
    return None


def align(streams: Sequence[Stream], not_before_ns: int, rules: Rules) -> tuple[Stamped, ...] | Waiting:
    """Select one message per stream, all of one time.

    Args:
        streams: at least one, none of them empty.
        not_before_ns: every message must be newer than this ROS time (the robot moved until then).
        rules: alignment and max_skew are used here.
    """
    slowest = min(streams, key=lambda stream: stream.newest_ns)
    anchor = slowest.newest_ns
    chosen = []
    for stream in streams:
        item = stream.nearest(anchor) if rules.alignment == Alignment.DROP else stream.at_or_before(anchor)
        if item is None:
            return Waiting(stream.name, f"{stream.name} has nothing as old as the newest of {slowest.name}", fault=True)
        chosen.append(item)
    oldest = min(item.stamp_ns for item in chosen)
    if oldest <= not_before_ns:
        return Waiting(slowest.name, f"waiting for a newer message of {slowest.name}", fault=False)
    skew = (max(item.stamp_ns for item in chosen) - oldest) / NANOSECONDS
    if skew > rules.max_skew and rules.alignment != Alignment.HOLD:
        text = (
            f"{slowest.name} on {slowest.topic} is {skew:.2f} s away from the other streams (limit "
            f"{rules.max_skew:.2f} s); are they in sync?"
        )
        return Waiting(slowest.name, text, fault=rules.alignment == Alignment.ASOF)
    return tuple(chosen)


def fault_of(stream: Watched, now_ns: int, steady_ns: int, rules: Rules) -> str:
    """Why a stream must not be used, see `Stream.fault`."""
    return stream.fault(
        now_ns, steady_ns, stream.max_age, rules.max_silence, rules.max_lead, max_identical=rules.max_identical
    )


def too_far_apart(name: str, noun: str, topic: str, gap: float, limit: float) -> str:
    """The message for a stream that has nothing near enough to an observation; gap and limit [s]."""
    if math.isinf(gap):
        return f"{name}: no {noun} yet on {topic}"
    return (
        f"{name}: the {noun} on {topic} nearest to the observation is {gap:.2f} s away from it (limit {limit:.2f} s); "
        "are both stamped by the same clock?"
    )


def _same(one: Any, other: Any) -> bool:
    """Whether two contents are bit-identical: the bytes of images or, from a bag, what represents them."""
    if type(one) is not type(other):
        return False
    if isinstance(one, int):
        return one == other
    ours, theirs = np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)
    # Two frames of a sensor differ nearly everywhere, so a few bytes usually suffice.
    return ours.size == theirs.size and np.array_equal(ours[::997], theirs[::997]) and np.array_equal(ours, theirs)
