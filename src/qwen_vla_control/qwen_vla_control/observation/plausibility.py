# SPDX-License-Identifier: Apache-2.0
"""Whether joint states and odometry are plausible: no joint or base moves faster than it can, and one node reports it.

The gate judges everything by them, so false ones would drive the robot. Free of ROS.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.angles import wrapped
from embodiment_descriptions.config import BaseLimits
from qwen_vla_control.observation.joint_parts import JointPart
from qwen_vla_control.observation.joint_reader import JointReader, JointSample
from qwen_vla_control.observation.odometry_reader import BasePose, OdometryReader
from qwen_vla_control.stamps import NANOSECONDS

MARGIN = 1.5  # how much faster than its limit a joint or a base may be measured
JITTER = 0.02  # [s] by which stamps may be wrong
DISTRUST = 0.3  # [s] ROS time without another jump, until a state is believed again
PUBLISHER_TIMEOUT = 1.0  # [s] steady; a publisher that was heard within is still there

CORRECTION, TURNED = 0.05, 0.1  # [m], [rad] by which a filter may correct a pose between two messages

UNKNOWN = b""  # the publisher where the middleware does not tell it
NameOf = Callable[[str, bytes], str]  # the node of a publisher of a topic; of an unknown one, those that it may be
CountOn = Callable[[str], int]  # publishers of a topic in the graph


class Plausibility(ABC):
    """Checks every message about a robot's state that a reader has taken.

    Attributes:
        distrusted_until_ns: ROS time [ns] up to which the state is not believed; 0 before the first jump.
    """

    def __init__(self, name_of: NameOf, count_on: CountOn) -> None:
        """Believe everything; `name_of` is called with a topic and a publisher, `count_on` where it is unknown."""
        self._name_of, self._count_on = name_of, count_on
        self.distrusted_until_ns, self._text = 0, ""

    def text(self, now_ns: int, steady_ns: int) -> str:
        """Say why the state must not be believed at a ROS time and a steady time; empty when it may be."""
        return self._duplicates(steady_ns) or (self._text if now_ns <= self.distrusted_until_ns else "")

    @abstractmethod
    def _duplicates(self, steady_ns: int) -> str:
        """Name the publishers that report the same."""

    def _begin(self, stamp_ns: int, text: str) -> None:
        self.distrusted_until_ns, self._text = stamp_ns + round(DISTRUST * NANOSECONDS), text


class JointStatePlausibility(Plausibility):
    """Checks joint states."""

    def __init__(self, reader: JointReader, embodiment: Embodiment, name_of: NameOf, count_on: CountOn) -> None:
        """Look at the joints that the reader was asked for."""
        super().__init__(name_of, count_on)
        self._reader = reader
        self._names = reader.names[: len(reader.latest().vector)]
        limits = embodiment.limits
        self._speeds = np.array([limits[n].velocity if n in limits else np.inf for n in self._names])

    def record(self, before: JointSample, topic: str, publisher: bytes) -> None:
        """Compare the positions `before` with what a publisher has just reported."""
        after, count = self._reader.latest(), len(self._names)
        elapsed = np.abs(after.stamps_ns[:count] - before.stamps_ns[:count]) / NANOSECONDS
        moved = np.abs(after.vector - before.vector)
        jumps = moved > self._speeds * (MARGIN * elapsed + JITTER)  # NaN, of unknown ones, never exceeds
        if not jumps.any():
            return
        joint = int(np.argmax(np.where(jumps, moved, 0.0)))
        text = (
            f"{topic}: '{self._names[joint]}' jumped by {moved[joint]:.3f} within {elapsed[joint]:.3f} s, faster "
            f"than its {self._speeds[joint]:.2f} per second, published by {self._name_of(topic, publisher)}; "
            "is another node publishing there?"
        )
        self._begin(int(after.stamps_ns[joint]), text)

    def _duplicates(self, steady_ns: int) -> str:
        reporters: dict[int, tuple[str, bytes]] = {}
        present = [part for part in self._reader.parts if steady_ns - part.heard_ns < PUBLISHER_TIMEOUT * NANOSECONDS]
        for part in present:
            who = self._reader.sources[part.source].topic, part.publisher
            for column in part.columns[part.columns < len(self._names)].tolist():
                other = reporters.setdefault(column, who)
                if other != who:
                    names = " and ".join(sorted(f"{self._name_of(*each)} on {each[0]}" for each in (who, other)))
                    return f"two publishers report '{self._names[column]}': {names}; stop one of them"
        return self._indistinct(present)

    def _indistinct(self, present: Sequence[JointPart]) -> str:
        """Name those that cannot be distinguished, unless there are as many sets of joints, none in two of them."""
        for index, source in enumerate(self._reader.sources):
            told = [set(p.columns.tolist()) for p in present if p.source == index and p.publisher == UNKNOWN]
            count = self._count_on(source.topic) if told else 0
            if count > 1 and (len(told) < count or sum(map(len, told)) > len(set().union(*told))):
                who = self._name_of(source.topic, UNKNOWN)
                return f"two publishers report the same joints on {source.topic}; stop {who}"
        return ""


class OdometryPlausibility(Plausibility):
    """Checks the pose of a base: the odometry frame must be continuous (REP 105), wherever the base is in a map."""

    def __init__(self, reader: OdometryReader, limits: BaseLimits, name_of: NameOf, count_on: CountOn) -> None:
        """Look at the poses of a base with these limits."""
        super().__init__(name_of, count_on)
        self._reader, self._limits = reader, limits
        self._heard: dict[bytes, int] = {}  # by publisher: when last [ns, steady]

    def record(self, before: BasePose | None, publisher: bytes, steady_ns: int) -> None:
        """Compare the pose `before` with what a publisher has just reported."""
        self._heard[publisher] = steady_ns
        after, topic = self._reader.latest(), self._reader.stream.topic
        if before is None or after is None or after.stamp_ns <= before.stamp_ns:
            return
        elapsed = (after.stamp_ns - before.stamp_ns) / NANOSECONDS
        x, y, heading = after.vector - before.vector
        distance, turned = math.hypot(x, y), abs(float(wrapped(heading)))
        time = MARGIN * elapsed + JITTER
        if (
            distance <= self._limits.max_linear * time + CORRECTION
            and turned <= self._limits.max_angular * time + TURNED
        ):
            return
        text = (
            f"{topic}: the base jumped by {distance:.3f} m and {turned:.3f} rad within {elapsed:.3f} s, faster "
            f"than its {self._limits.max_linear:.2f} m/s and {self._limits.max_angular:.2f} rad/s, published by "
            f"{self._name_of(topic, publisher)}; is another node publishing there, or did the odometry frame jump?"
        )
        self._begin(after.stamp_ns, text)

    def _duplicates(self, steady_ns: int) -> str:
        self._heard = {who: at for who, at in self._heard.items() if steady_ns - at < PUBLISHER_TIMEOUT * NANOSECONDS}
        topic = self._reader.stream.topic
        if UNKNOWN in self._heard and self._count_on(topic) > 1:
            return f"{topic} has several publishers; stop all but {self._name_of(topic, UNKNOWN)}"
        if len(self._heard) < 2:
            return ""
        names = " and ".join(sorted(self._name_of(topic, who) for who in self._heard))
        return f"{topic} has several publishers, {names}; stop all but one of them"
