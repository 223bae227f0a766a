# SPDX-License-Identifier: Apache-2.0
"""Common handling of all transitions: what is acquired is released, and every activation ends with one stop."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from std_msgs.msg import Empty

from qwen_vla_ros.ros.environment import ros_environment
from qwen_vla_ros.ros.lifecycle import ManagedNode, StopReason

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE

# A node whose callback fails as soon as it is active.
BROKEN = """
import sys
from qwen_vla_ros.ros.lifecycle import ManagedNode, run

class Broken(ManagedNode):
    def start(self):
        self.create_timer(0.01, self.fail)
    def fail(self):
        raise RuntimeError("deliberately")
    def on_failure(self, text):
        print(text, flush=True)
    def stop(self, reason):
        print("stopped because", reason.value, flush=True)

sys.exit(run(lambda: Broken("broken", ())))
"""


# A node that reports when it starts and stops.
QUIET = """
import sys
from qwen_vla_ros.ros.lifecycle import ManagedNode, run

class Quiet(ManagedNode):
    def start(self):
        print("started", flush=True)
    def stop(self, reason):
        print("stopped:", reason.value, flush=True)

sys.exit(run(lambda: Quiet("quiet", ())))
"""


class Recorder(ManagedNode):
    """Records its calls; `faults` names the methods that fail."""

    def __init__(self, faults=()):
        super().__init__("recorder", ())
        self.log, self.faults = [], set(faults)

    def _note(self, what):
        self.log.append(what)
        if what in self.faults:
            raise ValueError(f"{what} fails deliberately")

    def set_up(self):
        self.topic = self.keep(self.create_publisher(Empty, "~/kept", 1), self.destroy_publisher)
        self.resources.callback(self.log.append, "released")
        self._note("set_up")

    def start(self):
        self._note("start")

    def stop(self, reason):
        assert not self.active
        self._note("stop")
        self.log.append(reason)


@pytest.fixture
def recorder():
    """Make one recorder in this process."""
    rclpy.init()
    nodes = []

    def make(**kwargs):
        nodes.append(Recorder(**kwargs))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown()


def test_a_life(recorder):
    node = recorder()
    assert node.bring_up() and node.active
    assert node.count_publishers("recorder/kept") == 1
    assert node.trigger_deactivate() == SUCCESS and not node.active
    assert node.trigger_activate() == SUCCESS and node.active
    assert node.trigger_deactivate() == SUCCESS
    assert node.trigger_cleanup() == SUCCESS
    assert node.count_publishers("recorder/kept") == 0
    stopped = ["start", "stop", StopReason.DEACTIVATED]
    assert node.log == ["set_up", *stopped, *stopped, "released"]


def test_what_is_loaded_is_kept_from_the_garbage_collector_until_it_is_released(recorder):
    gc.unfreeze()
    node = recorder()
    node.trigger_configure()
    assert gc.get_freeze_count() > 10_000
    node.trigger_cleanup()
    assert gc.get_freeze_count() == 0


def test_a_set_up_that_fails_midway_leaves_nothing_and_may_be_retried(recorder):
    node = recorder(faults={"set_up"})
    assert node.trigger_configure() == FAILURE
    assert node.log == ["set_up", "released"] and node.count_publishers("recorder/kept") == 0
    node.faults.clear()
    assert node.bring_up()


def test_a_node_that_cannot_start_is_not_active(recorder):
    node = recorder(faults={"start"})
    assert not node.bring_up() and not node.active
    node.finish()
    assert "stop" not in node.log and node.log[-1] == "released"


def test_a_stop_that_fails_still_ends_the_activity(recorder):
    node = recorder(faults={"stop"})
    node.bring_up()
    assert node.trigger_deactivate() == SUCCESS and not node.active


def test_the_first_reason_to_stop_wins_and_stop_is_called_once(recorder):
    node = recorder()
    node.bring_up()
    node.end(StopReason.INTERRUPTED)
    node.finish()
    assert node.log.count("stop") == 1 and node.stop_reason is StopReason.INTERRUPTED
    assert node.log[-1] == "released"


def test_calls_from_outside_are_served_in_turn_and_return_their_errors(recorder):
    node = recorder()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    try:
        assert node.in_turn(threading.current_thread).result(10.0) is thread
        with pytest.raises(ZeroDivisionError):
            node.in_turn(lambda: 1 / 0).result(10.0)
    finally:
        executor.shutdown()
        thread.join()


def test_a_missing_robot_description_is_named(recorder):
    node = recorder()
    node.set_parameters([rclpy.parameter.Parameter("robot_description_timeout", value=0.1)])
    with pytest.raises(TimeoutError, match="/robot_description.*robot_state_publisher"):
        node.wait_for_robot_description()
    node.leaving.set()
    with pytest.raises(InterruptedError):
        node.wait_for_robot_description()


def test_an_interruption_during_configuration_is_not_a_failure(recorder, capfd):
    node = recorder()
    node.set_up = node.wait_for_robot_description
    node.leaving.set()
    assert node.trigger_configure() == FAILURE
    told = "".join(capfd.readouterr())
    assert "the process is exiting" in told and "ERROR" not in told


def test_a_callback_that_fails_again_and_again_is_reported_each_time_and_the_node_continues():
    command = [sys.executable, "-c", BROKEN, "--ros-args", "-p", "autostart:=true"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=ros_environment(), **pipes) as process:
        try:
            told = [process.stdout.readline() for _ in range(10)]
            process.send_signal(signal.SIGTERM)
            rest, log = process.communicate(timeout=60)
        finally:
            process.kill()
    assert told == ["Broken.fail: RuntimeError: deliberately\n"] * 10
    # Its timer may fail once more after the stop, while the process waits for what it still has to send.
    assert rest.splitlines().count(f"stopped because {StopReason.TERMINATED.value}") == 1
    assert process.returncode == 0
    assert log.count("Traceback") == 1, "it is logged once"


def test_a_process_that_was_frozen_continues():
    command = [sys.executable, "-c", QUIET, "--ros-args", "-p", "autostart:=true"]
    with subprocess.Popen(command, env=ros_environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "started\n"
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)  # longer than the node waits for a signal at a time
            process.send_signal(signal.SIGCONT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == f"stopped: {StopReason.INTERRUPTED.value}\n"
            assert process.wait(10) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_node_is_active_ends_it_as_well(number):
    program = BROKEN.replace("sys.exit(", "print('here', flush=True); sys.exit(")
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=ros_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"here\n"
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, -number), errors  # before run() has started, the default action
