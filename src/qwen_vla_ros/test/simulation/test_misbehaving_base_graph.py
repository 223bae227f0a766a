# SPDX-License-Identifier: Apache-2.0
"""A base whose odometry lies, or whose wheels do not do what they are told: it is stopped, and says why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from misbehaving_robot import Fault, MisbehavingBase
from ros_peer import Processes

from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ChunkReport
from qwen_vla_ros.ros.distributions import distribution


@pytest.fixture(scope="module")
def started() -> Iterator[MisbehavingBase]:
    with Processes() as processes, MisbehavingBase(processes) as base:
        base.start()
        yield base


@pytest.fixture
def base(started: MisbehavingBase) -> MisbehavingBase:
    started.begin_anew()
    return started


@pytest.mark.parametrize("jump", [0.3, -1.0])
def test_odometry_that_jumps_is_refused_with_its_publisher_and_believed_again_later(base, jump):
    def glitch() -> None:
        base.misbehave(Fault.GLITCH, amount=jump)

    assert "/mobile_base_sim" in base.wait_until_refused(Reason.DOUBTFUL_STATE, "the base jumped by", glitch)
    base.pass_time(0.4)
    base.report(base.have_accepted(), ChunkReport.COMPLETED)
    base.assert_within_limits()


@pytest.mark.parametrize("fault", [Fault.GLITCH, Fault.ENCODER, Fault.SECOND_PUBLISHER])
def test_odometry_that_lies_during_a_motion_stops_the_base(base, fault):
    number = base.have_accepted()
    base.misbehave(fault, amount=0.5)
    base.assert_held(number, Reason.DOUBTFUL_STATE)
    base.assert_within_limits()


def test_two_publishers_of_odometry_are_a_fault(base):
    base.misbehave(Fault.SECOND_PUBLISHER, amount=0.01)
    names = ", /mobile_base_sim and /mobile_base_sim" if distribution().tells_publishers else "; stop all but one of"
    base.wait_until_refused(Reason.DOUBTFUL_STATE, f"has several publishers{names}")
    base.misbehave(Fault.SECOND_PUBLISHER, on=False)
    base.wait(lambda: base.verdict(base.send(base.chunk())).verdict == ChunkReport.ACCEPTED, "peace")


def test_wheels_that_do_not_follow_end_the_motion(base):
    base.misbehave(Fault.NOT_FOLLOWING)
    report = base.assert_held(base.have_accepted(), Reason.NOT_FOLLOWING)
    assert "the base should have moved" in report.message and "are its motors on" in report.message


def test_a_controller_that_is_deactivated_on_the_way_ends_the_motion(base):
    number, start = base.have_accepted(), base.x
    base.wait(lambda: base.x - start > 0.01, "the base to move")
    base.misbehave(Fault.INACTIVE, "cmd_vel")
    base.assert_held(number, Reason.NOT_FOLLOWING)


def test_what_a_base_cannot_do_is_refused_with_the_name_of_its_controller(base):
    request = Fault(fault=Fault.INACTIVE, name="arm_controller", on=True)
    answer = base.misbehave_unchecked(request)
    assert not answer.success and "there are: cmd_vel" in answer.message
    assert not base.misbehave_unchecked(Fault(fault=Fault.MOVED, amount=0.1)).success


def test_a_base_that_follows_completes_its_chunks(base):
    for _ in range(2):
        base.report(base.have_accepted(), ChunkReport.COMPLETED)
    base.assert_within_limits()
