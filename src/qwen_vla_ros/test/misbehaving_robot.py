# SPDX-License-Identifier: Apache-2.0
"""A simulated robot that is made to misbehave, with an executor in front of it: what the tests of both share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from joint_chunks import turning_waists
from lifecycle_msgs.msg import Transition
from nav_msgs.msg import Odometry
from ros_peer import Peer, Processes

from embodiment_descriptions import load_robot
from qwen_vla_control.motion.base_path import integrated
from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_msgs.srv import Misbehave, ResetWorld

Fault = Misbehave.Request


class MisbehavingRobot(Peer):
    """The policy of a simulated robot.

    Attributes:
        simulator: the name of its node.
        executor: its process.
    """

    remapped: ClassVar[Mapping[str, str]] = {}  # names of executor_node

    def __init__(self, processes: Processes, robot: str = "widowx") -> None:
        super().__init__(simulated=True, embodiment=load_robot(robot))
        self._processes, self.simulator = processes, f"{robot}_sim"

    def start(self) -> None:
        """Start both nodes; returns when chunks are accepted but for their reasons."""
        self._processes.start(self.simulator, use_sim_time=True, seed=0, image_rate=0.0)
        self.executor = self._processes.start("executor_node", self.remapped, use_sim_time=True)
        self.wait_until_active("executor_node")
        self.silent.clear()
        self.wait_until_connected()

    def begin_anew(self) -> None:
        """Repair everything, and have robot and executor begin at home."""
        for service in ("resume", "reset_estop"):
            self.trigger(f"executor_node/{service}")
        self.transition("executor_node", Transition.TRANSITION_DEACTIVATE)
        assert self.call(ResetWorld, f"{self.simulator}/reset", ResetWorld.Request(seed=0)).success
        self.pass_time(0.5)
        assert self.transition("executor_node", Transition.TRANSITION_ACTIVATE)
        self.wait_until_connected()
        self.clear()

    def misbehave(self, fault: str, name: str = "", amount: float = 0.0, on: bool = True) -> None:
        response = self.misbehave_unchecked(Fault(fault=fault, name=name, amount=amount, on=on))
        assert response.success, response.message

    def misbehave_unchecked(self, request: Fault) -> Misbehave.Response:
        return self.call(Misbehave, f"{self.simulator}/misbehave", request)

    def push_by_hand(self, joint: str, amount: float, torque: bool = True) -> None:
        """Switch the torque off, move a joint, and switch the torque on again."""
        start = self.joints[joint]
        self.misbehave(Fault.NO_TORQUE)
        self.misbehave(Fault.MOVED, joint, amount)
        self.wait(lambda: abs(self.joints[joint] - start - amount) < 0.002, f"{joint} to be moved")
        if torque:
            self.misbehave(Fault.NO_TORQUE, on=False)

    def resynchronize(self) -> str:
        """Call ~/resynchronize once the joints rest; returns what was done."""
        called = self.wait(lambda: (done := self.trigger("executor_node/resynchronize")).success and done, "rest")
        return called.message

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
        status = self.wait(lambda: self.latest_diagnostics(f"{self.simulator}: limits"), "the simulator's judgment")
        return {item.key: float(item.value) for item in status.values if "joint" not in item.key}

    def assert_never_jumped(self, encoder: float = 0.0) -> None:
        """No servo was ever told to step, to be faster than its limit, or to go beyond a limit.

        A limp joint whose encoder is off by `encoder` [rad] makes that step when it is commanded again.
        """
        self.pass_time(0.3)
        limits = self.limits()
        print(limits)
        assert limits["longest step"] < 0.02 + encoder, limits
        assert limits["farthest beyond a position limit"] <= 1e-6 + encoder, limits
        assert encoder or limits["largest share of a speed limit"] <= 1.0, limits

    def assert_held(self, number: int, *reasons: Reason) -> ChunkReport:
        """A chunk was held for some of these reasons, and none was ever completed."""
        report = self.report(number, ChunkReport.HELD)
        assert set(report.reason_codes) <= set(reasons), report
        assert not [r for r in self.reports if r.verdict == ChunkReport.COMPLETED]
        return report

    def wait_until_told(self, problem: str) -> None:
        """Wait until executor_node reports a problem in its diagnostics."""
        name = "executor_node: execution"
        self.wait(
            lambda: (told := self.latest_diagnostics(name)) and problem in told.message, f"diagnostics: {problem}"
        )

    def wait_until_refused(self, reason: Reason, text: str, cause: Callable[[], object] = lambda: None) -> str:
        """Send chunks until one is refused for a reason with this text, and let what was held before come to rest.

        A chunk that overtakes the cause is accepted, and held.

        Args:
            reason: of the refusal.
            text: in its message.
            cause: called before each chunk; for what passes before a busy machine sends one.

        Returns:
            The message of the refusal.
        """

        def refused() -> str:
            cause()
            report = self.verdict(self.send(self.chunk()))
            return report.message if reason in report.reason_codes and text in report.message else ""

        message = self.wait(refused, f"a refusal: {text}")
        self.pass_time(0.15)
        self.clear()
        return message

    def refusal(self) -> tuple[list[int], str]:
        """Send a chunk that must be refused; returns why."""
        report = self.verdict(self.send(self.chunk()))
        assert report.verdict == report.REFUSED, report
        return report.reason_codes.tolist(), report.message


class MisbehavingArms(MisbehavingRobot):
    """The policy of two simulated arms."""

    def __init__(self, processes: Processes) -> None:
        super().__init__(processes, "aloha")

    def chunk(self, **changes) -> ActionChunk:
        """Both waists rotate by 0.4 rad within a second; `changes` are fields."""
        rows = turning_waists(self.embodiment, 0.4)
        fields = {"horizon": 50, "execution_horizon": 50, "data": rows.reshape(-1).tolist()}
        return super().chunk(**(fields | changes))

    def waists(self) -> np.ndarray:
        """Measured angles of the waists, left and right."""
        return np.array([self.joints[arm.joints[0]] for arm in self.embodiment.arms])


class MisbehavingBase(MisbehavingRobot):
    """The policy of a simulated base.

    Attributes:
        x: where the base is by its odometry [m].
    """

    remapped: ClassVar[Mapping[str, str]] = {"cmd_vel_nav": "cmd_vel"}

    def __init__(self, processes: Processes) -> None:
        super().__init__(processes, "mobile_base")
        self.x = 0.0
        self.hear(Odometry, self.embodiment.odometry.topic, self._on_odometry, 10)

    def _on_odometry(self, message: Odometry) -> None:
        self.x = message.pose.pose.position.x

    def chunk(self, **changes) -> ActionChunk:
        """Straight ahead at 0.15 m/s, for two seconds of four; `changes` are fields."""
        rows = integrated(np.zeros(3), np.tile([0.15, 0.0, 0.0], (8, 1)), self.embodiment.period)
        fields = {"horizon": 8, "execution_horizon": 4, "data": rows.astype(np.float32).reshape(-1).tolist()}
        return super().chunk(**(fields | changes))

    def assert_within_limits(self) -> None:
        """The base was never commanded faster than it may be."""
        limits = self.limits()
        print(limits)
        assert limits["velocities commanded"] > 0
        assert limits["largest share of the speed limit"] <= 1.0 and limits["largest share of the turning limit"] <= 1.0
