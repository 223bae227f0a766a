"""What the executor knows: who stopped it, who commands it, where the robot is."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodiment_descriptions import load_robot
from qwen_vla_ros.clock_watch import ClockWatch
from qwen_vla_ros.gate import Reason, Refused
from qwen_vla_ros.policy_link import PolicyLink
from qwen_vla_ros.robot_state import JointStates, Odometry
from qwen_vla_ros.stop_latch import StopLatch

S = 10**9


# Stopped --------------------------------------------------------------------------------------------------------------


def test_the_emergency_stop_latches_until_it_is_released_and_reset():
    latch = StopLatch(required=False, timeout=0.5)
    assert latch.objection(0) is None and not latch.on_emergency_stop(False, 0)
    assert latch.on_emergency_stop(True, S) and not latch.on_emergency_stop(True, 2 * S), "closes once"
    assert latch.objection(2 * S).reason is Reason.EMERGENCY_STOP
    assert "still pressed" in latch.reset(2 * S)
    latch.on_emergency_stop(False, 3 * S)
    assert latch.objection(3 * S).reason is Reason.EMERGENCY_STOP, "releasing the button is not enough"
    assert latch.reset(3 * S) == "" and latch.objection(3 * S) is None


def test_resume_does_not_open_what_the_emergency_stop_closed():
    latch = StopLatch(required=False, timeout=0.5)
    latch.stopped = True
    latch.on_emergency_stop(True, 0)
    latch.stopped = False
    assert latch.objection(0).reason is Reason.EMERGENCY_STOP
    latch.on_emergency_stop(False, 0)
    latch.stopped = True
    assert latch.reset(0) == "" and latch.objection(0).reason is Reason.STOPPED


def test_a_required_emergency_stop_must_be_heard_and_its_silence_latches():
    latch = StopLatch(required=True, timeout=0.5)
    assert "never" in latch.objection(0).message and not latch.watch(0), "nothing to reset before it was heard"
    latch.on_emergency_stop(False, S)
    assert latch.objection(S) is None and not latch.watch(S + S // 4)
    assert latch.watch(2 * S) and not latch.watch(2 * S)
    assert "1.0 s ago" in latch.reset(2 * S)
    latch.on_emergency_stop(False, 3 * S)
    assert latch.objection(3 * S).reason is Reason.EMERGENCY_STOP, "a button that comes back does not open it"
    assert latch.reset(3 * S) == "" and latch.objection(3 * S) is None


@given(st.lists(st.tuples(st.sampled_from(["press", "release", "reset", "resume", "stop"]), st.floats(0, 1))))
def test_nothing_but_a_reset_of_a_released_button_opens_it(events):
    latch, now, closed, pressed = StopLatch(required=False, timeout=0.5), 0, False, False
    for event, wait in events:
        now += int(wait * S)
        if event in ("press", "release"):
            pressed = event == "press"
            closed |= pressed
            latch.on_emergency_stop(pressed, now)
        elif event == "reset":
            closed &= pressed
            assert bool(latch.reset(now)) == pressed
        else:
            latch.stopped = event == "stop"
        objection = latch.objection(now)
        assert (objection is not None and objection.reason is Reason.EMERGENCY_STOP) == closed


def test_ros_time_that_stands_still_is_noticed_on_the_steady_clock():
    watch = ClockWatch()
    assert watch.standstill(5 * S, 100 * S) == 0.0
    assert watch.standstill(5 * S, 101 * S) == 1.0
    assert watch.standstill(5 * S + 1, 102 * S) == 0.0
    assert watch.standstill(4 * S, 103 * S) == 0.0, "set back is not standing still"


# The policy -----------------------------------------------------------------------------------------------------------


def test_a_chunk_must_obey_the_sentence_of_the_policy(good_chunk):
    link = PolicyLink()
    link.on_heartbeat(0, 0.4)

    def reasons(chunk):
        return [violation.reason for violation in link.objections(chunk, 0, 0.4)]

    assert reasons(good_chunk) == [], "a policy that names no sentence is believed"
    assert reasons(replace(good_chunk, instruction=" ")) == [Reason.WRONG_INSTRUCTION]
    link.on_instruction("pick up the red cube")
    assert reasons(good_chunk) == []
    link.on_instruction("open the drawer")
    assert reasons(good_chunk) == [Reason.WRONG_INSTRUCTION]
    link.on_instruction("")
    (violation,) = link.objections(good_chunk, 0, 0.4)
    assert violation.reason is Reason.WRONG_INSTRUCTION and "has ended" in violation.message


def test_refusals_are_counted_in_a_row(good_chunk):
    link = PolicyLink()
    for _ in range(3):
        link.on_verdict(good_chunk, accepted=False)
    assert link.refusals == 3
    link.on_verdict(good_chunk, accepted=True)
    assert link.refusals == 0


def test_chunks_come_in_order_until_another_process_counts_from_one(good_chunk):
    link = PolicyLink()
    link.on_heartbeat(0, 0.4)
    link.on_verdict(replace(good_chunk, chunk_id=7), accepted=True)
    assert Reason.WRONG_ORDER in [v.reason for v in link.objections(good_chunk, 0, 0.4)]
    assert link.silent_text(S, 0.4) == "policy_node: no heartbeat for 1.00 s (limit 0.40 s)"
    link.on_heartbeat(S, 0.4)
    assert link.objections(good_chunk, S, 0.4) == []


# The robot ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aloha():
    return load_robot("aloha", hardware="real")


def states_of(aloha) -> JointStates:
    topics = [f"/{source.topic}" for source in aloha.joint_states]
    return JointStates(aloha, aloha.joint_names, topics, 0.5)


def message_of(aloha, source: int) -> tuple[list[str], list[float]]:
    """What one arm says: its joints without the name of the arm, in its own order, and others beside them."""
    prefix = aloha.joint_states[source].prefix
    own = [name.removeprefix(prefix) for name in aloha.joint_names if name.startswith(prefix)]
    names = ["gripper", *reversed(own), "right_finger"]
    return names, [9.0, *(aloha.home[prefix + name] for name in reversed(own)), 9.0]


def test_two_arms_that_use_the_same_names_are_told_apart_by_their_topics(aloha):
    states = states_of(aloha)
    assert "no message yet on /follower_left/joint_states" in states.fault(S, 0)
    states.push(0, S, *message_of(aloha, 0), 0)
    assert "/follower_right/joint_states" in states.fault(S, 0)
    states.push(1, S, *message_of(aloha, 1), 0)
    assert states.fault(S, 0) == ""
    assert np.allclose(states.measured(), [aloha.home[name] for name in aloha.joint_names])
    assert "/follower_left" in states.fault(2 * S, S)


def test_a_message_with_a_number_that_is_none_counts_for_nothing(aloha):
    states = states_of(aloha)
    names, positions = message_of(aloha, 0)
    positions[2] = float("nan")
    states.push(0, S, names, positions, 0)
    assert states.fault(S, 0) == f"joint state of 'follower_left/{names[2]}' is nan"
    states.push(0, S, names, positions[:3], 0)
    states.push(0, S, *message_of(aloha, 0), 0)
    states.push(1, S, *message_of(aloha, 1), 0)
    assert states.fault(S, 0) == ""


@pytest.mark.parametrize("sign", [1, -1])
def test_a_joint_that_turns_without_end_goes_on_at_the_half_turn(turning, sign):
    """A driver that reports angles within -pi .. pi seems to jump there; a joint with limits that jumps does jump."""
    states = JointStates(turning, ["wrist_rotate", "waist"], ["/joint_states"], 0.5)
    turned = sign * np.arange(0.0, 20.0, 0.5)
    for tick, angle in enumerate(turned):
        told = np.arctan2(np.sin(angle), np.cos(angle))
        states.push(0, S + tick, ["wrist_rotate", "waist"], [told, told], 0)
        np.testing.assert_allclose(states.measured(), [angle, told], atol=1e-12)
    np.testing.assert_allclose(states.at(S, 0.1), turned[0], atol=1e-12)


def test_a_joint_that_nobody_reports_is_named(aloha):
    states = states_of(aloha)
    names, positions = message_of(aloha, 0)
    states.push(0, S, names[:-2], positions[:-2], 0)
    states.push(1, S, *message_of(aloha, 1), 0)
    assert states.fault(S, 0).startswith("joint states lack follower_left/waist")


def test_another_publisher_that_knows_less_does_not_disturb(aloha):
    states = states_of(aloha)
    states.push(0, S, *message_of(aloha, 0), 0)
    states.push(1, S, *message_of(aloha, 1), 0)
    states.push(0, S + 1, ["waist"], [0.5], 0)
    states.push(0, S + 2, ["wheel"], [0.5], 0)
    assert states.fault(S + 2, 0) == "" and states.measured()[0] == aloha.home["follower_left/waist"]


def test_the_state_at_the_observation_is_the_nearest_or_none(aloha):
    states = states_of(aloha)
    for tick in range(5):
        for source in (0, 1):
            names, positions = message_of(aloha, source)
            states.push(source, S + tick * S // 10, names, [p + tick for p in positions], 0)
    home = np.array([aloha.home[name] for name in aloha.joint_names])
    assert np.allclose(states.at(S + 21 * S // 100, 0.1), home + 2)
    with pytest.raises(Refused) as refused:
        states.at(2 * S, 0.1)
    assert refused.value.reasons == (Reason.NO_JOINT_STATE,)


def pose(x: float, y: float, heading: float) -> SimpleNamespace:
    quaternion = SimpleNamespace(x=0.0, y=0.0, z=np.sin(heading / 2), w=np.cos(heading / 2))
    return SimpleNamespace(position=SimpleNamespace(x=x, y=y, z=0.0), orientation=quaternion)


def test_odometry_is_a_pose_in_the_plane_or_a_fault():
    odometry = Odometry("/odom", 0.5)
    assert "no message yet on /odom" in odometry.fault(S, 0)
    unset = pose(0.0, 0.0, 0.0)
    unset.orientation.w = 0.0
    odometry.push(S, "odom", unset, 0)
    assert "is none" in odometry.fault(S, 0)
    odometry.push(S, "odom", pose(1.0, 2.0, -2.5), 0)
    assert odometry.fault(S, 0) == "" and odometry.frame == "odom"
    assert np.allclose(odometry.measured(), [1.0, 2.0, -2.5])
    assert odometry.fault(S, S) != "", "silent on the steady clock, whatever ROS time says"
    with pytest.raises(Refused) as refused:
        odometry.at(3 * S, 0.1)
    assert refused.value.reasons == (Reason.NO_ODOMETRY,)
