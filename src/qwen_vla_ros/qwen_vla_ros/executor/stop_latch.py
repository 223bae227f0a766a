# SPDX-License-Identifier: Apache-2.0
"""What keeps the robot stopped until it is released: the stop service and the emergency stop. Free of ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qwen_vla_control.reasons import Reason, Violation

MOST_BUTTONS = 64  # pressed at once; any beyond them stay pressed
CROWD = b"crowd"


@dataclass
class Button:
    """A publisher whose last message is "pressed".

    Attributes:
        node: the node it belongs to, or those that it may belong to; empty before it was seen in the graph.
        beside: the publishers that were in the graph at the same time, itself included.
    """

    node: str = ""
    beside: set[bytes] = field(default_factory=set)


class StopLatch:
    """Closes automatically and opens only manually.

    The emergency stop is a std_msgs/Bool, true while it is pressed. Several buttons may publish it; each stays pressed
    until it publishes its own release. Releasing the last one does not let the robot move again; only `reset` does.
    Where the stop must be received (`required`), its silence counts as pressed.

    A button that leaves the graph while pressed (a broken cable, a computer that is off) stays pressed, whatever the
    others publish. Only a publisher that appears after it, such as the restarted button or an operator who publishes
    false manually, can release it.

    Publishers that cannot be distinguished have the identity b"". They count as one button, which is released only by
    whoever is alone in the graph, and was not there beside others while it was pressed: once all of them have left, by
    a later one.
    """

    def __init__(self, required: bool, timeout: float) -> None:
        """Start open; where the emergency stop is required, closed until it has been received.

        Args:
            required: silence is a stop.
            timeout: how long the topic may be silent where it is required [s, steady].
        """
        self._required, self._timeout = required, timeout
        self.stopped = False
        self._tripped = False
        self._pressed: dict[bytes, Button] = {}  # by publisher
        self._heard_ns: int | None = None

    @property
    def pressed(self) -> bool:
        """Whether any button is."""
        return bool(self._pressed)

    def press(self, publisher: bytes, steady_ns: int) -> bool:
        """Record that a button is pressed; True when that closes the latch."""
        self._heard_ns = steady_ns
        known = publisher in self._pressed or len(self._pressed) < MOST_BUTTONS
        self._pressed.setdefault(publisher if known else CROWD, Button())
        trips, self._tripped = not self._tripped, True
        return trips

    def look(self, present: Mapping[bytes, str]) -> None:
        """Record which of the pressed buttons are in the graph, and with whom; `present`: node by publisher."""
        for publisher, button in self._pressed.items():
            if publisher in present:
                button.node = present[publisher]
            elif not publisher and present:
                button.node = " or ".join(sorted(set(present.values())))
            else:
                continue
            button.beside |= present.keys()

    def release(self, publisher: bytes, present: Mapping[bytes, str], steady_ns: int) -> None:
        """Record that a button is released; `present` as in `look`."""
        self._heard_ns = steady_ns
        if publisher or self._can_only_be_one(present):
            self._pressed.pop(publisher, None)
        self.look(present)
        for other, button in list(self._pressed.items()):
            has_left = other and button.node and other not in present
            if has_left and publisher not in button.beside:
                del self._pressed[other]

    def _can_only_be_one(self, present: Mapping[bytes, str]) -> bool:
        """Whether a publisher that cannot be distinguished must be the one that pressed, or one that came later."""
        beside = self._pressed[b""].beside if b"" in self._pressed else set()
        is_later = not present.keys() <= beside
        return len(present) <= 1 and (is_later or len(beside) <= 1)

    def watch(self, steady_ns: int) -> bool:
        """Detect that a required emergency stop has fallen silent; True when that closes the latch."""
        if not self._silent(steady_ns) or self._tripped:
            return False
        # Before its first message there is nothing to reset; it only has to be awaited.
        self._tripped = self._heard_ns is not None
        return self._tripped

    def reset(self, steady_ns: int) -> str:
        """Open after an emergency stop; returns why not, empty when it is open."""
        if self._silent(steady_ns):
            return self._silent_text(steady_ns)
        if self._pressed:
            nodes = ", ".join(sorted(button.node or "an unknown node" for button in self._pressed.values()))
            return f"the emergency stop is still pressed by {nodes}; {self._remedy()}"
        self._tripped = False
        return ""

    def _remedy(self) -> str:
        """How the buttons are released."""
        if b"" in self._pressed and len(self._pressed[b""].beside) > 1:
            return (
                "which of its publishers pressed it cannot be told on this ROS distribution; if every button is known "
                "to be released, end all nodes that publish it, then publish false from a new one"
            )
        return (
            "release it there, or, if that node is gone and the button is known to be released, publish false from a "
            "new node"
        )

    def objection(self, steady_ns: int) -> Violation | None:
        """Why nothing may move; None when motion is allowed."""
        if self._tripped:
            return Violation(Reason.EMERGENCY_STOP, "the emergency stop was pressed; release it and call ~/reset_estop")
        if self._silent(steady_ns):
            return Violation(Reason.EMERGENCY_STOP, self._silent_text(steady_ns))
        if self.stopped:
            return Violation(Reason.STOPPED, "stopped; call ~/resume to continue")
        return None

    def _silent(self, steady_ns: int) -> bool:
        if not self._required:
            return False
        return self._heard_ns is None or (steady_ns - self._heard_ns) / 1e9 > self._timeout

    def _silent_text(self, steady_ns: int) -> str:
        since = "never" if self._heard_ns is None else f"{(steady_ns - self._heard_ns) / 1e9:.1f} s ago"
        return f"the emergency stop is required but was last received {since} (limit {self._timeout:.1f} s)"
