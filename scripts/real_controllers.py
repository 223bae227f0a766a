# SPDX-License-Identifier: Apache-2.0
"""Checks executor_node, and what the simulated controllers are like, against a real controller_manager.

Start the controllers of the WidowX or ALOHA with mock hardware, or its simulator, and nothing that commands them:

    ros2 launch qwen_vla_ros widowx.launch.py hardware:=mock policy:=none autostart:=false
    .venv/bin/python scripts/real_controllers.py [--robot aloha] [--json FILE]

The program then starts an executor_node of its own, `checked_executor`, behind a relay of joint states that lies as a
robot does that somebody has moved, that does not follow, or whose joints have several publishers. It judges by the
`~/controller_state` of an arm's controller: no reference may step. Then it sends that controller thirty messages that a
policy should not, and tells where the simulated controller judges otherwise. Without a controller manager in the graph
it says so and ends with 0; it never runs on anything but mock hardware and simulators.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.publisher import Publisher
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodiment_descriptions import load_robot, resource_path
from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_rclpy.messages import time_message
from qwen_vla_rclpy.optional_interfaces import MissingInterface, interface
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_ros.ros.environment import ros_environment
from qwen_vla_ros.ros.spinning_node import NoAnswer, SpinningNode
from qwen_vla_ros.simulation.child_processes import ChildProcesses
from qwen_vla_sim.controllers import joint_trajectory_controller as simulated
from qwen_vla_sim.controllers.stand_ins import trajectory_from_message

EXECUTOR = "checked_executor"
# Controllers of each robot: of an arm, which is checked, and of what else must not move alone.
CONTROLLERS = {
    "widowx": ("arm_controller", "gripper_controller"),
    "aloha": ("follower_left_controller", "follower_right_controller"),
}
MANAGER = "controller_manager/switch_controller"
MOCK = ("mock_components/GenericSystem", "fake_components/GenericSystem")
SEARCH = 5.0  # [s] for the controller manager
PATIENCE = 30.0  # [s]
RATE = 50.0  # [Hz] of joint states and heartbeat
MOVED = 0.5  # [rad] of the waist
BENT = 0.5  # [rad] of the elbow, by a chunk
EXECUTED = 1.6  # [s] of a chunk, if it is that long
HAND_SPEED = 0.5  # [rad/s]
LONGEST_STEP = 0.02  # [rad] of a reference within 1 / RATE
BEYOND = 0.02  # [rad]
ROW = (
    "{message}: {real}, reference moved {moved:.4f} with steps to {step:.4f}, joints {furthest:.4f} at up to "
    "{fastest:.2f}/s; simulated: {simulated}"
)


class Failed(AssertionError):
    """A scene did not go as it must; the text says what happened."""


def controlled(robot: str, controller: str) -> tuple[str, ...]:
    """The joints of a controller, by its parameter file."""
    content = yaml.safe_load(resource_path(f"config/controllers/{robot}.yaml").read_text())
    return tuple(content[f"/**/{controller}"]["ros__parameters"]["joints"])


def nanoseconds(message) -> int:
    """The stamp of a message."""
    return Time.from_msg(message.header.stamp).nanoseconds


def longest(before: dict[str, float], after: dict[str, float]) -> float:
    """The longest way of a joint between two of its positions [rad | m]; infinite where one is not finite."""
    ways = [abs(position - before.get(name, position)) for name, position in after.items()]
    return max((way if math.isfinite(way) else math.inf for way in ways), default=0.0)


class Relay:
    """Joint states as the executor is told them.

    Attributes:
        positions: as last heard [rad | m].
        offsets: what is added to each joint [rad | m].
        frozen: positions that are told instead; None: those that are heard.
        furthest: how far a joint has been from where it was at `begin` [rad | m].
        fastest: highest speed of a joint since then [rad/s | m/s].
    """

    def __init__(self, node: SpinningNode, joints: tuple[str, ...], parts: list[tuple[str, ...]]) -> None:
        self.positions: dict[str, float] = {}
        self.begin()
        self.offsets = dict.fromkeys(joints, 0.0)
        self.frozen: dict[str, float] | None = None
        self._goals = dict(self.offsets)
        self._parts, self._peer = parts, node
        self._publishers = [self._new_publisher()]
        node.hear(JointState, "joint_states", self._take, 10)
        node.node.create_timer(1 / RATE, self._tell)

    def divide(self, divided: bool) -> None:
        """Have a publisher for each part, or one for all: where publishers are not told apart, two would be doubted."""

        def change() -> None:
            while len(self._publishers) > 1:
                self._peer.node.destroy_publisher(self._publishers.pop())
            if divided:
                self._publishers += [self._new_publisher() for _ in self._parts[1:]]

        self._peer.in_turn(change)

    def _new_publisher(self) -> Publisher:
        return self._peer.node.create_publisher(JointState, f"{EXECUTOR}/joint_states", 10)

    def push(self, joint: str, by: float) -> None:
        """Move a joint by hand, slowly."""
        self._goals[joint] = by

    @property
    def told(self) -> dict[str, float]:
        """What the executor is told [rad | m]."""
        where = self.positions if self.frozen is None else self.frozen
        return {name: position + self.offsets.get(name, 0.0) for name, position in where.items()}

    def begin(self) -> None:
        """Measure `furthest` and `fastest` from now on."""
        self._start, self._since = dict(self.positions), None
        self.furthest = self.fastest = 0.0

    def _take(self, message: JointState) -> None:
        before, self.positions = self.positions, dict(zip(message.name, message.position, strict=True))
        stamp, since = nanoseconds(message), self._since
        self._since = stamp
        if not self._start or since is None or stamp <= since:
            return
        self.furthest = max(self.furthest, longest(self._start, self.positions))
        self.fastest = max(self.fastest, longest(before, self.positions) / (stamp - since) * 1e9)

    def _tell(self) -> None:
        for name, goal in self._goals.items():
            step = np.clip(goal - self.offsets[name], -HAND_SPEED / RATE, HAND_SPEED / RATE)
            self.offsets[name] += float(step)
        told = self.told
        if not told:
            return
        groups = self._parts if len(self._publishers) > 1 else [tuple(told)]
        for publisher, names in zip(self._publishers, groups, strict=True):
            message = JointState(name=list(names), position=[told[name] for name in names])
            message.header.stamp = self._peer.node.get_clock().now().to_msg()
            publisher.publish(message)


class Bench(SpinningNode):
    """A policy, an operator and a relay around the controllers of one robot.

    Attributes:
        robot: its embodiment.
        controller: of its first arm.
        other: its other controller.
        joints: of the controller, in its order.
        relay: what the executor is told.
        reports: of the executor.
        steps: longest step of each joint's reference within 20 ms, since it was cleared [rad].
    """

    def __init__(self, robot: str, use_sim_time: bool) -> None:
        super().__init__("real_controllers", int(os.environ.get("ROS_DOMAIN_ID", "0")), use_sim_time=use_sim_time)
        self.robot, self.reports, self._chunk_id = load_robot(robot), [], 0
        self.controller, self.other = CONTROLLERS[robot]
        self.joints = controlled(robot, self.controller)
        self.waist, _, self.elbow, *_, self.wrist = self.robot.arms[0].joints
        self.relay = Relay(self, self.robot.joint_names, [self.joints, controlled(robot, self.other)])
        self.steps: dict[str, float] = {}
        self._references: dict[str, float] = {}
        self._stamp = 0
        self.hear(ChunkReport, f"{EXECUTOR}/chunk_report", self.reports.append, 50)
        state = interface("control_msgs/msg/JointTrajectoryControllerState")
        self.hear(state, f"{self.controller}/controller_state", self._on_state, qos_profile_sensor_data)
        self._chunks = self.node.create_publisher(ActionChunk, "policy_node/action_chunk", 10)
        self._heartbeat = self.node.create_publisher(Header, "policy_node/heartbeat", 10)
        self._button = self.node.create_publisher(Bool, "estop", LATCHED)
        self._commands = self.node.create_publisher(JointTrajectory, f"{self.controller}/joint_trajectory", 1)
        self.node.create_timer(1 / RATE, lambda: self._heartbeat.publish(Header(stamp=self._now())))

    # What is seen -------------------------------------------------------------------------------------------------

    def _on_state(self, message) -> None:
        stamp = nanoseconds(message)
        share = min(1.0, 1e9 / RATE / max(1, stamp - self._stamp))  # where messages were lost it moved for longer
        told = dict(zip(message.joint_names, message.reference.positions, strict=True))
        for name, position in told.items():
            step = abs(position - self._references.get(name, position)) * share
            self.steps[name] = max(self.steps.get(name, 0.0), step if math.isfinite(step) else math.inf)
        self._references, self._stamp = told, stamp

    def reference(self, joint: str) -> float:
        """Where the controller is commanded to be [rad]."""
        return self._references.get(joint, math.nan)

    def _now(self):
        return self.node.get_clock().now().to_msg()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait; NoAnswer says what did not happen."""
        self.wait(condition, what, PATIENCE)

    def pass_time(self, seconds: float) -> None:
        """Let so much ROS time pass."""
        start = self.node.get_clock().now().nanoseconds
        self.until(lambda: self.node.get_clock().now().nanoseconds - start > seconds * 1e9, f"{seconds} s to pass")

    # What is done -------------------------------------------------------------------------------------------------

    def ask(self, kind: type, name: str, request: object):
        """Call a service."""
        client = self.node.create_client(kind, name)
        try:
            return self.call(client, request, PATIENCE)
        finally:
            self.in_turn(lambda: self.node.destroy_client(client))

    def trigger(self, name: str) -> Trigger.Response:
        """Call a service of the executor."""
        return self.ask(Trigger, f"{EXECUTOR}/{name}", Trigger.Request())

    def press(self, pressed: bool) -> None:
        """Press or release the emergency stop."""
        self.until(lambda: self._button.get_subscription_count() > 0, "a listener of the emergency stop")
        self._button.publish(Bool(data=pressed))

    def begin_executor_anew(self) -> None:
        """Have the executor forget whom it has heard, and wait until it is active again."""
        steps = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP
        for number in (*steps, Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=number))
            if not self.ask(ChangeState, f"{EXECUTOR}/change_state", request).success:
                raise Failed(f"{EXECUTOR} refused transition {number}")

    def switch(self, controller: str, active: bool) -> None:
        """Activate or deactivate a controller."""
        kind = interface("controller_manager_msgs/srv/SwitchController")
        request = kind.Request(strictness=kind.Request.STRICT)
        (request.activate_controllers if active else request.deactivate_controllers).append(controller)
        if not (answer := self.ask(kind, MANAGER, request)).ok:
            raise Failed(f"{controller} could not be switched: {getattr(answer, 'message', '')}")

    def restart(self) -> None:
        """Have the controller begin where the joints are."""
        self.switch(self.controller, False)
        self.switch(self.controller, True)

    def command(self, message: JointTrajectory) -> None:
        """Send the controller something, past the executor."""
        self.until(lambda: self._commands.get_subscription_count() > 0, "a subscriber of the controller's topic")
        self._commands.publish(message)

    def chunk(self) -> int:
        """Send a motion of the first arm; returns its number."""
        self._chunk_id += 1
        rows = self._along_the_tool() if self.robot.control_mode == "eef_delta" else self._bending_the_elbow()
        message = ActionChunk(
            chunk_id=self._chunk_id,
            embodiment=self.robot.name,
            control_mode=self.robot.control_mode,
            channel_names=list(self.robot.channel_names),
            instruction="check the controllers",
            horizon=len(rows),
            execution_horizon=min(len(rows), round(EXECUTED / self.robot.period)),
            period=self.robot.period,
            data=rows.reshape(-1).tolist(),
        )
        message.header.stamp, message.header.frame_id = self._now(), self.robot.base_frame
        self._chunks.publish(message)
        return self._chunk_id

    def _along_the_tool(self) -> np.ndarray:
        """8 cm along the tool's axis: rows (16, 7)."""
        rows = np.zeros((16, 7), np.float32)
        rows[:, 0], rows[:, 6] = 0.005 * np.arange(1, 17), 1.0
        return rows

    def _bending_the_elbow(self) -> np.ndarray:
        """The elbow bends and the other joints stay, grippers closed: rows (50, channels)."""
        told, names = self.relay.told, self.robot.channel_names
        rows = np.tile([told.get(name, 0.0) for name in names], (50, 1)).astype(np.float32)
        rows[:, names.index(self.elbow)] -= BENT * (1 - np.cos(np.linspace(0.0, np.pi, 50))) / 2
        return rows

    def verdict(self, number: int, *verdicts: int) -> ChunkReport:
        """Wait for a verdict on a chunk."""

        def find() -> ChunkReport | None:
            return next((r for r in self.reports if r.chunk_id == number and r.verdict in verdicts), None)

        self.until(find, f"verdict on chunk {number}")
        return find()

    def have_accepted(self) -> int:
        """Send chunks until one is accepted."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            number = self.chunk()
            report = self.verdict(number, ChunkReport.ACCEPTED, ChunkReport.REFUSED)
            if report.verdict == ChunkReport.ACCEPTED:
                return number
            self.pass_time(self.robot.period)
        raise Failed(f"no chunk was accepted; the last refusal: {report.message}")

    def must_be_refused(self, reason: Reason) -> str:
        """Send chunks until one is refused for a reason; returns why."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            report = self.verdict(self.chunk(), ChunkReport.ACCEPTED, ChunkReport.REFUSED)
            if reason in report.reason_codes:
                return report.message
            self.pass_time(self.robot.period)
        raise Failed(f"chunks are not refused for {reason.name}; the last report: {report.verdict} {report.message}")

    def must_not_have_stepped(self) -> str:
        """No reference stepped; returns the longest step, as text."""
        joint, step = max(self.steps.items(), key=lambda item: item[1], default=("no joint", 0.0))
        if step > LONGEST_STEP:
            raise Failed(f"the reference of {joint} stepped by {step:.4f} rad (limit {LONGEST_STEP})")
        return f"longest step {step:.4f} rad"


# Scenes -----------------------------------------------------------------------------------------------------------


def begin_anew(bench: Bench) -> None:
    """Everything works, and nothing is remembered."""
    relay = bench.relay
    relay.frozen = None
    relay.divide(False)
    for joint in relay.offsets:
        relay.push(joint, 0.0)
    bench.until(lambda: not any(relay.offsets.values()), "the relay to tell the truth")
    bench.press(False)
    bench.pass_time(0.5)
    for service in ("resume", "reset_estop", "resynchronize"):
        bench.trigger(service)
    bench.pass_time(0.5)
    bench.trigger("go_home")
    bench.until(lambda: not moves(bench), "rest")
    bench.pass_time(0.3)
    with bench.changed:
        bench.reports.clear()
        bench.steps.clear()


def moves(bench: Bench) -> bool:
    """Whether the reference has moved within the last half second."""
    with bench.changed:
        bench.steps.clear()
    bench.pass_time(0.5)
    return max(bench.steps.values(), default=0.0) > 1e-4


def moved_by_hand(bench: Bench, do: Callable[[Bench], None]) -> str:
    """The waist is elsewhere than its controller knows; then something is done."""
    bench.relay.push(bench.waist, MOVED)
    bench.until(lambda: bench.relay.offsets[bench.waist] == MOVED, "the waist to be moved")
    bench.pass_time(0.2)
    bench.steps.clear()
    do(bench)
    bench.pass_time(0.5)
    return bench.must_not_have_stepped()


def press(bench: Bench) -> None:
    """The emergency stop."""
    bench.press(True)
    bench.must_be_refused(Reason.EMERGENCY_STOP)


def stop(bench: Bench) -> None:
    """The stop service."""
    answer = bench.trigger("stop")
    if "nothing was sent" not in answer.message:
        raise Failed(answer.message)


def go_home(bench: Bench) -> None:
    """The home motion."""
    answer = bench.trigger("go_home")
    if answer.success or "~/resynchronize" not in answer.message:
        raise Failed(answer.message)


def send_chunk(bench: Bench) -> None:
    """A chunk of the policy."""
    bench.must_be_refused(Reason.REFERENCE_MISMATCH)


def executes(bench: Bench) -> str:
    """A chunk is executed."""
    start = bench.reference(bench.elbow)
    bench.verdict(bench.have_accepted(), ChunkReport.COMPLETED)
    if bench.reference(bench.elbow) == start:
        raise Failed("the reference did not move")
    return bench.must_not_have_stepped()


def inactive_before(bench: Bench, which: str) -> str:
    """A controller is not active: nothing is accepted, or it is held."""
    controller = getattr(bench, which)
    bench.switch(controller, False)
    try:
        return bench.must_be_refused(Reason.NOT_READY)
    finally:
        bench.switch(controller, True)


def inactive_during(bench: Bench) -> str:
    """A controller is deactivated on its way."""
    number, start = bench.have_accepted(), bench.reference(bench.elbow)
    bench.until(lambda: abs(bench.reference(bench.elbow) - start) > 0.005, "the arm to move")
    bench.switch(bench.controller, False)
    try:
        return bench.verdict(number, ChunkReport.HELD, ChunkReport.COMPLETED).message or _completed()
    finally:
        bench.switch(bench.controller, True)


def inactive_for_a_moment(bench: Bench) -> str:
    """A controller is deactivated and activated on its way: it begins where the joints are, and is not to catch up."""
    number, start = bench.have_accepted(), bench.reference(bench.elbow)
    bench.until(lambda: abs(bench.reference(bench.elbow) - start) > 0.005, "the arm to move")
    bench.restart()
    if bench.verdict(number, ChunkReport.HELD, ChunkReport.COMPLETED).verdict == ChunkReport.COMPLETED:
        _completed()
    bench.pass_time(0.5)
    return bench.must_not_have_stepped()


def does_not_follow(bench: Bench) -> str:
    """The joints stand, whatever they are commanded."""
    bench.relay.frozen = dict(bench.relay.positions)
    report = bench.verdict(bench.have_accepted(), ChunkReport.HELD, ChunkReport.COMPLETED)
    return report.message or _completed()


def _completed() -> str:
    raise Failed("the chunk was reported as completed")


def partial_states(bench: Bench) -> str:
    """The joints of each controller have a publisher."""
    bench.relay.divide(True)
    bench.begin_executor_anew()  # it would wait for who has told the whole
    return executes(bench)


def beyond_a_limit(bench: Bench) -> str:
    """The hardware is measured outside a limit: the controller lives on, and the arm comes home."""
    wrist, limit = bench.wrist, bench.robot.limits[bench.wrist].upper
    goal = [limit + BEYOND if name == wrist else bench.robot.home[name] for name in bench.joints]
    bench.command(trajectory(bench.joints, (3.0, goal, [0.0] * len(goal))))
    bench.until(lambda: bench.reference(wrist) > limit, "the reference to be beyond the limit")
    bench.pass_time(3.5)
    bench.steps.clear()
    measured = bench.relay.told[wrist]
    if measured < limit + BEYOND / 2:
        return f"not shown: this hardware stops at its limit ({measured:.4f})"
    bench.trigger("resynchronize")
    bench.pass_time(1.5)
    answer = bench.trigger("go_home")
    if not answer.success:
        raise Failed(answer.message)
    bench.until(lambda: abs(bench.relay.told[wrist] - bench.robot.home[wrist]) < 0.05, "home")
    return bench.must_not_have_stepped()


SCENES: dict[str, Callable[[Bench], str]] = {
    "a chunk": executes,
    "moved by hand, then the emergency stop": partial(moved_by_hand, do=press),
    "moved by hand, then ~/stop": partial(moved_by_hand, do=stop),
    "moved by hand, then ~/go_home": partial(moved_by_hand, do=go_home),
    "moved by hand, then a chunk": partial(moved_by_hand, do=send_chunk),
    "the arm's controller inactive before": partial(inactive_before, which="controller"),
    "the other controller inactive before": partial(inactive_before, which="other"),
    "the arm's controller inactive during": inactive_during,
    "the arm's controller inactive for a moment": inactive_for_a_moment,
    "hardware that does not follow": does_not_follow,
    "partial joint states from two publishers": partial_states,
    "measured beyond a limit": beyond_a_limit,
}


# Messages ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A message to the controller.

    Attributes:
        message: relative to home.
        stricter: the simulated controller refuses it, on purpose, although the real one does not.
    """

    message: JointTrajectory
    stricter: bool = False


def trajectory(names: Sequence[str], *points: tuple, stamp_ns: int = 0) -> JointTrajectory:
    """Points are (seconds, positions[, velocities[, accelerations[, effort]]])."""
    message = JointTrajectory(joint_names=list(names))
    message.header.stamp = time_message(stamp_ns)
    for seconds, *values in points:
        point = JointTrajectoryPoint()
        whole = math.floor(seconds)
        point.time_from_start.sec, point.time_from_start.nanosec = whole, round((seconds - whole) * 1e9)
        for field, given in zip(("positions", "velocities", "accelerations", "effort"), values, strict=False):
            setattr(point, field, list(map(float, given)))
        message.points.append(point)
    return message


def messages(names: list[str], home: list[float], now_ns: int) -> dict[str, Sent]:
    """Thirty messages, most of them wrong, that begin at home; now [ns, ROS time]."""
    rest, far = [0.0] * len(home), home.copy()
    far[0] += 0.2
    beyond, fast = home.copy(), home.copy()
    beyond[0], fast[0] = 4.0, home[0] + 1.5

    def with_first(value: float, values: list[float]) -> list[float]:
        return [value, *values[1:]]

    good = (1.0, far, rest)
    make = partial(trajectory, names)
    stamped = partial(trajectory, names, good)
    return {
        "good": Sent(make(good)),
        "two points": Sent(make((0.5, home, rest), good)),
        "without velocities": Sent(make((1.0, far))),
        "other order": Sent(trajectory(names[::-1], (1.0, far[::-1], rest))),
        "stamp in the future": Sent(stamped(stamp_ns=now_ns + 500_000_000)),
        "stamp that runs": Sent(stamped(stamp_ns=now_ns - 300_000_000)),
        "with accelerations": Sent(make((1.0, far, rest, rest))),
        "velocity on the way": Sent(make((0.5, far, with_first(0.1, rest)), (1.0, far, rest))),
        "stamp long past": Sent(stamped(stamp_ns=max(1, now_ns - 5_000_000_000))),
        "missing joint": Sent(trajectory(names[:-1], (1.0, far[:-1], rest[:-1]))),
        "unknown joint": Sent(trajectory([*names[:-1], "knee"], good)),
        "one joint more": Sent(trajectory([*names, "knee"], (1.0, [*far, 0.0], [*rest, 0.0]))),
        "no joints": Sent(trajectory([], good)),
        "no points": Sent(make()),
        "no positions": Sent(make((1.0, [], []))),
        "times backwards": Sent(make(good, (0.5, home, rest))),
        "times equal": Sent(make(good, (1.0, home, rest))),
        "positions too few": Sent(make((1.0, far[:-1], rest))),
        "positions too many": Sent(make((1.0, [*far, 0.0], rest))),
        "velocities too few": Sent(make((1.0, far, rest[:-1]))),
        "accelerations too few": Sent(make((1.0, far, rest, rest[:-1]))),
        "effort": Sent(make((1.0, far, rest, rest, [1.0] * len(home)))),
        "velocity at the end": Sent(make((1.0, far, with_first(0.3, rest)))),
        "joint named twice": Sent(trajectory([names[0], names[0], *names[2:]], good), stricter=True),
        "NaN position": Sent(make((1.0, with_first(math.nan, far), rest)), stricter=True),
        "infinite position": Sent(make((1.0, with_first(math.inf, far), rest)), stricter=True),
        "NaN velocity": Sent(make((0.5, far, with_first(math.nan, rest)), (1.0, far, rest)), stricter=True),
        "first point at zero": Sent(make((0.0, far, rest))),
        "beyond a limit": Sent(make((1.0, beyond, rest))),
        "too fast": Sent(make((0.05, fast, rest))),
    }


def simulated_verdict(message: JointTrajectory, names: list[str], home: list[float], now_ns: int) -> str:
    """What the simulated controller does: "accepted", or why it refuses."""
    controller = simulated.JointTrajectoryController(names, home)
    try:
        controller.accept(trajectory_from_message(message), now_ns)
    except simulated.TrajectoryRejected as error:
        return f"refused: {error}"
    return "accepted"


def judged(bench: Bench, name: str) -> dict[str, object]:
    """Send one of the messages to the real controller at home; returns a row of the table."""
    names = list(bench.joints)
    home = [bench.reference(joint) for joint in names]
    now = bench.node.get_clock().now().nanoseconds
    sent = messages(names, home, now)[name]
    bench.steps.clear()
    bench.relay.begin()
    bench.command(sent.message)
    bench.pass_time(1.8)
    moved = max(abs(bench.reference(joint) - start) for joint, start in zip(names, home, strict=True))
    real = "accepted" if not moved < 1e-4 else "not executed"  # NaN is not
    expected = simulated_verdict(sent.message, names, home, now)
    agrees = sent.stricter or (expected == "accepted") == (real == "accepted")
    step = max(bench.steps.values(), default=0.0)
    seen = {"furthest": bench.relay.furthest, "fastest": bench.relay.fastest}
    return {
        "message": name,
        "real": real,
        "moved": moved,
        "step": step,
        **seen,
        "simulated": expected,
        "agrees": agrees,
    }


def table(bench: Bench) -> Iterator[dict[str, object]]:
    """A row for each message; the controller begins anew before each."""
    names = list(bench.joints)
    home = [bench.robot.home[name] for name in names]
    for name in messages(names, home, 1):
        bench.restart()
        bench.pass_time(0.3)
        bench.command(trajectory(names, (2.0, home, [0.0] * len(home))))
        bench.pass_time(2.3)
        yield judged(bench, name)


# The program ------------------------------------------------------------------------------------------------------


def skip_reason(node: SpinningNode) -> str:
    """Why nothing can be checked in this graph; empty when it can."""
    for needed in ("controller_manager_msgs/srv/SwitchController", "control_msgs/msg/JointTrajectoryControllerState"):
        try:
            interface(needed)
        except MissingInterface as error:
            return str(error)
    description: list[String] = []
    node.hear(String, "robot_description", description.append, LATCHED)

    def managed() -> bool:
        return any(name.endswith(f"/{MANAGER}") for name, _ in node.node.get_service_names_and_types())

    try:
        node.wait(lambda: managed() and description, "controller manager", SEARCH)
    except NoAnswer:
        return f"there is no controller manager with a robot_description in the graph ({MANAGER})"
    simulator = any(name.endswith("_sim/misbehave") for name, _ in node.node.get_service_names_and_types())
    if not simulator and not any(plugin in description[0].data for plugin in MOCK):
        return "the robot is neither mock hardware nor simulated, and would move; nothing was sent"
    return ""


@contextmanager
def checked_executor(use_sim_time: bool) -> Iterator[ChildProcesses]:
    """An executor_node of our own, behind the relay."""
    names = {"__node": EXECUTOR, "joint_states": f"{EXECUTOR}/joint_states"}
    renamed = [part for pair in names.items() for part in ("-r", ":=".join(pair))]
    parameters = ["-p", "autostart:=true", "-p", f"use_sim_time:={str(use_sim_time).lower()}"]
    command = [str(Path(sys.executable).parent / "executor_node"), "--ros-args", *renamed, *parameters]
    with tempfile.TemporaryDirectory() as folder, ChildProcesses(Path(folder)) as processes:
        processes.start(EXECUTOR, command, ros_environment())
        yield processes


def run_scenes(bench: Bench, processes: ChildProcesses) -> dict[str, str]:
    """What came of each scene: what was seen, or "FAILED: ..."."""
    bench.until(lambda: bench.node.count_publishers(f"{EXECUTOR}/chunk_report"), "the executor")
    state = partial(bench.ask, GetState, f"{EXECUTOR}/get_state", GetState.Request())
    bench.until(lambda: state().current_state.label == "active", "the executor to be active")
    outcomes = {}
    for name, scene in SCENES.items():
        try:
            begin_anew(bench)
            outcomes[name] = scene(bench)
        except (Failed, NoAnswer) as problem:
            outcomes[name] = f"FAILED: {problem}"
            print(processes.describe_log(EXECUTOR))
        print(f"{name}: {outcomes[name]}", flush=True)
    return outcomes


def main(arguments: list[str] | None = None) -> int:
    """Run everything; returns 1 when something failed or differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", choices=CONTROLLERS, default="widowx")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    parser.add_argument("--use-sim-time", action="store_true", help="for a simulator instead of mock hardware")
    parser.add_argument("--only", choices=("scenes", "messages"), help="do only a part")
    options = parser.parse_args(arguments)
    os.environ.update(ros_environment())
    with SpinningNode("look", int(os.environ.get("ROS_DOMAIN_ID", "0"))) as node:
        reason = skip_reason(node)
    if reason:
        print(f"skipped: {reason}")
        return 0
    outcomes, rows = {}, []
    with Bench(options.robot, options.use_sim_time) as bench:
        if options.only != "messages":
            with checked_executor(options.use_sim_time) as processes:
                outcomes = run_scenes(bench, processes)
        for row in table(bench) if options.only != "scenes" else ():
            rows.append(row)
            print(ROW.format(**row))
    if options.json:
        options.json.write_text(json.dumps({"scenes": outcomes, "messages": rows}, indent=2))
    wrong = [name for name, outcome in outcomes.items() if outcome.startswith("FAILED")]
    wrong += [str(row["message"]) for row in rows if not row["agrees"]]
    print(f"failed or different: {', '.join(wrong)}" if wrong else "everything as it must be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
