"""Ring buffers of stamped messages, and which of them make one observation: live and, by the same code, from a bag.

Free of rclpy and torch: messages are any objects with the fields of their ROS type.

Two clocks, never mixed: `stamp_ns` and `now_ns` are ROS time (simulated under use_sim_time) and say how old the content
is; `steady_ns` is the steady clock and says for how long nothing new has come, also when ROS time stands still.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodiment_descriptions import Camera
from qwen_vla.image_decoding import DecodingError, to_rgb

NANOSECONDS = 1_000_000_000
# A stamp that lies this much before the newest one is no late message: the clock was set back (a bag that loops, a
# simulator that starts over).
CLOCK_RESET_NS = NANOSECONDS
# An age beyond this is no age but another clock [s].
OTHER_CLOCK = 86400.0
FRAMES_KEPT = 8  # per camera; enough to find the frame that belongs to the slowest camera's
MAX_SKEW = 0.1  # [s]
MAX_SILENCE = 2.0  # [s]


@dataclass(frozen=True)
class Stamped:
    """A message and when it was made [ns, ROS time]."""

    stamp_ns: int
    message: Any


class Stream:
    """The newest messages of one topic, in the order of their stamps.

    Attributes:
        name: for messages to the user, for example "camera 'ego'".
        noun: what it carries, in the same messages.
        topic: where it comes from.
        max_age: age beyond which a message must not be used [s].
        frozen: the last message repeated the stamp before it.
    """

    def __init__(self, name: str, topic: str, max_age: float, capacity: int, noun: str = "message") -> None:
        """Create an empty buffer of `capacity` messages."""
        self.name, self.topic, self.max_age, self.noun = name, topic, max_age, noun
        self.frozen = False
        self._ring: deque[Stamped] = deque(maxlen=capacity)
        self._last_new_ns: int | None = None

    def __len__(self) -> int:
        """Return the number of messages held."""
        return len(self._ring)

    def push(self, stamp_ns: int, message: Any, steady_ns: int) -> bool:
        """Store a message; False when it is no newer than the newest and therefore not kept."""
        if self._ring and stamp_ns < self._ring[-1].stamp_ns - CLOCK_RESET_NS:
            self._ring.clear()
        if self._ring and stamp_ns <= self._ring[-1].stamp_ns:
            self.frozen = stamp_ns == self._ring[-1].stamp_ns
            return False
        self.frozen = False
        self._last_new_ns = steady_ns
        self._ring.append(Stamped(stamp_ns, message))
        return True

    @property
    def latest(self) -> Stamped | None:
        """The newest message."""
        return self._ring[-1] if self._ring else None

    def nearest(self, stamp_ns: int) -> Stamped | None:
        """Return the message whose stamp is nearest, or None when empty."""
        return min(self._ring, key=lambda item: abs(item.stamp_ns - stamp_ns), default=None)

    def silence(self, steady_ns: int) -> float:
        """Time since the stream last advanced [s, steady clock]; infinite when it never did."""
        return float("inf") if self._last_new_ns is None else (steady_ns - self._last_new_ns) / NANOSECONDS

    def age(self, now_ns: int) -> float:
        """Age of the newest message [s, ROS time]; infinite without one."""
        return (now_ns - self._ring[-1].stamp_ns) / NANOSECONDS if self._ring else float("inf")

    def fault(self, now_ns: int, steady_ns: int, max_age: float, max_silence: float) -> str:
        """Say in words why the stream must not be used now; empty when it may be.

        Args:
            now_ns: ROS time.
            steady_ns: steady time.
            max_age: limit of the age of the newest message [s, ROS time].
            max_silence: limit of the time without a new stamp [s, steady clock].
        """
        if not self._ring:
            return f"{self.name}: no {self.noun} yet on {self.topic}; is the driver running?"
        age, silence = self.age(now_ns), self.silence(steady_ns)
        if age <= max_age and silence <= max_silence:
            return ""
        if age > OTHER_CLOCK:
            return f"{self.name}: {self.topic} has stamps of another clock; is use_sim_time the same everywhere?"
        seconds, limit = (age, max_age) if age > max_age else (silence, max_silence)
        if self.frozen:
            return (
                f"{self.name}: the same {self.noun} for {seconds:.1f} s on {self.topic} (limit {limit:.1f} s); "
                "the stream is frozen"
            )
        return (
            f"{self.name}: no {self.noun} for {seconds:.1f} s on {self.topic} (limit {limit:.1f} s); "
            "is the driver running?"
        )


@dataclass(frozen=True)
class Observation:
    """One message per stream, all near `stamp_ns` [ns, ROS time], the stamp of the oldest of them."""

    stamp_ns: int
    messages: tuple[Any, ...]


@dataclass(frozen=True)
class Waiting:
    """Why there is no observation yet.

    Attributes:
        stream: name of the stream at fault.
        message: for the user.
        fault: an input is missing or too old; False when the inputs are well and only a newer one is awaited.
    """

    stream: str
    message: str
    fault: bool


def select(
    streams: Sequence[Stream],
    now_ns: int,
    steady_ns: int,
    not_before_ns: int = 0,
    max_skew: float = MAX_SKEW,
    max_silence: float = MAX_SILENCE,
) -> Observation | Waiting:
    """Choose the messages of one observation: per stream the one nearest to the newest stamp that all have reached.

    Args:
        streams: at least one.
        now_ns: ROS time.
        steady_ns: steady time.
        not_before_ns: every message must be younger than this ROS time (the arm moved until then).
        max_skew: largest distance between two messages of one observation [s].
        max_silence: time without a new stamp after which a stream counts as dead although its age, by a ROS clock
            that may stand still, is fine [s, steady clock].
    """
    for stream in streams:
        fault = stream.fault(now_ns, steady_ns, stream.max_age, max_silence)
        if fault:
            return Waiting(stream.name, fault, fault=True)
    slowest = min(streams, key=lambda stream: stream.latest.stamp_ns)
    chosen = [stream.nearest(slowest.latest.stamp_ns) for stream in streams]
    oldest = min(item.stamp_ns for item in chosen)
    if oldest <= not_before_ns:
        return Waiting(slowest.name, f"waiting for a newer message of {slowest.name}", fault=False)
    skew = (max(item.stamp_ns for item in chosen) - oldest) / NANOSECONDS
    if skew > max_skew:
        text = f"{slowest.name} is {skew:.2f} s away from the other streams (limit {max_skew:.2f} s); are they in sync?"
        return Waiting(slowest.name, text, fault=True)
    return Observation(oldest, tuple(item.message for item in chosen))


class CameraStreams:
    """The cameras of one robot: takes in their messages, chooses those of an observation and decodes these alone.

    Attributes:
        streams: by camera tag, in the order of the cameras.
    """

    def __init__(self, cameras: Sequence[Camera], topics: Mapping[str, str] | None = None) -> None:
        """Create empty streams; `topics` (by tag) are the names that messages to the user call the topics by."""
        named = topics or {}
        self.streams = {
            c.tag: Stream(f"camera '{c.tag}'", named.get(c.tag, c.topic), c.max_age_s, FRAMES_KEPT, noun="image")
            for c in cameras
        }

    def push(self, tag: str, message: Any, steady_ns: int) -> bool:
        """Store a sensor_msgs/Image or CompressedImage; False when it is no newer than the newest."""
        return self.streams[tag].push(stamp_of(message), message, steady_ns)

    def select(
        self,
        now_ns: int,
        steady_ns: int,
        not_before_ns: int = 0,
        max_skew: float = MAX_SKEW,
        max_silence: float = MAX_SILENCE,
    ) -> Observation | Waiting:
        """Choose one image per camera, see `select`."""
        return select(list(self.streams.values()), now_ns, steady_ns, not_before_ns, max_skew, max_silence)

    def decode(self, observation: Observation) -> dict[str, np.ndarray]:
        """H×W×3 uint8 RGB by camera tag; DecodingError names camera and topic."""
        images = {}
        for (tag, stream), message in zip(self.streams.items(), observation.messages, strict=True):
            try:
                images[tag] = to_rgb(message)
            except DecodingError as error:
                raise DecodingError(f"{stream.name} on {stream.topic}: {error}") from error
        return images


def stamp_of(message: Any) -> int:
    """When a message with a header was made [ns, ROS time]."""
    return message.header.stamp.sec * NANOSECONDS + message.header.stamp.nanosec
