# SPDX-License-Identifier: Apache-2.0
"""Two arms of which one executes nothing: both are held, or neither is commanded."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest
from misbehaving_robot import Fault, MisbehavingArms
from ros_peer import Processes

from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ChunkReport

KNOWS_ACTIVITY = importlib.util.find_spec("controller_manager_msgs") is not None
RIGHT = "follower_right_controller"


@pytest.fixture(scope="module")
def started_arms() -> Iterator[MisbehavingArms]:
    with Processes() as processes, MisbehavingArms(processes) as arms:
        arms.start()
        yield arms


@pytest.fixture
def arms(started_arms: MisbehavingArms) -> MisbehavingArms:
    started_arms.begin_anew()
    return started_arms


def assert_both_held(arms: MisbehavingArms, number: int, *reasons: Reason) -> ChunkReport:
    """The motion was held, both controllers were told so, and both arms stand still."""
    report = arms.assert_held(number, *reasons)
    for command in arms.embodiment.commands:
        topic = command.topic
        arms.wait(lambda topic=topic: len(arms.received[topic]) == 2, f"the hold on {topic}")
        assert len(arms.received[topic][-1][1].points) == 1
    arms.pass_time(0.3)
    stopped = arms.waists()
    arms.pass_time(0.5)
    np.testing.assert_allclose(arms.waists(), stopped, atol=0.005)
    arms.assert_never_jumped()
    return report


def test_one_of_two_controllers_that_is_deactivated_on_the_way_holds_both_arms(arms):
    number = arms.have_accepted()
    arms.wait(lambda: (arms.waists() > 0.02).all(), "both arms to move")
    arms.misbehave(Fault.INACTIVE, RIGHT)
    assert_both_held(arms, number, Reason.NOT_FOLLOWING, Reason.NOT_READY)


def test_a_controller_that_is_active_again_before_anybody_notices_does_not_make_up_for_what_it_missed(arms):
    number = arms.have_accepted()
    arms.wait(lambda: (arms.waists() > 0.02).all(), "both arms to move")
    arms.misbehave(Fault.INACTIVE, RIGHT)
    arms.pass_time(0.1)
    stood = arms.waists()[1]
    arms.misbehave(Fault.INACTIVE, RIGHT, on=False)
    assert_both_held(arms, number, Reason.NOT_FOLLOWING, Reason.NOT_READY)
    assert arms.waists()[1] == pytest.approx(stood, abs=0.01)


def test_one_of_two_controllers_that_is_inactive_before(arms):
    arms.misbehave(Fault.INACTIVE, RIGHT)
    if KNOWS_ACTIVITY:
        arms.wait_until_told(f"{RIGHT} is inactive")
        assert f"{RIGHT} is inactive" in arms.refusal()[1]
        assert not any(arms.received[command.topic] for command in arms.embodiment.commands)
        return
    report = assert_both_held(arms, arms.have_accepted(), Reason.NOT_FOLLOWING)
    assert "'follower_right/waist'" in report.message


def test_hardware_of_one_of_two_arms_that_ignores_commands_holds_both(arms):
    arms.misbehave(Fault.NOT_FOLLOWING, "follower_right/waist")
    report = assert_both_held(arms, arms.have_accepted(), Reason.NOT_FOLLOWING)
    assert "'follower_right/waist'" in report.message and "did not follow, held where measured" in report.message
    assert arms.waists()[0] > 0.02 > abs(arms.waists()[1])


def test_two_arms_that_follow_complete_their_chunk(arms):
    arms.report(arms.have_accepted(), ChunkReport.COMPLETED)
    np.testing.assert_allclose(arms.waists(), 0.4, atol=0.05)
    arms.assert_never_jumped()
