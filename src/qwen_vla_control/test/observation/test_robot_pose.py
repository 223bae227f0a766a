"""Where the whole robot is for those who draw it: arms must be known, the rest is taken along."""

from __future__ import annotations

import numpy as np
import pytest
from nav_msgs.msg import Odometry
from sensor_msgs.msg import JointState

from embodiment_descriptions import load_robot
from qwen_vla_control.observation.robot_pose import RobotReader
from qwen_vla_control.observation.streams import NotObserved

S = 10**9


def joint_state(second: int, positions: dict[str, float]) -> JointState:
    message = JointState(name=list(positions), position=list(positions.values()))
    message.header.stamp.sec = second
    return message


def odometry(second: int, x: float) -> Odometry:
    message = Odometry()
    message.header.stamp.sec, message.header.frame_id, message.pose.pose.position.x = second, "odom", x
    return message


def test_joint_states_of_several_topics_are_one_robot():
    aloha = load_robot("aloha", hardware="real")
    reader = RobotReader(aloha)
    assert reader.latest() is None and reader.odometry is None
    for second in range(3):
        for source, told in enumerate(aloha.joint_states):
            names = (n.removeprefix(told.prefix) for n in aloha.joint_names if n.startswith(told.prefix))
            message = joint_state(second, dict.fromkeys(names, 10.0 * source + second))
            reader.joints.take(source, message, second * S)
    assert reader.at(1 * S).joints["follower_left/elbow"] == 1.0
    assert reader.at(1 * S).joints["follower_right/elbow"] == 11.0
    assert reader.latest().joints["follower_right/left_finger"] == 12.0
    with pytest.raises(NotObserved, match="follower_left/joint_states"):
        reader.at(9 * S)


def test_an_arm_can_be_drawn_without_its_gripper_but_not_without_a_joint(widowx):
    reader, (arm,) = RobotReader(widowx), widowx.arms
    reader.joints.take(0, joint_state(1, dict.fromkeys(arm.joints, 0.1)), S)
    assert set(reader.at(S).joints) == set(arm.joints) and reader.at(S).base is None
    lacking = RobotReader(widowx)
    lacking.joints.take(0, joint_state(1, dict.fromkeys(arm.joints[:-1], 0.1)), S)
    with pytest.raises(NotObserved, match=arm.joints[-1]):
        lacking.at(S)


def test_a_base_needs_its_odometry_and_takes_its_wheels_along():
    base = load_robot("mobile_base")
    reader, wheel = RobotReader(base), RobotReader(base).joints.names[0]
    reader.joints.take(0, joint_state(1, {wheel: 0.5}), S)
    assert reader.latest().joints == {wheel: 0.5} and reader.latest().base is None
    with pytest.raises(NotObserved, match="odometry: no message yet on odom"):
        reader.at(S)
    reader.odometry.take(odometry(3, 1.5), 3 * S)
    found = reader.at(3 * S)
    assert np.allclose(found.base[:3, 3], [1.5, 0.0, 0.0]) and found.odometry_frame == "odom"
    assert found.joints == {}, "the wheels were measured too long before"
