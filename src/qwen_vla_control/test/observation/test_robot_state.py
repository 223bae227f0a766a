"""Where the robot is by its own streams: joint states of one or several publishers, odometry."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from embodiment_descriptions import load_robot
from qwen_vla_control.observation.robot_state import JointStates, Odometry
from qwen_vla_control.reasons import Reason, Refused

S = 10**9


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
