# SPDX-License-Identifier: Apache-2.0
"""Instructions from Python to a simulated robot whose policy holds still: how they end, and what is said then."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from lifecycle_msgs.msg import Transition

from qwen_vla_ros.commander import Ending, NoAnswer, Rejected, RobotCommander
from qwen_vla_ros.simulation.stack import SimulatedStack, change_state, simulated_stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[SimulatedStack]:
    with simulated_stack("mock://hold", tmp_path_factory.mktemp("logs")) as running:
        yield running


@pytest.fixture(scope="module")
def robot(stack: SimulatedStack) -> Iterator[RobotCommander]:
    with RobotCommander(domain=stack.domain) as commander:
        commander.wait_until_active()
        yield commander


def test_it_is_executed_until_its_timeout(robot) -> None:
    states: list[str] = []
    result = robot.say("stand still", 8.0, lambda state, figures: states.append(state))
    assert (result.ending, result.success) == (Ending.TIMEOUT, True), result
    assert result.chunks_executed >= 1 and 8.0 <= result.seconds < 20.0
    assert "executing" in states
    assert str(result).startswith("timeout (") and "the timeout of 8.0 s has expired" in str(result)


def test_a_stopped_robot_is_no_success_and_says_why(robot) -> None:
    robot.stop()
    result = robot.say("stand still", 10.0)
    assert (result.ending, result.success, result.chunks_executed) == (Ending.EXECUTOR_STOPPED, False, 0)
    assert "~/resume" in result.reason
    robot.resume()


def interrupted_while_executing(robot: RobotCommander) -> None:
    """Execute an instruction until Ctrl-C."""
    pressed = threading.Event()

    def press(state: str, _figures: str) -> None:
        if state == "executing" and not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        robot.say("stand still", 60.0, press)


def test_ctrl_c_cancels_it_and_the_next_is_executed(robot) -> None:
    interrupted_while_executing(robot)
    assert robot.say("stand still", 1.0).ending is Ending.TIMEOUT


def test_there_is_one_at_a_time(stack, robot) -> None:
    refusals: list[Exception] = []

    def interfere(state: str, _figures: str) -> None:
        if state == "executing":
            begun.set()

    def say_another() -> None:
        assert begun.wait(60.0)
        with RobotCommander(domain=stack.domain, name="another") as other:
            try:
                other.say("wave", 1.0)
            except Rejected as error:
                refusals.append(error)

    begun = threading.Event()
    thread = threading.Thread(target=say_another)
    thread.start()
    robot.say("stand still", 5.0, interfere)
    thread.join()
    assert len(refusals) == 1 and "rejected the instruction 'wave': it is not active, or executes" in str(refusals[0])


@pytest.mark.parametrize(
    ("instruction", "timeout", "problem"),
    [
        ("  ", 1.0, "the instruction is empty"),
        ("wave", -1.0, "timeout -1.0 s"),
        ("wave", float("nan"), "timeout nan s"),
    ],
)
def test_what_no_policy_could_execute_is_refused_at_once(robot, instruction, timeout, problem) -> None:
    with pytest.raises(ValueError, match=problem):
        robot.say(instruction, timeout)


def test_a_policy_that_is_not_active_is_named_with_what_to_do(stack, robot) -> None:
    change_state(stack.client, "policy_node", Transition.TRANSITION_DEACTIVATE)
    text = "no active /policy_node within 5 s: it is inactive; activate it .ros2 lifecycle set /policy_node activate"
    with RobotCommander(domain=stack.domain, patience=5.0, name="impatient") as impatient:
        with pytest.raises(NoAnswer, match=text):
            impatient.say("wave", 1.0)
    change_state(stack.client, "policy_node", Transition.TRANSITION_ACTIVATE)


@pytest.mark.slow  # the middleware takes half a minute to notice
def test_a_policy_that_is_killed_meanwhile_is_noticed(stack, robot) -> None:
    """Last of the tests that share the stack: it is incomplete afterwards."""

    def kill(state: str, _figures: str) -> None:
        if state == "executing":
            os.kill(stack.processes.pids()["policy_node"], signal.SIGKILL)

    with pytest.raises(NoAnswer, match="/policy_node is gone, with the end of the instruction; see its log"):
        robot.say("stand still", 60.0, kill)
