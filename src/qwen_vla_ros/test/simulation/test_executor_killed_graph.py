# SPDX-License-Identifier: Apache-2.0
"""What `kill -9` of executor_node leaves behind: the controllers finish what they have accepted, and nothing else."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest
from misbehaving_robot import MisbehavingRobot
from ros_peer import Processes
from std_msgs.msg import Bool

LEAST = 0.002  # [rad] within a tenth of a second: it moves


@pytest.fixture
def robot() -> Iterator[MisbehavingRobot]:
    with Processes() as processes, MisbehavingRobot(processes) as robot:
        robot.start()
        robot.pass_time(0.5)
        yield robot


@pytest.mark.parametrize("horizon", [8, *(pytest.param(shorter, marks=pytest.mark.slow) for shorter in (4, 2))])
def test_the_arm_moves_to_the_end_of_the_execution_horizon_and_no_emergency_stop_is_heard(robot, horizon):
    button = robot.node.create_publisher(Bool, "estop", 1)
    robot.have_accepted(execution_horizon=horizon)
    robot.executor.send_signal(signal.SIGKILL)
    robot.executor.wait()
    killed, start = robot.node.get_clock().now().nanoseconds, robot.arm()
    button.publish(Bool(data=True))
    last = killed
    while robot.node.get_clock().now().nanoseconds < last + 0.5e9:
        before = robot.arm()
        robot.pass_time(0.1)
        if np.abs(robot.arm() - before).max() > LEAST:
            last = robot.node.get_clock().now().nanoseconds
    moved, seconds = np.abs(robot.arm() - start).max(), (last - killed) / 1e9
    print(f"{horizon} steps: moved on for {seconds:.1f} s, by up to {moved:.3f} rad")
    period = robot.embodiment.period
    assert (horizon - 1) * period - 0.3 < seconds < horizon * period + 0.4
    assert moved > 0.01 * horizon
    robot.assert_never_jumped()
