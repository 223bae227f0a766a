"""What keeps the robot stopped until somebody says otherwise: the stop service and the emergency stop. Free of ROS."""

from __future__ import annotations

from qwen_vla_control.reasons import Reason, Violation


class StopLatch:
    """Closes by itself and opens only by hand.

    The emergency stop is a std_msgs/Bool, true while it is pressed. Releasing the button does not let the robot move
    again; `reset` does, and only once the button is released. Where the stop must be heard (`required`), its silence
    counts as pressed.
    """

    def __init__(self, required: bool, timeout: float) -> None:
        """Begin open; where the emergency stop is required, closed until it has been heard.

        Args:
            required: silence is a stop.
            timeout: how long the topic may be silent where it is required [s, steady].
        """
        self._required, self._timeout = required, timeout
        self.stopped = False
        self._tripped = False
        self._pressed = False
        self._heard_ns: int | None = None

    def on_emergency_stop(self, pressed: bool, steady_ns: int) -> bool:
        """Take note of a message; True when it closes the latch."""
        self._pressed, self._heard_ns = pressed, steady_ns
        trips = pressed and not self._tripped
        self._tripped |= pressed
        return trips

    def watch(self, steady_ns: int) -> bool:
        """Notice that a required emergency stop has fallen silent; True when that closes the latch."""
        if not self._silent(steady_ns) or self._tripped:
            return False
        # Before it was ever heard there is nothing to reset, only to wait for.
        self._tripped = self._heard_ns is not None
        return self._tripped

    def reset(self, steady_ns: int) -> str:
        """Open after an emergency stop; returns why not, empty when it is open."""
        if self._silent(steady_ns):
            return self._silent_text(steady_ns)
        if self._pressed:
            return "the emergency stop is still pressed"
        self._tripped = False
        return ""

    def objection(self, steady_ns: int) -> Violation | None:
        """Why nothing may move; None when it may."""
        if self._tripped:
            return Violation(Reason.EMERGENCY_STOP, "the emergency stop was pressed; release it, then ~/reset_estop")
        if self._silent(steady_ns):
            return Violation(Reason.EMERGENCY_STOP, self._silent_text(steady_ns))
        if self.stopped:
            return Violation(Reason.STOPPED, "stopped; call ~/resume to go on")
        return None

    def _silent(self, steady_ns: int) -> bool:
        if not self._required:
            return False
        return self._heard_ns is None or (steady_ns - self._heard_ns) / 1e9 > self._timeout

    def _silent_text(self, steady_ns: int) -> str:
        since = "never" if self._heard_ns is None else f"{(steady_ns - self._heard_ns) / 1e9:.1f} s ago"
        return f"the emergency stop is required but was last heard {since} (limit {self._timeout:.1f} s)"
