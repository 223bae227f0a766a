# SPDX-License-Identifier: Apache-2.0
"""One topic of joint states, for messages to the user and diagnostics: what it tells, how fast, and what is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from embodiment_descriptions import Embodiment
from embodiment_descriptions.commands import JointStates
from qwen_vla_control.observation.joint_parts import JointPart
from qwen_vla_control.observation.streams import IS_THE_DRIVER_RUNNING, Stream


class ToldJoints(Protocol):
    """What all topics of a robot tell together: a JointReader."""

    embodiment: Embodiment
    names: tuple[str, ...]

    @property
    def parts(self) -> list[JointPart]: ...
    def columns_of(self, source: int) -> list[int]: ...
    def sources_of(self, column: int) -> list[JointSource]: ...
    def owners(self) -> list[JointPart | None]: ...


class JointSource:
    """One topic of a JointReader, for messages to the user and diagnostics; it can be asked what a Stream can be asked.

    Attributes:
        source: as the robot's YAML has it.
        name, topic: for messages to the user.
        joints: those of the joints asked for that this topic may tell.
        max_age: age beyond which a position must not be used [s].
        remedy: how the topic is offered, or what to do to have it offered; part of the messages.
        received: messages so far.
        defects: by column of the joints asked for, what was wrong with the last message that named it.
    """

    def __init__(self, reader: ToldJoints, index: int, topic: str, max_age: float) -> None:
        """Look at the topic number `index` of a reader."""
        self._reader, self._index = reader, index
        self.source: JointStates = reader.embodiment.joint_states[index]
        self.name = f"joint states '{self.source.prefix}'" if self.source.prefix else "joint states"
        self.topic, self.max_age, self.remedy, self.received = topic, max_age, IS_THE_DRIVER_RUNNING, 0
        self._columns = reader.columns_of(index)
        self.joints = tuple(reader.names[column] for column in self._columns)
        self.defects: dict[int, str] = {}

    @property
    def publishers(self) -> dict[bytes, set[str]]:
        """By publisher: which of the joints asked for it has told on this topic; unknown ones by their joints."""
        told: dict[bytes, set[str]] = {}
        for part in self._reader.parts:
            if part.source == self._index:
                own = (self._reader.names[column] for column in part.columns if column in self._columns)
                told.setdefault(part.publisher or part.columns.tobytes(), set()).update(own)
        return told

    @property
    def repeated(self) -> int:
        """Messages with the newest stamp of their part again."""
        return sum(stream.repeated for stream in self._streams())

    @property
    def late(self) -> int:
        """Messages with an older stamp than the newest of their part."""
        return sum(stream.late for stream in self._streams())

    def rate(self) -> float:
        """Messages per second of the part that comes most seldom, by stamps [Hz]; 0 without any."""
        return min((part.stream.rate() for part in self._owners()), default=0.0)

    def age(self, now_ns: int) -> float:
        """Age of the oldest of the newest positions [s, ROS time]; infinite without any."""
        return max((part.stream.age(now_ns) for part in self._owners()), default=math.inf)

    def silence(self, steady_ns: int) -> float:
        """How long the part has been silent that has been silent for longest [s, steady clock]."""
        return max((part.stream.silence(steady_ns) for part in self._owners()), default=math.inf)

    def fault(
        self,
        now_ns: int,
        steady_ns: int,
        max_age: float,
        max_silence: float,
        max_lead: float = math.inf,
        max_identical: float = math.inf,
    ) -> str:
        """Say why the positions that this topic may tell must not be used now, see Stream.fault."""
        owners = self._reader.owners()
        lacking = [column for column in self._columns if owners[column] is None]
        if lacking:
            return self._lacking(lacking)
        for part in self._owners():
            part.stream.remedy = self._defect(part.columns.tolist()) or self.remedy
            fault = part.stream.fault(now_ns, steady_ns, max_age, max_silence, max_lead, max_identical)
            if fault:
                return fault
        return ""

    def _lacking(self, columns: Sequence[int]) -> str:
        names = ", ".join(self._reader.names[column] for column in columns)
        whole = "joint state" if len(columns) == len(self._columns) else f"position of {names}"
        sources = self._reader.sources_of(columns[0])
        topics = " or ".join(source.topic for source in sources)
        heard = all(source.received for source in sources)
        advice = f"its messages have no position for {names}" if heard else self.remedy
        return f"{self.name}: no {whole} yet on {topics}; {self._defect(columns) or advice}"

    def _defect(self, columns: Sequence[int]) -> str:
        return next((self.defects[column] for column in columns if column in self.defects), "")

    def _owners(self) -> list[JointPart]:
        owners = dict.fromkeys(self._reader.owners())
        return [part for part in owners if part is not None and part.source == self._index]

    def _streams(self) -> list[Stream]:
        return [part.stream for part in self._reader.parts if part.source == self._index]
