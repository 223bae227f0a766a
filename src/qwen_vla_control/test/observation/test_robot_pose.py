# SPDX-License-Identifier: Apache-2.0
"""The pose of the whole robot for drawing: arms are required, the rest is included where known."""

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
        for source, reported in enumerate(aloha.joint_states):
            names = (n.removeprefix(reported.prefix) for n in aloha.joint_names if n.startswith(reported.prefix))
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


def test_a_base_needs_its_odometry_and_includes_its_wheels():
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


@pytest.mark.parametrize("lacking", ["left_turn", "right_slide", "lift"])
def test_arms_and_torso_must_be_known_and_fingers_need_not(rig, lacking):
    robot = rig()
    known = {name: 0.1 for name in robot.joint_names if "finger" not in name}
    reader = RobotReader(robot)
    reader.joints.take(0, joint_state(1, known), S)
    assert dict(reader.at(S).joints) == known
    reader = RobotReader(robot)
    reader.joints.take(0, joint_state(1, {name: 0.1 for name in known if name != lacking}), S)
    with pytest.raises(NotObserved, match=lacking):
        reader.at(S)


def test_what_is_drawn_may_be_half_a_second_off_or_as_far_as_is_asked_for(widowx):
    reader, (arm,) = RobotReader(widowx), widowx.arms
    reader.joints.take(0, joint_state(1, dict.fromkeys(arm.joints, 0.1)), S)
    assert reader.at(S + S // 2).joints and reader.at(3 * S, max_gap=2.0).joints
    for asked, gap in ((S + S // 2 + 10**6, {}), (S + S // 4, {"max_gap": 0.2})):
        with pytest.raises(NotObserved):
            reader.at(asked, **gap)


def test_a_base_is_where_its_odometry_says_at_the_time_that_is_asked_for():
    reader = RobotReader(load_robot("mobile_base"))
    for second in (1, 2):
        reader.odometry.take(odometry(second, float(second)), second * S)
    assert reader.latest().base[0, 3] == 2.0 and reader.latest().odometry_frame == "odom"
    assert reader.at(S).base[0, 3] == 1.0 and reader.at(4 * S, max_gap=2.0).base[0, 3] == 2.0
    with pytest.raises(NotObserved, match="odometry"):
        reader.at(3 * S)
