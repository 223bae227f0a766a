# SPDX-License-Identifier: Apache-2.0
"""executor_node as a process with the real middleware: what it refuses, and when and how it stops the arm."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from distribution_marks import TELLS_PUBLISHERS
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from std_msgs.msg import Bool, String

from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_rclpy.messages import time_message
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_ros.ros.distributions import distribution

ACCEPTED, REFUSED = ChunkReport.ACCEPTED, ChunkReport.REFUSED
COMPLETED, HELD = ChunkReport.COMPLETED, ChunkReport.HELD
HOLD_LIMIT = 0.5  # [s] from the last heartbeat to the hold


@pytest.fixture(scope="module")
def process(peer, processes):
    """The executor shared by most tests."""
    return processes.start("executor_node")


@pytest.fixture
def executor(peer, process):
    """The shared executor, active, idle, not stopped, with a policy that is alive."""
    peer.wait_until_active("executor_node")
    peer.trigger("executor_node/hold")
    peer.trigger("executor_node/resume")
    peer.forget()
    peer.restart("executor_node")
    connect(peer)
    return process


@pytest.fixture
def own_executor(peer, process, processes):
    """An executor that the test may end; the shared one is ended for it and must be requested before."""
    if process.poll() is None:
        processes.end(process, signal.SIGTERM)
    peer.forget()  # before it starts, which would take this for a push
    started = processes.start("executor_node")
    try:
        peer.wait_until_active("executor_node")
        connect(peer)
        yield started
    finally:
        if started.poll() is None:
            processes.end(started, signal.SIGTERM)


class Buttons:
    """Publishers of the emergency stop that the executor hears."""

    def __init__(self, peer) -> None:
        self._peer, self._present = peer, []

    def add(self):
        button = self._peer.node.create_publisher(Bool, "estop", 1)
        self._present.append(button)
        self._peer.wait(lambda: button.get_subscription_count() >= 2, "executor_node to subscribe to it")
        return button

    def leave(self) -> None:
        while self._present:
            button = self._present.pop()
            self._peer.in_turn(lambda button=button: self._peer.node.destroy_publisher(button))

    def release(self) -> None:
        for button in self._present:
            button.publish(Bool(data=False))
        self._peer.wait(lambda: self._peer.trigger("executor_node/reset_estop").success, "the reset")


@pytest.fixture
def buttons(peer, executor):
    """In the end, all are released."""
    made = Buttons(peer)
    yield made
    made.release()
    made.leave()


def connect(peer) -> None:
    peer.silent.clear()
    peer.wait_until_connected()
    peer.refused_before, peer.accepted_before = peer.reports[-1].refused_total, peer.reports[-1].accepted_total
    peer.clear()


def assert_held(peer, number: int, reason: Reason, since: float, limit: float = HOLD_LIMIT) -> ChunkReport:
    """Check that the arm was commanded to hold at its commanded position, and when."""
    report = peer.report(number, HELD)
    assert report.reason_codes.tolist() == [reason]
    sent, hold = peer.wait(lambda: peer.arm_commands[1:], "hold of the arm")[0]
    gripper = peer.wait(lambda: peer.gripper_commands[1:], "hold of the gripper")[0][1]
    print(f"hold {sent - since:.3f} s after the cause ({reason.name})")
    assert sent - since < limit
    start, trajectory = peer.arm_commands[0]
    assert len(hold.points) == len(gripper.points) == 1
    assert not any(hold.points[0].velocities)
    # Between the rows before and after the time of the hold.
    row = (sent - start) / 0.2
    rows = np.array([list(peer.embodiment.home.values())[:6], *(p.positions for p in trajectory.points)])
    around = rows[max(0, int(row) - 1) : int(row) + 3]
    position = np.array(hold.points[0].positions)
    assert (position >= around.min(axis=0) - 1e-3).all() and (position <= around.max(axis=0) + 1e-3).all()
    return report


# Refusal --------------------------------------------------------------------------------------------------------------


def with_value(message, index: int, value: float):
    message.data[index] = value
    return message


def spoiled(peer, kind: str):
    """Return a chunk with one fault, and the expected reason."""
    if kind == "nan":
        return with_value(peer.chunk(), 50, float("nan")), Reason.NON_FINITE
    if kind == "infinity in the last value":
        return with_value(peer.chunk(), -1, float("inf")), Reason.NON_FINITE
    if kind == "channel order":
        names = list(peer.embodiment.channel_names)
        return peer.chunk(channel_names=[names[1], names[0], *names[2:]]), Reason.WRONG_JOINTS
    if kind == "jump":
        return with_value(peer.chunk(), 1, 0.15), Reason.START_JUMP
    if kind == "stale":
        message = peer.chunk()
        message.header.stamp = time_message(peer.node.get_clock().now().nanoseconds - 3 * 10**9)
        return message, Reason.STALE
    return peer.chunk(embodiment="aloha"), Reason.WRONG_EMBODIMENT


@pytest.mark.parametrize("kind", ["nan", "infinity in the last value", "channel order", "jump", "stale", "embodiment"])
def test_a_bad_chunk_is_refused_as_a_whole_and_counted_and_nothing_moves(peer, executor, kind):
    message, reason = spoiled(peer, kind)
    peer.send(message)
    report = peer.report(message.chunk_id, REFUSED)
    assert report.reason_codes[0] == reason and report.message
    assert report.steps_accepted == 0 and report.refused_total == peer.refused_before + 1
    # A good chunk afterwards shows that commands could have reached the controllers.
    good = peer.have_accepted()
    peer.wait(lambda: peer.arm_commands and peer.gripper_commands, "commands of the good chunk")
    peer.wait(lambda: peer.received["executor_node/accepted_chunk"], "the accepted chunk")
    assert len(peer.arm_commands) == len(peer.gripper_commands) == 1
    assert [m.chunk_id for _, m in peer.received["executor_node/accepted_chunk"]] == [good]


def test_chunks_of_a_silent_policy_are_refused_until_it_is_back(peer, executor):
    peer.silent.add("heartbeat")

    def sent_until(verdict, reason=None):
        peer.send(peer.chunk())
        return any(r.verdict == verdict and (reason is None or reason in r.reason_codes) for r in peer.reports)

    peer.wait(lambda: time.monotonic() - peer.heartbeats[-1] > 0.6, "silence")
    peer.clear()
    peer.wait(lambda: sent_until(REFUSED, Reason.POLICY_SILENT), "refusal")
    assert not peer.arm_commands
    peer.silent.clear()
    peer.wait(lambda: sent_until(ACCEPTED), "a chunk to be accepted")


# Execution ------------------------------------------------------------------------------------------------------------


def test_a_good_chunk_is_executed_for_its_execution_horizon_and_once(peer, executor):
    number = peer.have_accepted()
    accepted = peer.report(number, ACCEPTED)
    assert accepted.steps_accepted == 8 and accepted.accepted_total == peer.accepted_before + 1
    assert 0 < accepted.decision_ms < 1000 and 0 <= accepted.observation_age_s < 1.0
    print(f"gate {accepted.decision_ms:.1f} ms")
    sent, arm = peer.wait(lambda: peer.arm_commands, "arm command")[0]
    gripper = peer.wait(lambda: peer.gripper_commands, "gripper command")[0][1]
    assert list(arm.joint_names) == list(peer.embodiment.arms[0].joints) and gripper.joint_names == ["left_finger"]
    times = [p.time_from_start.sec + p.time_from_start.nanosec / 1e9 for p in arm.points]
    assert np.allclose(times, 0.2 * np.arange(1, 9)) and arm.header.stamp.sec == 0
    assert not any(arm.points[-1].velocities) and any(arm.points[3].velocities)
    peer.report(number, COMPLETED)
    assert 1.5 < time.monotonic() - sent < 2.5
    again = peer.chunk(chunk_id=number)
    peer.send(again)
    assert peer.report(number, REFUSED).reason_codes.tolist() == [Reason.WRONG_ORDER]
    assert len(peer.arm_commands) == 1


def test_another_chunk_may_replace_it(peer, executor):
    first = peer.start_moving()
    second = peer.have_accepted()  # from the measured position of the arm
    assert peer.report(first, HELD).reason_codes.tolist() == [Reason.REPLACED]
    peer.report(second, COMPLETED)


def test_home_motion_goes_home_and_nothing_interrupts_it(peer, executor):
    peer.report(peer.have_accepted(), COMPLETED)
    peer.wait(lambda: peer.trigger("executor_node/go_home").success, "the home motion to begin")
    arm = peer.wait(lambda: peer.arm_commands[1:], "home motion")[0][1]
    assert np.allclose(arm.points[-1].positions, [peer.embodiment.home[name] for name in arm.joint_names])
    assert len(arm.points) > 2 and not any(arm.points[-1].velocities)
    number = peer.send(peer.chunk())
    assert peer.report(number, REFUSED).reason_codes.tolist() == [Reason.NOT_ACTIVE]
    assert peer.report(0, COMPLETED).message == "home motion completed"


# Stopping -------------------------------------------------------------------------------------------------------------


def test_it_holds_when_the_policy_falls_silent_and_says_why(peer, executor):
    number = peer.start_moving()
    peer.silent.add("heartbeat")
    report = assert_held(peer, number, Reason.POLICY_SILENT, peer.heartbeats[-1])
    assert "policy_node: no heartbeat for 0.4" in report.message and "(limit 0.40 s)" in report.message
    assert report.message.endswith("holding the last commanded position")


def test_it_holds_when_the_joint_states_stop_and_refuses_without_them(peer, executor):
    number = peer.start_moving()
    peer.silent.add("joint_states")
    report = assert_held(peer, number, Reason.JOINT_STATE_LOST, time.monotonic(), limit=0.5 + 0.2)
    assert "/joint_states" in report.message
    number = peer.send(peer.chunk())
    assert peer.report(number, REFUSED).reason_codes.tolist() == [Reason.NO_JOINT_STATE]


def test_stop_holds_at_once_and_refuses_until_resume(peer, executor):
    number = peer.start_moving()
    called = time.monotonic()
    response = peer.trigger("executor_node/stop")
    assert response.success and "~/resume" in response.message
    assert_held(peer, number, Reason.STOPPED, called)
    number = peer.send(peer.chunk())
    assert peer.report(number, REFUSED).reason_codes.tolist() == [Reason.STOPPED]
    assert not peer.trigger("executor_node/go_home").success
    assert peer.trigger("executor_node/resume").success
    peer.have_accepted()


def test_the_emergency_stop_holds_at_once_and_latches_until_it_is_reset(peer, buttons):
    button = buttons.add()
    number = peer.start_moving()
    pressed = time.monotonic()
    button.publish(Bool(data=True))
    assert_held(peer, number, Reason.EMERGENCY_STOP, pressed)
    assert peer.trigger("executor_node/resume").success
    number = peer.send(peer.chunk())
    assert peer.report(number, REFUSED).reason_codes.tolist() == [Reason.EMERGENCY_STOP]
    assert "still pressed" in peer.trigger("executor_node/reset_estop").message
    button.publish(Bool(data=False))
    assert not peer.trigger("executor_node/go_home").success, "releasing the button is not enough"
    peer.wait(lambda: peer.trigger("executor_node/reset_estop").success, "the reset")
    peer.have_accepted()


@TELLS_PUBLISHERS
def test_the_chunks_of_the_policy_are_not_late_by_the_numbers_of_an_unknown_publisher(peer, executor):
    unknown = peer.node.create_publisher(ActionChunk, "policy_node/action_chunk", 10)
    peer.wait(unknown.get_subscription_count, "executor_node to subscribe to it")
    last = 2**64 - 1
    unknown.publish(peer.chunk(chunk_id=last))
    assert peer.verdict(last).verdict == ACCEPTED, peer.reports
    peer.have_accepted()
    peer.in_turn(lambda: peer.node.destroy_publisher(unknown))


def test_a_button_that_another_one_contradicts_stays_pressed_until_it_is_released_as_the_refusal_says(peer, buttons):
    pressed, other = buttons.add(), buttons.add()
    pressed.publish(Bool(data=True))
    peer.wait(lambda: "still pressed by /peer" in peer.trigger("executor_node/reset_estop").message, "the press")
    for _ in range(5):
        other.publish(Bool(data=False))
        refusal = peer.trigger("executor_node/reset_estop").message
        assert "still pressed by /peer" in refusal
    if distribution().tells_publishers:
        assert "release it there" in refusal
    else:
        assert "end all nodes that publish it, then publish false from a new one" in refusal
        buttons.leave()
        buttons.add()
    buttons.release()


def test_a_callback_that_raises_holds_the_arm_and_ends_nothing(peer, executor):
    """A parameter without a type: rclpy's own service raises."""
    number = peer.start_moving()
    began = time.monotonic()
    client = peer.node.create_client(SetParameters, "executor_node/set_parameters")
    peer.wait(client.service_is_ready, "the service")
    nonsense = Parameter(name="hold_time", value=ParameterValue(type=99))
    client.call_async(SetParameters.Request(parameters=[nonsense]))
    report = assert_held(peer, number, Reason.INTERNAL, began)
    assert "set_parameters" in report.message
    peer.in_turn(lambda: peer.node.destroy_client(client))
    peer.have_accepted()
    status = peer.wait(lambda: peer.latest_diagnostics("executor_node: input"), "diagnostics")
    assert status.values[0].key == "failed callbacks"


def test_many_refusals_in_a_row_abort_the_motion(peer, executor):
    number = peer.start_moving()
    began = time.monotonic()
    for _ in range(5):
        peer.send(peer.chunk(embodiment="nobody"))
    report = assert_held(peer, number, Reason.REFUSED_TOO_OFTEN, began)
    assert "5 chunks in a row" in report.message


def test_a_chunk_for_another_instruction_than_the_policys_is_refused(peer, executor):
    instruction = peer.node.create_publisher(String, "policy_node/instruction", LATCHED)
    instruction.publish(String(data="open the drawer"))

    standing = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0] * 16  # what is accepted until the instruction is heard moves nothing

    def refused():
        peer.send(peer.chunk(data=standing))
        return any(r.reason_codes.tolist() == [ChunkReport.WRONG_INSTRUCTION] for r in peer.reports)

    peer.wait(refused, "the refusal")
    peer.clear()
    instruction.publish(String(data="pick up the red cube"))
    peer.have_accepted()
    peer.in_turn(lambda: peer.node.destroy_publisher(instruction))


def test_hold_aborts_without_latching(peer, executor):
    number = peer.start_moving()
    called = time.monotonic()
    assert peer.trigger("executor_node/hold").success
    assert_held(peer, number, Reason.CANCELED, called)
    peer.have_accepted()


def test_deactivation_holds_and_afterwards_chunks_are_refused(peer, executor):
    number = peer.start_moving()
    called = time.monotonic()
    assert peer.transition("executor_node", Transition.TRANSITION_DEACTIVATE)
    assert_held(peer, number, Reason.DEACTIVATED, called, limit=1.0)
    number = peer.send(peer.chunk())
    assert peer.report(number, REFUSED).reason_codes.tolist() == [Reason.NOT_ACTIVE]
    for transition in (Transition.TRANSITION_CLEANUP, Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert peer.transition("executor_node", transition)


# Process --------------------------------------------------------------------------------------------------------------


def test_it_is_small_and_free_of_torch(peer, executor):
    peer.report(peer.have_accepted(), COMPLETED)
    megabytes = psutil.Process(executor.pid).memory_info().rss / 1e6
    print(f"executor_node: {megabytes:.0f} MB")
    assert megabytes < 230
    libraries = Path(f"/proc/{executor.pid}/maps").read_text()
    assert "torch" not in libraries and "transformers" not in libraries


def test_diagnostics_report_state_and_counts(peer, executor):
    def calm():  # a stalled machine makes the peer's heartbeat late, which is reported, too
        status = peer.latest_diagnostics("executor_node: execution")
        idle = status and {item.key: item.value for item in status.values}["executing"] == "nothing"
        return status if idle and status.level == b"\x00" else None

    peer.report(peer.have_accepted(), COMPLETED)  # of those sent during discovery, many in a row may have been refused
    status = peer.wait(calm, "diagnostics without a problem")
    values = {item.key: item.value for item in status.values}
    assert status.message == "ok" and status.hardware_id == "widowx"
    assert int(values["accepted"]) >= 1 and int(values["refused"]) >= 1
    assert int(values["reason WRONG_EMBODIMENT"]) >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_holds_the_arm_before_the_process_exits(peer, own_executor, processes, number):
    chunk = peer.start_moving()
    signaled = time.monotonic()
    assert processes.end(own_executor, number, timeout=10.0) == 0, processes.log_of(own_executor)
    assert_held(peer, chunk, Reason.DEACTIVATED, signaled, limit=1.0)
    assert "Traceback" not in processes.log_of(own_executor)


def test_an_unknown_robot_file_is_named_and_ctrl_c_still_works(peer, process, processes):
    if process.poll() is None:
        processes.end(process, signal.SIGTERM)
    started = processes.start("executor_node", embodiment_config="no/such.yaml")
    peer.wait(lambda: "no/such.yaml: no such embodiment YAML" in processes.log_of(started), "the error")
    assert "no robot_description" not in processes.log_of(started)
    assert peer.state_of("executor_node") == "unconfigured"
    assert processes.end(started, signal.SIGINT) == 0


def test_a_misspelled_parameter_is_told_with_the_one_that_was_meant(peer, process, processes):
    if process.poll() is None:
        processes.end(process, signal.SIGTERM)
    started = processes.start("executor_node", hold_tme=0.5)
    peer.wait(lambda: "the parameter hold_tme has no effect" in processes.log_of(started), "the warning")
    assert "did you mean hold_time?" in processes.log_of(started)
    assert "use_sim_time" not in processes.log_of(started)
    assert processes.end(started, signal.SIGINT) == 0
