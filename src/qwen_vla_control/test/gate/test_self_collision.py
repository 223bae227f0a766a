"""Parts of the robot may not touch, except for those that are built to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodiment_descriptions import load_robot
from qwen_vla_control.gate.self_collision import SelfCollision
from qwen_vla_control.reasons import Reason

# A fixed post, a slider on a rail above it, and a second slider that mimics the first on the other side.
SLIDERS = """
<robot name="sliders">
  <link name="base"/>
  <link name="post"><collision><geometry><box size="0.1 0.1 0.1"/></geometry></collision></link>
  <link name="rail"/>
  <link name="left"><collision><geometry><box size="0.1 0.1 0.1"/></geometry></collision></link>
  <link name="right"><collision><geometry><sphere radius="0.05"/></geometry></collision></link>
  <joint name="stand" type="revolute"><parent link="base"/><child link="post"/><axis xyz="0 0 1"/>
    <limit lower="-3" upper="3" velocity="1" effort="1"/></joint>
  <joint name="lift" type="revolute"><parent link="base"/><child link="rail"/><axis xyz="0 0 1"/>
    <limit lower="-3" upper="3" velocity="1" effort="1"/></joint>
  <joint name="slide" type="prismatic"><parent link="rail"/><child link="left"/><axis xyz="1 0 0"/>
    <limit lower="-1" upper="1" velocity="1" effort="1"/></joint>
  <joint name="follow" type="prismatic"><parent link="rail"/><child link="right"/><axis xyz="0 1 0"/>
    <limit lower="-1" upper="1" velocity="1" effort="1"/><mimic joint="slide" multiplier="-2"/></joint>
</robot>
"""
JOINTS = ("slide", "lift", "stand")
HOME = np.array([0.5, 0.0, 0.0])


@pytest.fixture(scope="module")
def sliders() -> SelfCollision:
    return SelfCollision(SLIDERS, JOINTS, HOME)


def motion(*slides: float) -> np.ndarray:
    return np.array([[slide, 0.0, 0.0] for slide in slides])


@given(st.floats(0.11, 0.9), st.floats(0.11, 0.9))
@settings(max_examples=30)
def test_parts_that_stay_apart_are_free(start, end):
    sliders = SelfCollision(SLIDERS, JOINTS, HOME)
    assert sliders.check(motion(start, end)) == []


@given(st.floats(0.11, 0.9), st.floats(-0.9, 0.099))
@settings(max_examples=30)
def test_parts_that_would_touch_are_named_also_between_two_rows(start, end):
    sliders = SelfCollision(SLIDERS, JOINTS, HOME)
    (violation,) = sliders.check(motion(start, start, end))
    assert violation.reason is Reason.SELF_COLLISION
    assert "step 1" in violation.message and "'post'" in violation.message and "'left'" in violation.message


def test_a_joint_that_mimics_moves_its_part(sliders):
    # right is at y = -2 * slide: apart from the post as long as that is more than 0.1
    assert sliders.check(motion(0.5, 0.2)) == []
    turned = np.array([[0.3, 0.0, 0.0], [0.3, 0.0, 0.0]])
    assert sliders.check(turned) == []
    assert {("left", "post"), ("post", "right")} <= {tuple(sorted(pair)) for pair in sliders.pairs}


def test_what_touches_already_may_come_apart_but_not_go_deeper(sliders):
    assert sliders.check(motion(0.06, 0.08, 0.2)) == []
    assert sliders.check(motion(0.08, 0.08)) == []
    (violation,) = sliders.check(motion(0.08, 0.06))
    assert violation.reason is Reason.SELF_COLLISION
    assert sliders.check(motion(0.06, 0.2, 0.06)), "once apart, it must stay apart"
    assert sliders.check(motion(0.5, 0.2)) == [], "an earlier question leaves no trace"


def test_a_robot_without_shapes_cannot_be_checked():
    bare = "<robot name='bare'><link name='base'/></robot>"
    with pytest.raises(ValueError, match="no collision shapes"):
        SelfCollision(bare, (), np.zeros(0))


@pytest.mark.parametrize("name", ["widowx", "aloha"])
def test_home_is_free_and_folding_the_arm_onto_itself_is_not(name):
    robot = load_robot(name)
    home = np.array([robot.home[joint] for joint in robot.joint_names])
    checked = SelfCollision(robot.urdf, robot.joint_names, home)
    assert checked.check(np.stack([home, home])) == []
    folded = home.copy()
    elbow, shoulder = robot.arms[0].joints[2], robot.arms[0].joints[1]
    folded[robot.joint_names.index(shoulder)] = robot.limits[shoulder].upper
    folded[robot.joint_names.index(elbow)] = robot.limits[elbow].upper
    (violation,) = checked.check(np.linspace(home, folded, 20))
    assert violation.reason is Reason.SELF_COLLISION


def test_two_arms_may_not_touch_each_other():
    aloha = load_robot("aloha")
    home = np.array([aloha.home[joint] for joint in aloha.joint_names])
    checked = SelfCollision(aloha.urdf, aloha.joint_names, home)
    reaching = home.copy()
    for arm in aloha.arms:
        for joint, value in zip(arm.joints[1:3], (1.2, -0.6), strict=True):
            reaching[aloha.joint_names.index(joint)] = value
    (violation,) = checked.check(np.linspace(home, reaching, 40))
    assert "follower_left" in violation.message and "follower_right" in violation.message
