"""A simulated WidowX that is made to misbehave, with an executor in front of it: what the tests of both share."""

from __future__ import annotations

import numpy as np
from lifecycle_msgs.msg import Transition
from ros_peer import Peer, Processes

from qwen_vla_msgs.srv import Misbehave, ResetWorld

SIMULATOR = "widowx_sim"
Fault = Misbehave.Request


class MisbehavingRobot(Peer):
    """The policy of a simulated robot.

    Attributes:
        executor: its process.
    """

    def __init__(self, processes: Processes) -> None:
        super().__init__(simulated=True)
        self._processes = processes

    def start(self) -> None:
        """Start both nodes; returns when chunks are accepted but for their reasons."""
        self._processes.start(SIMULATOR, use_sim_time=True, seed=0, image_rate=0.0)
        self.executor = self._processes.start("executor_node", use_sim_time=True)
        self.wait_until_active("executor_node")
        self.silent.clear()
        self.wait_until_connected()

    def begin_anew(self) -> None:
        """Repair everything, and have robot and executor begin at home."""
        for service in ("resume", "reset_estop"):
            self.trigger(f"executor_node/{service}")
        self.transition("executor_node", Transition.TRANSITION_DEACTIVATE)
        assert self.call(ResetWorld, f"{SIMULATOR}/reset", ResetWorld.Request(seed=0)).success
        self.pass_time(0.5)
        assert self.transition("executor_node", Transition.TRANSITION_ACTIVATE)
        self.wait_until_connected()
        self.clear()

    def misbehave(self, fault: str, name: str = "", amount: float = 0.0, on: bool = True) -> None:
        request = Misbehave.Request(fault=fault, name=name, amount=amount, on=on)
        response = self.call(Misbehave, f"{SIMULATOR}/misbehave", request)
        assert response.success, response.message

    def push_by_hand(self, joint: str, amount: float, torque: bool = True) -> None:
        """Switch the torque off, move a joint, and switch the torque on again."""
        start = self.joints[joint]
        self.misbehave(Fault.NO_TORQUE)
        self.misbehave(Fault.MOVED, joint, amount)
        self.wait(lambda: abs(self.joints[joint] - start - amount) < 0.002, f"{joint} to be moved")
        if torque:
            self.misbehave(Fault.NO_TORQUE, on=False)

    def pass_time(self, seconds: float) -> None:
        """Wait for so much simulated time."""
        start = self.node.get_clock().now().nanoseconds
        self.wait(lambda: self.node.get_clock().now().nanoseconds - start > seconds * 1e9, f"{seconds} s to pass")

    def arm(self) -> np.ndarray:
        """Measured positions of the arm joints."""
        return np.array([self.joints[name] for name in self.embodiment.arms[0].joints])

    def limits(self) -> dict[str, float]:
        """What the simulator has seen its servos told so far: the largest share of a speed limit, and so on."""
        with self.changed:
            self.received["/diagnostics"].clear()
        status = self.wait(lambda: self.latest_diagnostics(f"{SIMULATOR}: limits"), "the simulator's judgment")
        return {item.key: float(item.value) for item in status.values if "joint" not in item.key}

    def assert_never_jumped(self) -> None:
        """No servo was ever told to step, to be faster than its limit, or to go beyond a limit."""
        self.pass_time(0.3)
        limits = self.limits()
        print(limits)
        assert limits["longest step"] < 0.02, limits
        assert limits["largest share of a speed limit"] <= 1.0, limits
        assert limits["farthest beyond a position limit"] <= 1e-6, limits

    def refusal(self) -> tuple[list[int], str]:
        """Send a chunk that must be refused; returns why."""
        report = self.verdict(self.send(self.chunk()))
        assert report.verdict == report.REFUSED, report
        return report.reason_codes.tolist(), report.message
