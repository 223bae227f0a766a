"""Whether joint states can be true: no joint moves faster than it can, and nobody else tells where it is. Free of ROS.

The gate measures everything by them, so whoever publishes false ones drives the robot.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_control.observation.joint_reader import JointReader, JointSample
from qwen_vla_control.stamps import NANOSECONDS

MARGIN = 1.5  # how much faster than its limit a joint may be measured
JITTER = 0.02  # [s] by which stamps may be wrong
DOUBT = 0.3  # [s] ROS time without another leap, until joint states are believed again
PRESENT = 1.0  # [s] steady; whoever was heard within is still there

NameOf = Callable[[str, bytes], str]  # the node of a publisher of a topic


class JointStateDoubt:
    """Looks at every joint state that a reader took in.

    Attributes:
        until_ns: ROS time [ns] up to which joint states are not believed; 0 before the first leap.
    """

    def __init__(self, reader: JointReader, embodiment: Embodiment, name_of: NameOf) -> None:
        """Look at the joints that the reader was asked for; `name_of` is called with a topic and a publisher."""
        self._reader, self._name_of = reader, name_of
        self._names = reader.names[: len(reader.latest().vector)]
        limits = embodiment.limits
        self._speeds = np.array([limits[n].velocity if n in limits else np.inf for n in self._names])
        self.until_ns, self._text = 0, ""

    def record(self, before: JointSample, topic: str, publisher: bytes) -> None:
        """Compare with the positions `before` what a publisher has just told."""
        after, count = self._reader.latest(), len(self._names)
        elapsed = np.abs(after.stamps_ns[:count] - before.stamps_ns[:count]) / NANOSECONDS
        moved = np.abs(after.vector - before.vector)
        leaps = moved > self._speeds * (MARGIN * elapsed + JITTER)  # of unknown ones nothing can be said: NaN
        if not leaps.any():
            return
        joint = int(np.argmax(np.where(leaps, moved, 0.0)))
        self.until_ns = int(after.stamps_ns[joint]) + round(DOUBT * NANOSECONDS)
        self._text = (
            f"{topic}: '{self._names[joint]}' leaped by {moved[joint]:.3f} within {elapsed[joint]:.3f} s, which takes "
            f"more than its {self._speeds[joint]:.2f} per second, said {self._name_of(topic, publisher)}; is another "
            "node publishing there?"
        )

    def text(self, now_ns: int, steady_ns: int) -> str:
        """Say why joint states must not be believed at a ROS time and a steady time; empty when they may be."""
        return self._rivals(steady_ns) or (self._text if now_ns <= self.until_ns else "")

    def _rivals(self, steady_ns: int) -> str:
        """Say that two publishers tell the same joint."""
        reporters: dict[int, tuple[str, bytes]] = {}
        present = (part for part in self._reader.parts if steady_ns - part.heard_ns < PRESENT * NANOSECONDS)
        for part in present:
            who = self._reader.sources[part.source].topic, part.publisher
            for column in part.columns[part.columns < len(self._names)].tolist():
                other = reporters.setdefault(column, who)
                if other != who:
                    names = " and ".join(sorted(f"{self._name_of(*each)} on {each[0]}" for each in (who, other)))
                    return f"'{self._names[column]}' is told by two publishers, {names}; stop one of them"
        return ""
