# SPDX-License-Identifier: Apache-2.0
"""executor_node with the simulated robot: the arm really moves to the commanded position, and really stops."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from ros_peer import Peer, Processes

from embodiment_descriptions import Kinematics
from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ChunkReport

REACHED = 0.02  # [rad] servo error of the simulated arm at rest
STILL = 0.002  # [rad] that a joint may move in a third of a second and still count as at rest


@pytest.fixture(scope="module")
def robot():
    """The peer of a running simulator and an active executor, all in simulated time."""
    with Processes() as processes, Peer(simulated=True) as peer:
        processes.start("widowx_sim", use_sim_time=True, seed=0)
        peer.executor = processes.start("executor_node", use_sim_time=True)
        peer.wait_until_active("executor_node")
        peer.silent.clear()
        peer.wait_until_connected()
        peer.clear()
        yield peer


def arm(peer) -> np.ndarray:
    """Measured positions of the arm joints."""
    return np.array([peer.joints[name] for name in peer.embodiment.arms[0].joints])


def go_home(peer) -> None:
    assert peer.trigger("executor_node/go_home").success
    peer.report(0, ChunkReport.COMPLETED)
    home = np.array([peer.embodiment.home[name] for name in peer.embodiment.arms[0].joints])
    peer.wait(lambda: np.abs(arm(peer) - home).max() < REACHED, "the arm at home")
    peer.clear()


def set_out(peer) -> int:
    """Start a motion of the arm from home; returns the number of the chunk."""
    go_home(peer)
    start = arm(peer)
    number = peer.have_accepted()
    peer.wait(lambda: np.abs(arm(peer) - start).max() > 0.02, "the arm to move")
    return number


def wait_for_simulated(peer, seconds: float) -> None:
    start = peer.node.get_clock().now().nanoseconds
    peer.wait(lambda: peer.node.get_clock().now().nanoseconds - start > seconds * 1e9, f"{seconds} s of simulated time")


def test_the_tip_reaches_the_end_of_the_chunk(robot):
    go_home(robot)
    kinematics = Kinematics(robot.embodiment)
    before = kinematics.forward(arm(robot))
    number = robot.have_accepted()
    robot.report(number, ChunkReport.COMPLETED)
    target = before[:3, 3] + 0.04 * before[:3, 0]  # eight of sixteen steps of 5 mm along the tool

    def error() -> float:
        return float(np.linalg.norm(kinematics.forward(arm(robot))[:3, 3] - target))

    robot.wait(lambda: error() < 0.005, "the tip at the eighth step")
    assert len(robot.arm_commands) == len(robot.gripper_commands) == 1


def test_stop_stops_a_motion_that_was_accepted(robot):
    go_home(robot)
    start = arm(robot)
    number = robot.have_accepted()
    end = np.array(robot.wait(lambda: robot.arm_commands, "arm command")[0][1].points[-1].positions)
    robot.wait(lambda: np.abs(arm(robot) - start).max() > 0.02, "the arm to move")
    assert robot.trigger("executor_node/stop").success
    assert robot.report(number, ChunkReport.HELD).reason_codes.tolist() == [Reason.STOPPED]
    hold = np.array(robot.wait(lambda: robot.arm_commands[1:], "hold")[0][1].points[0].positions)
    wait_for_simulated(robot, 0.5)
    stopped = arm(robot)
    wait_for_simulated(robot, 0.33)
    assert np.abs(arm(robot) - stopped).max() < STILL
    assert np.abs(stopped - hold).max() < REACHED < np.abs(end - stopped).max()
    assert robot.trigger("executor_node/resume").success


def test_it_holds_when_the_policy_falls_silent(robot):
    number = set_out(robot)
    robot.silent.add("heartbeat")
    assert robot.report(number, ChunkReport.HELD).reason_codes.tolist() == [Reason.POLICY_SILENT]
    wait_for_simulated(robot, 0.5)
    stopped = arm(robot)
    wait_for_simulated(robot, 0.33)
    assert np.abs(arm(robot) - stopped).max() < STILL


def test_it_holds_when_the_simulation_stops(robot):
    robot.silent.clear()
    robot.wait_until_connected()
    number = set_out(robot)
    assert robot.set_parameter("widowx_sim", "mode", "stepped")
    (reason,) = robot.report(number, ChunkReport.HELD).reason_codes
    assert reason in (Reason.JOINT_STATE_LOST, Reason.CLOCK_STOPPED)
    sent = len(robot.arm_commands)
    assert robot.set_parameter("widowx_sim", "mode", "realtime")
    wait_for_simulated(robot, 0.5)
    stopped = arm(robot)
    wait_for_simulated(robot, 0.33)
    assert np.abs(arm(robot) - stopped).max() < STILL and len(robot.arm_commands) == sent


def test_an_executor_that_was_frozen_does_not_pull_the_arm_back(robot):
    """When it continues, its watchdogs are due before it has received the current time and joint positions."""
    robot.silent.clear()
    robot.wait_until_connected()
    number = set_out(robot)
    robot.executor.send_signal(signal.SIGSTOP)
    wait_for_simulated(robot, 0.8)
    robot.executor.send_signal(signal.SIGCONT)
    robot.wait(
        lambda: any(r.chunk_id == number and r.verdict != ChunkReport.ACCEPTED for r in robot.reports), "its end"
    )
    wait_for_simulated(robot, 1.2)  # the simulator reports once a second
    limits = {item.key: item.value for item in robot.latest_diagnostics("widowx_sim: limits").values}
    assert float(limits["largest share of a speed limit"]) < 0.3, limits  # the motion itself needs 0.15
