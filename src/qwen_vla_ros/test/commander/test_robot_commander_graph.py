# SPDX-License-Identifier: Apache-2.0
"""The robot's executor, commanded from Python: what is done, and what each failure says."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator

import psutil
import pytest
from misbehaving_robot import MisbehavingRobot
from ros_peer import Processes
from std_msgs.msg import Bool

from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ChunkReport
from qwen_vla_ros.commander import CommandRefused, NoAnswer, RobotCommander, Verdict

MOVED = 0.5  # [rad]


@pytest.fixture(scope="module")
def simulated() -> Iterator[MisbehavingRobot]:
    with Processes() as processes, MisbehavingRobot(processes) as robot:
        robot.start()
        yield robot


@pytest.fixture(scope="module")
def commander(simulated: MisbehavingRobot) -> Iterator[RobotCommander]:
    with RobotCommander() as robot:
        yield robot


@pytest.fixture
def arm(simulated: MisbehavingRobot) -> MisbehavingRobot:
    """A robot at rest, away from home."""
    simulated.begin_anew()
    simulated.report(simulated.have_accepted(), ChunkReport.COMPLETED)
    simulated.pass_time(0.5)
    return simulated


def distance_from_home(commander: RobotCommander) -> float:
    home = commander.embodiment.home
    return max(abs(position - home[name]) for name, position in commander.joint_positions().items())


def test_it_goes_home_and_returns_when_it_is_there(arm, commander) -> None:
    assert distance_from_home(commander) > 0.05
    commander.go_home()
    assert distance_from_home(commander) < 0.02
    assert set(commander.joint_positions()) == set(commander.embodiment.joint_names)


def test_ctrl_c_holds_the_arm_on_its_way_home(arm, commander) -> None:
    start = arm.arm()

    def interrupt() -> None:
        arm.wait(lambda: abs(arm.arm() - start).max() > 0.02, "the arm to be on its way")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        commander.go_home()
    thread.join()
    arm.wait(lambda: commander.reports[-1].verdict is Verdict.HELD, "the report of the hold")
    assert commander.reports[-1].reasons == {Reason.CANCELED}
    assert distance_from_home(commander) > 0.02


def test_a_motion_that_takes_too_long_is_held(arm, commander) -> None:
    with pytest.raises(NoAnswer, match="no report of the end .*home motion of .* within 0 s"):
        commander.go_home(timeout=0.1)
    assert commander.hold() == "nothing was being executed"


def test_stop_lasts_until_resume(arm, commander) -> None:
    assert "chunks are refused until ~/resume" in commander.stop()
    with pytest.raises(CommandRefused, match="/executor_node/go_home: home motion refused: .*~/resume"):
        commander.go_home()
    assert commander.resume() == "chunks are accepted again"
    commander.go_home()


def test_a_pressed_emergency_stop_is_not_reset(arm, commander) -> None:
    button = arm.node.create_publisher(Bool, "estop", 1)
    arm.wait(lambda: button.get_subscription_count() >= 2, "executor_node to hear the emergency stop")
    button.publish(Bool(data=True))
    arm.wait_until_refused(Reason.EMERGENCY_STOP, "emergency stop")
    with pytest.raises(CommandRefused, match="reset_estop: .*still pressed"):
        commander.reset_estop()
    button.publish(Bool(data=False))
    arm.wait(lambda: arm.trigger("executor_node/reset_estop").success, "the release")
    assert commander.reset_estop()
    arm.in_turn(lambda: arm.node.destroy_publisher(button))


def test_an_arm_that_was_moved_by_hand_goes_home_after_it_was_resynchronized(arm, commander) -> None:
    arm.push_by_hand("waist", MOVED)
    with pytest.raises(CommandRefused, match="'waist'.*~/resynchronize"):
        commander.go_home()
    arm.pass_time(0.5)  # it comes to rest
    assert "arm_controller" in commander.resynchronize()
    arm.wait(lambda: commander.reports[-1].chunk_id == 0, "the report of its end")
    assert commander.reports[-1].verdict is Verdict.COMPLETED
    commander.go_home()


def test_the_reports_say_why_a_chunk_was_refused(arm, commander) -> None:
    number = arm.send(arm.chunk(embodiment="nobody"))
    told = arm.wait(lambda: [r for r in commander.reports if r.chunk_id == number], "the report")
    assert told[0].verdict is Verdict.REFUSED and told[0].reasons == {Reason.WRONG_EMBODIMENT}
    assert "nobody" in told[0].message


def test_joints_that_are_not_reported_are_named_with_their_topic(arm, commander) -> None:
    commander.joint_positions()
    (simulator,) = [p for p in psutil.Process().children() if "widowx_sim" in " ".join(p.cmdline())]
    simulator.suspend()
    try:
        with pytest.raises(NoAnswer, match="no joint positions within 1 s: .* on /joint_states; is the driver running"):
            for _ in range(5):  # some may be on their way
                commander.joint_positions(timeout=1.0)
    finally:
        simulator.resume()


def test_a_robot_without_a_policy_says_so(arm, commander) -> None:
    text = f"no active /policy_node within 1 s: no /policy_node is running in ROS domain {os.environ['ROS_DOMAIN_ID']}"
    with RobotCommander(patience=1.0) as impatient, pytest.raises(NoAnswer, match=text):
        impatient.say("wave")


def test_a_namespace_without_a_robot_says_what_to_do(simulated) -> None:
    text = "no service /lab/executor_node/stop within 1 s: no /lab/executor_node is running .*; start a robot"
    with RobotCommander("lab", patience=1.0) as nobody:
        with pytest.raises(NoAnswer, match=text):
            nobody.stop()
        with pytest.raises(NoAnswer, match=re.escape("no active /lab/executor_node within 1 s")):
            nobody.wait_until_active()
