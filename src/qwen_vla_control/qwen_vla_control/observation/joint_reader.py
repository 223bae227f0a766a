# SPDX-License-Identifier: Apache-2.0
"""Where the joints are: the one reader of sensor_msgs/JointState, live and from a bag. Free of ROS and torch.

Joint states come on one topic or several (`joint_states` of the robot's YAML), from one publisher or several, and a
message may report only some of the joints: arm and gripper often have a broadcaster each. They are merged per joint,
and each joint has its own stamp and age. The rules are the same for every caller:

- Prefix: the URDF name is the topic's prefix + the name in the message. Of the topics whose prefix a joint's name
  begins with, those with the longest one report its position; what other topics report for it is ignored.
- Parts: of the messages that report a joint, those that report the most of the robot's joints count, and of several
  publishers of these the most recent one. A publisher that reports fewer does not take over when they fall silent: the
  joint is unknown then.
- NaN: a message is ignored if the position of a required joint is missing, given more than once, not finite or
  implausibly large.
- Gap: at a given time, a joint has the position of its nearest message, if that is near enough; nothing is
  interpolated.
- Clock: that of streams.Stream, separately for each part: a repeated or late stamp is ignored, one far before the
  newest starts over; age is ROS time, silence the steady clock, and a stamp from the future is a fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.commands import JointStates
from embodiment_descriptions.urdf import parse_urdf
from qwen_vla_control.observation.joint_parts import JointPart, Layout
from qwen_vla_control.observation.joint_source import JointSource
from qwen_vla_control.observation.streams import MAX_LEAD, NotObserved, Stamped, Stream, too_far_apart
from qwen_vla_control.reasons import Reason
from qwen_vla_control.stamps import NANOSECONDS, stamp_of

FARTHEST = 1e4  # [rad | m] a position beyond is a fault, like one that is not finite
MOST_NAMES = 1000  # a message with more is not from a robot
KEPT = 4096  # messages of each part: four seconds at 1 kHz
LAYOUTS = 4  # orders of names cached per topic; a publisher that changes it with every message does not fill memory
PARTS = 32  # kept over all topics; the one silent for longest is dropped


@dataclass(frozen=True)
class JointSample:
    """Where the joints are, or were.

    Attributes:
        names: URDF names (n,): first the required joints, in their order, then the robot's other reported joints.
        stamps_ns: when each was measured (n,) [ns, ROS time]; 0 where the position is unknown.
        positions: as reported (n,) [rad | m]; NaN where unknown.
        unwrapped: the same, but continuous joints continue beyond pi, however they are reported [rad | m].
        velocities: as reported (n,) [rad/s | m/s]; NaN where unknown.
        required: how many joints are required.
    """

    names: tuple[str, ...]
    stamps_ns: np.ndarray
    positions: np.ndarray
    unwrapped: np.ndarray
    velocities: np.ndarray
    required: int

    @property
    def vector(self) -> np.ndarray:
        """Positions of the required joints, in their order [rad | m]; continuous ones unwrapped."""
        return self.unwrapped[: self.required]

    @property
    def known(self) -> dict[str, float]:
        """Positions as reported, by URDF name [rad | m], of all joints whose position is known."""
        pairs = zip(self.names, self.positions.tolist(), strict=True)
        return {name: position for name, position in pairs if not math.isnan(position)}


class JointReader:
    """Receives joint states and returns where the joints are, and were.

    Attributes:
        embodiment: the robot.
        names: the tracked joints: first the required ones, then all other movable ones.
        sources: one per entry of `joint_states` in the robot's YAML, in that order.
        missing, lost: reasons for an unknown state, and for one that stopped during a motion.
    """

    missing, lost = Reason.NO_JOINT_STATE, Reason.JOINT_STATE_LOST

    def __init__(
        self,
        embodiment: Embodiment,
        joints: Sequence[str] | None = None,
        resolve: Callable[[str], str] = str,
        timeout: float = math.inf,
        kept: int = KEPT,
    ) -> None:
        """Create an empty reader.

        Args:
            embodiment: names the topics, the joints and their kinds.
            joints: URDF names of the required joints, in the order of the vectors; by default the commanded ones.
            resolve: the name of a topic in messages to the user.
            timeout: age and silence after which a position is unknown [s], even if the robot's YAML allows more.
            kept: messages kept of each part.
        """
        self.embodiment, self._kept = embodiment, kept
        required = embodiment.joint_names if joints is None else tuple(joints)
        kinds = {name: joint.type for name, joint in parse_urdf(embodiment.urdf).joints.items()}
        others = (name for name, kind in kinds.items() if kind != "fixed" and name not in required)
        self.names = (*required, *others)
        self._required = len(required)
        self._column = {name: column for column, name in enumerate(self.names)}
        self._continuous = np.array([kinds[name] == "continuous" for name in self.names], bool)
        self._reporters = [_reporters(embodiment.joint_states, name) for name in self.names]
        self._layouts: list[dict[tuple[str, ...], Layout]] = [{} for _ in embodiment.joint_states]
        self._parts: dict[tuple[int, bytes, bytes], JointPart] = {}
        self.sources = [
            JointSource(self, index, resolve(source.topic), min(source.max_age_s, timeout))
            for index, source in enumerate(embodiment.joint_states)
        ]

    # --- in -----------------------------------------------------------------------------------------------------------

    def push(
        self,
        source: int,
        stamp_ns: int,
        names: Sequence[str],
        positions: Sequence[float],
        velocities: Sequence[float],
        steady_ns: int,
        publisher: bytes = b"",
    ) -> bool:
        """Store what one message reports.

        Args:
            source: index of the topic in the robot's YAML.
            stamp_ns: of the message [ns, ROS time].
            names: as in the message.
            positions: of the joints, in their order [rad | m].
            velocities: of the joints, in their order, or none [rad/s | m/s].
            steady_ns: when it arrived [ns, steady clock].
            publisher: the sender, where it is known.

        Returns:
            False when the message is ignored.
        """
        origin = self.sources[source]
        origin.received += 1
        if len(names) > MOST_NAMES:
            return False
        layout = self._layout(source, tuple(names))
        if not layout.columns.size:
            return False  # of another robot
        row, rates = _filled(positions, len(names))[layout.places], _filled(velocities, len(names))[layout.places]
        if self._is_defective(origin, layout, row):
            return False
        return self._part(source, publisher, layout, steady_ns).push(stamp_ns, layout, row, rates, steady_ns)

    def take(self, source: int, message: Any, steady_ns: int, publisher: bytes = b"") -> bool:
        """Store a sensor_msgs/JointState, from rclpy or a bag; see `push`."""
        m = message
        return self.push(source, stamp_of(m), m.name, m.position, m.velocity, steady_ns, publisher)

    def _layout(self, source: int, names: tuple[str, ...]) -> Layout:
        known = self._layouts[source]
        if names not in known:
            if len(known) == LAYOUTS:
                known.clear()
            known[names] = self._new_layout(source, names)
        return known[names]

    def _new_layout(self, source: int, names: tuple[str, ...]) -> Layout:
        full = [self.embodiment.joint_states[source].prefix + name for name in names]
        reported = [(self._column[name], place) for place, name in enumerate(full) if name in self._column]
        reported = sorted((column, place) for column, place in reported if source in self._reporters[column])
        columns = [column for column, _ in reported]
        repeated = {c for c in columns if columns.count(c) > 1}
        duplicates = {c: f"its messages name {self.names[c]} more than once" for c in repeated}
        columns = np.array(columns, int)
        places = np.array([place for _, place in reported], int)
        return Layout(columns, places, self._continuous[columns], duplicates)

    def _is_defective(self, origin: JointSource, layout: Layout, row: np.ndarray) -> bool:
        """Whether a message must not be used; what is wrong with it is recorded."""
        for column in layout.columns.tolist() if origin.defects else ():
            origin.defects.pop(column, None)
        origin.defects |= layout.duplicates
        if not (np.abs(row) <= FARTHEST).all():  # false for NaN
            for column, value in zip(layout.columns.tolist(), row.tolist(), strict=True):
                if column < self._required and not abs(value) <= FARTHEST:
                    origin.defects[column] = f"its messages report {self.names[column]} at {value}"
        return any(column in origin.defects for column in layout.columns.tolist()) if origin.defects else False

    def _part(self, source: int, publisher: bytes, layout: Layout, steady_ns: int) -> JointPart:
        key = source, publisher, layout.columns.tobytes()
        if key not in self._parts:
            if len(self._parts) == PARTS:
                del self._parts[max(self._parts, key=lambda k: self._parts[k].stream.silence(steady_ns))]
            origin, before = self.sources[source], self.latest().unwrapped[layout.columns]
            own = [self.names[column] for column in layout.columns if column < self._required]
            name = origin.name if len(own) == len(origin.joints) else f"{origin.name} ({', '.join(own)})"
            stream = Stream(name, origin.topic, origin.max_age, self._kept, noun="joint state")
            self._parts[key] = JointPart(source, publisher, layout.columns, len(own), stream, before)
        return self._parts[key]

    # --- out ----------------------------------------------------------------------------------------------------------

    @property
    def parts(self) -> list[JointPart]:
        """What is reported, by topic, publisher and set of joints."""
        return list(self._parts.values())

    def columns_of(self, source: int) -> list[int]:
        """Columns of the required joints that a topic may report."""
        return [column for column in range(self._required) if source in self._reporters[column]]

    def sources_of(self, column: int) -> list[JointSource]:
        """Topics that may report a joint."""
        return [self.sources[index] for index in sorted(self._reporters[column])]

    def latest(self) -> JointSample:
        """The newest position of each joint."""
        return self._merged([(part, item) for part in self._by_weight() if (item := part.stream.latest) is not None])

    def near(self, stamp_ns: int, max_gap: float) -> JointSample:
        """The position of each joint nearest to a ROS time; unknown where that is farther away than `max_gap` [s]."""
        near = [(part, item) for part in self.parts if (item := part.stream.nearest(stamp_ns)) is not None]
        sample = self._merged(sorted(near, key=lambda pair: (pair[0].rank, -abs(pair[1].stamp_ns - stamp_ns))))
        far = np.abs(sample.stamps_ns - stamp_ns) > max_gap * NANOSECONDS
        for values in (sample.positions, sample.unwrapped, sample.velocities):
            values[far] = np.nan
        sample.stamps_ns[far] = 0
        return sample

    def at(self, stamp_ns: int, max_gap: float) -> JointSample:
        """Like `near`, with every required joint known.

        Raises:
            NotObserved: a required joint has no position within `max_gap` [s]; NO_JOINT_STATE.
        """
        sample = self.near(stamp_ns, max_gap)
        unknown = np.flatnonzero(np.isnan(sample.vector))
        if unknown.size:
            raise self._not_observed(int(unknown[0]), stamp_ns, max_gap)
        return sample

    def age(self, now_ns: int) -> float:
        """Age of the oldest of the newest positions [s, ROS time]; infinite where one is unknown."""
        sample = self.latest()
        if not self._required or np.isnan(sample.vector).any():
            return math.inf
        return float(now_ns - sample.stamps_ns[: self._required].min()) / NANOSECONDS

    def fault(self, now_ns: int, steady_ns: int) -> str:
        """Why the positions are unknown at a ROS time and a steady time; empty when they are known."""
        orphans = [self.names[column] for column in range(self._required) if not self._reporters[column]]
        if orphans:
            prefixes = ", ".join(repr(source.source.prefix) for source in self.sources)
            return f"joint states: the name of {', '.join(orphans)} begins with none of the prefixes {prefixes}"
        faults = (s.fault(now_ns, steady_ns, s.max_age, s.max_age, MAX_LEAD) for s in self.sources if s.joints)
        return next((fault for fault in faults if fault), "")

    def owners(self) -> list[JointPart | None]:
        """By required joint: the part that reports its position."""
        found: list[JointPart | None] = [None] * len(self.names)
        for part in self._by_weight():
            for column in part.columns.tolist():
                found[column] = part
        return found[: self._required]

    def streams(self) -> list[Stream]:
        """The streams that report the required joints."""
        return [part.stream for part in dict.fromkeys(self.owners()) if part is not None]

    def _by_weight(self) -> list[JointPart]:
        return sorted(self.parts, key=lambda part: (part.rank, part.heard_ns, part.stream.newest_ns))

    def _merged(self, reported: Sequence[tuple[JointPart, Stamped]]) -> JointSample:
        """Later entries override earlier ones, joint by joint."""
        count = len(self.names)
        stamps = np.zeros(count, np.int64)
        positions, unwrapped, velocities = rows = np.full((3, count), np.nan)
        for part, item in reported:
            stamps[part.columns] = item.stamp_ns
            rows[:, part.columns] = item.message
        return JointSample(self.names, stamps, positions, unwrapped, velocities, self._required)

    def _not_observed(self, column: int, stamp_ns: int, max_gap: float) -> NotObserved:
        owner, sources = self.owners()[column], self.sources_of(column)
        gap = math.inf if owner is None else owner.stream.gap(stamp_ns)
        name = sources[0].name if sources else "joint states"
        topics = " or ".join(source.topic for source in sources)
        text = too_far_apart(name, f"position of {self.names[column]}", topics, gap, max_gap)
        return NotObserved(self.missing, name, text)


def _reporters(sources: Sequence[JointStates], joint: str) -> frozenset[int]:
    """Which topics may report a joint: of those whose prefix its name begins with, the ones with the longest prefix."""
    fits = {index: len(source.prefix) for index, source in enumerate(sources) if joint.startswith(source.prefix)}
    return frozenset(index for index, length in fits.items() if length == max(fits.values()))


def _filled(values: Sequence[float], count: int) -> np.ndarray:
    """The values of a message, NaN where it has fewer than names."""
    given = np.asarray(values, float)[:count]
    return given if given.size == count else np.concatenate([given, np.full(count - given.size, np.nan)])
