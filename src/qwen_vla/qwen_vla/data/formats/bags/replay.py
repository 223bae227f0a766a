# SPDX-License-Identifier: Apache-2.0
"""A stretch of a bag, replayed through the policy's live observation streams: what it would have observed at a time."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embodiment_descriptions import Camera, Embodiment
from qwen_vla.data.formats.bags.storage import Place
from qwen_vla_control.observation.odometry_reader import BasePose
from qwen_vla_control.observation.robot_streams import Needs, ObservationStreams
from qwen_vla_control.observation.streams import MAX_IDENTICAL, Alignment, Observation, Rules, Waiting
from qwen_vla_control.stamps import NANOSECONDS, stamp_of

# Earlier stamps (2001) are from a simulator, whose cameras have no noise: a repeated image is no defect [ns].
REAL_TIME = 10**18
KINDS = {"camera": "frame", "odometry": "odometry"}  # what is missing, by the first word of a stream's name


@dataclass(frozen=True)
class Reference:
    """Placeholder of an image in the streams until it is selected: its header, and where its message lies.

    `data` replaces its pixels: the number of the image, unchanged if the image is bit-identical to the previous one.
    """

    header: Any
    tag: str
    topic: str
    log_ns: int
    place: Place
    data: int


@dataclass(frozen=True)
class Joints:
    """A joint state: number of its topic, stamp [ns], names, positions [rad | m], velocities [rad/s | m/s]."""

    source: int
    stamp_ns: int
    names: tuple[str, ...]
    positions: Any
    velocities: Any


@dataclass
class Measured:
    """The measurements of a stretch, each with the time when it was there [ns, the clock of the stamps]."""

    images: list[tuple[int, Reference]] = field(default_factory=list)
    joints: list[tuple[int, Joints]] = field(default_factory=list)
    odometry: list[tuple[int, Any]] = field(default_factory=list)

    @property
    def span(self) -> tuple[int, int] | None:
        """First and last time [ns] of an image or a joint state, or, without any, of the odometry."""
        times = [time for time, _ in (*self.images, *self.joints)] or [time for time, _ in self.odometry]
        return (min(times), max(times)) if times else None

    def last_tick(self, end_ns: int, cameras: Sequence[Camera]) -> int:
        """When rows that should end at a time [ns] end: with the last images, unless a camera failed long before."""
        last = {camera.tag: 0 for camera in cameras} | {image.tag: time for time, image in self.images}
        if any(end_ns - last[camera.tag] > camera.max_age_s * NANOSECONDS for camera in cameras):
            return end_ns
        return min([end_ns, *last.values()])


@dataclass(frozen=True)
class Row:
    """What a policy observes at a time; `fault`: why it does not, if it does not."""

    tick_ns: int
    stamp_ns: int
    chosen: Mapping[str, Reference]
    joints: Mapping[str, float]  # positions; empty if missing
    base: BasePose | None
    fault: str


class Replay:
    """The state of a stretch's streams at any time; time only moves forward.

    Attributes:
        waiting: why there was no observation when there was none for the last time.
    """

    def __init__(
        self, embodiment: Embodiment, measured: Measured, begin_ns: int, resolve: Any, alignment: Alignment, skew: float
    ) -> None:
        """Begin a replay.

        Args:
            embodiment: the robot.
            measured: all measurements of the stretch.
            begin_ns: when observations are wanted from; earlier messages are taken in as far as they may be used then.
            resolve: the name of a topic in the bag.
            alignment, skew: rules for images that belong together, as in policy_node; skew [s].
        """
        needs = Needs(joint_states=True, odometry=bool(measured.odometry))
        self.streams = ObservationStreams(embodiment, embodiment.cameras, resolve, needs)
        simulated = any(stamp_of(reference) < REAL_TIME for _, reference in measured.images[:1])
        self.rules = Rules(
            alignment=alignment,
            max_skew=skew,
            max_lead=math.inf,  # the recorder's clock is not the robot's
            max_identical=math.inf if simulated else MAX_IDENTICAL,
        )
        self.waiting: Waiting | None = None
        self._coming: list[tuple[int, int, Any]] = sorted(
            [(time, 0, reference) for time, reference in measured.images]
            + [(time, 1, joints) for time, joints in measured.joints]
            + [(time, 2, message) for time, message in measured.odometry],
            key=lambda item: item[:2],
        )
        self._next = bisect.bisect_left(self._coming, begin_ns - self._longest(), key=lambda item: item[0])

    def _longest(self) -> int:
        """How long a message may be used, and a repeated image must be noticed [ns]."""
        ages = [stream.max_age for stream in (*self.streams.cameras.values(), *self.streams.needed)]
        return round((max(ages, default=0.0) + MAX_IDENTICAL) * 2 * NANOSECONDS)

    def first_observation(self, begin: int, last: int) -> int | None:
        """Arrival of the message that completes the first observation at or after `begin`."""
        while self._next < len(self._coming) and self._coming[self._next][0] <= last:
            now = self._coming[self._next][0]
            self._offer(now)
            if now >= begin and isinstance(self._select(now), Observation):
                return now
        return None

    def row(self, now: int) -> Row:
        """The observation at a time [ns], or why there is none."""
        self._offer(now)
        observed = self._select(now)
        if isinstance(observed, Waiting):
            kind = KINDS.get(observed.stream.partition(" ")[0], "joint state")
            return Row(now, now, {}, {}, None, f"missing {kind}: {observed.message}")
        chosen = {tag: messages[-1] for tag, messages in observed.images.items()}
        return Row(now, observed.stamp_ns, chosen, observed.joints, observed.base, "")

    def _select(self, now: int) -> Observation | Waiting:
        observed = self.streams.select(now, now, rules=self.rules)
        self.waiting = observed if isinstance(observed, Waiting) else self.waiting
        return observed

    def _offer(self, now: int) -> None:
        while self._next < len(self._coming) and self._coming[self._next][0] <= now:
            arrival, kind, item = self._coming[self._next]
            self._next += 1
            if kind == 0:
                self.streams.take_image(item.tag, item, arrival)
            elif kind == 1:
                told = (item.source, item.stamp_ns, item.names, item.positions, item.velocities)
                self.streams.joints.push(*told, steady_ns=arrival)
            elif self.streams.odometry is not None:
                self.streams.odometry.take(item, arrival)


def rows_between(replay: Replay, begin: int, last: int, rate_hz: float) -> Sequence[Row]:
    """The rows from the first observation at or after `begin` to `last` [ns], one per period; none without one."""
    first = replay.first_observation(begin, last)
    if first is None:
        return []
    count = int((last - first) * rate_hz / NANOSECONDS) + 1
    return [replay.row(first + round(k * NANOSECONDS / rate_hz)) for k in range(count)]
