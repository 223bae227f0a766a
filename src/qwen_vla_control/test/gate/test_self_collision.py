# SPDX-License-Identifier: Apache-2.0
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


# What is looked at ----------------------------------------------------------------------------------------------------


def robot_of(*bodies: tuple[str, str, str, str], more: str = "") -> str:
    """URDF of (name, parent, type of its joint, size of its box "x y z" or nothing); joints are called to_<name>."""
    text = "<robot name='made'><link name='ground'/>"
    for name, parent, kind, size in bodies:
        box = f"<collision><geometry><box size='{size}'/></geometry></collision>" if size else ""
        axis = "0 0 1" if kind == "continuous" else "1 0 0"
        text += f"<link name='{name}'>{box}</link><joint name='to_{name}' type='{kind}'><parent link='{parent}'/>"
        text += (
            f"<child link='{name}'/><axis xyz='{axis}'/><limit lower='-9' upper='9' velocity='1' effort='1'/></joint>"
        )
    return text + more + "</robot>"


def pairs_of(checked: SelfCollision) -> list[list[str]]:
    return sorted(sorted(pair) for pair in checked.pairs)


BOX = "0.1 0.1 0.1"


@pytest.mark.parametrize("names", ["abc", "cba", "bac"])
def test_neighbors_may_touch_and_others_not_whatever_they_are_called(names):
    first, second, third = names
    text = robot_of(
        (first, "ground", "prismatic", BOX), (second, first, "prismatic", BOX), (third, second, "prismatic", BOX)
    )
    joints, home = [f"to_{name}" for name in (first, second, third)], np.array([0.0, 0.5, 0.5])
    checked = SelfCollision(text, joints, home)
    assert pairs_of(checked) == [sorted([first, third])]
    assert checked.check(np.array([home, [0.0, 0.0, 0.5], [0.0, 0.5, 0.0]])) == []
    assert checked.check(np.array([home, [0.0, 0.5, -0.45]])) != []


def test_two_shapes_are_enough_and_one_has_nothing_to_touch():
    two = robot_of(("a", "ground", "prismatic", BOX), ("b", "ground", "prismatic", BOX))
    assert pairs_of(SelfCollision(two, ("to_a", "to_b"), np.array([0.0, 0.5]))) == [["a", "b"]]
    with pytest.raises(ValueError, match="no collision shapes"):
        SelfCollision(robot_of(("a", "ground", "prismatic", BOX)), ("to_a",), np.zeros(1))


def test_a_description_that_cannot_be_read_is_an_error():
    mesh = "<link name='m'><collision><geometry><mesh filename='file:///none.stl'/></geometry></collision></link>"
    mesh += "<joint name='to_m' type='fixed'><parent link='ground'/><child link='m'/></joint>"
    with pytest.raises(ValueError, match="self-collision cannot be checked: "):
        SelfCollision(robot_of(("a", "ground", "prismatic", BOX), more=mesh), ("to_a",), np.zeros(1))


def test_what_touches_at_home_is_not_looked_at_and_all_else_is():
    at_home = SelfCollision(SLIDERS, JOINTS, np.array([0.08, 0.0, 0.0]))  # left is in the post, right beside it
    assert pairs_of(at_home) == [["left", "right"], ["post", "right"]]
    (violation,) = at_home.check(motion(0.08, 0.0))
    assert "'right'" in violation.message


@pytest.mark.parametrize(("gap", "pairs"), [(-1e-4, 0), (0.5e-4, 0), (1.5e-4, 1)])
def test_parts_that_are_closer_at_home_than_rounding_touch_there(gap, pairs):
    two = robot_of(("a", "ground", "prismatic", BOX), ("b", "ground", "prismatic", BOX))
    assert len(SelfCollision(two, ("to_a", "to_b"), np.array([0.0, 0.1 + gap])).pairs) == pairs


# When parts touch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "touches"), [(-1e-4, False), (0.9e-4, False), (1.1e-4, True)])
@pytest.mark.parametrize("side", [1, -1])
def test_parts_that_slide_along_each_other_do_not_touch(sliders, depth, touches, side):
    if side < 0:
        sliders = SelfCollision(SLIDERS, JOINTS, -HOME)
    assert bool(sliders.check(motion(side * 0.5, side * (0.1 - depth)))) == touches


@given(st.floats(0.031, 0.2), st.floats(0.031, 0.2))
def test_thin_parts_do_not_pass_through_each_other_between_two_rows(before, after):
    plates = robot_of(("a", "ground", "prismatic", "0.03 0.1 0.1"), ("b", "ground", "prismatic", "0.03 0.1 0.1"))
    checked = SelfCollision(plates, ("to_a", "to_b"), np.array([0.0, 0.5]))
    for way in ([[0.0, before], [0.0, -after]], [[-before, 0.0], [after, 0.0]]):
        (violation,) = checked.check(np.array(way))
        assert violation.message.startswith("step 0: ")


@pytest.mark.parametrize("back", [0.06, 0.0795])
def test_what_came_less_deep_stays_so(sliders, back):
    assert sliders.check(motion(0.06, 0.08)) == []
    (violation,) = sliders.check(motion(0.06, 0.08, back))
    assert violation.message.startswith("step 1: ")


def test_rounding_takes_no_part_deeper(sliders):
    assert sliders.check(motion(0.08, 0.08 - 0.9e-4)) == [] != sliders.check(motion(0.08, 0.08 - 1.1e-4))


def test_while_two_parts_come_apart_no_others_may_touch():
    three = robot_of(*((name, "ground", "prismatic", BOX) for name in "abc"))
    checked = SelfCollision(three, ("to_a", "to_b", "to_c"), np.array([0.0, 0.5, 1.0]))
    apart = np.array([[0.0, 0.05, 1.0], [0.0, 0.3, 1.0]])
    assert checked.check(apart) == []
    apart[1, 2] = 0.35
    (violation,) = checked.check(apart)
    assert "'b' would touch 'c'" in violation.message


# Joints that move otherwise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "factor", "shift"),
    [
        ("", 1.0, 0.0),
        ("multiplier='2'", 2.0, 0.0),
        ("offset='-0.3'", 1.0, -0.3),
        ("multiplier='-2' offset='1'", -2.0, 1.0),
    ],
)
def test_a_joint_that_mimics_stands_where_its_source_says(attributes, factor, shift):
    mimic = "<link name='m'><collision><geometry><box size='0.1 0.1 0.1'/></geometry></collision></link>"
    mimic += "<joint name='to_m' type='prismatic'><parent link='ground'/><child link='m'/><axis xyz='1 0 0'/>"
    mimic += f"<limit lower='-9' upper='9' velocity='1' effort='1'/><mimic joint='to_s' {attributes}/></joint>"
    text = robot_of(("s", "ground", "prismatic", ""), ("post", "ground", "prismatic", BOX), more=mimic)
    checked = SelfCollision(text, ("to_post", "to_s"), np.array([5.0, 0.0]))
    for source in (-0.4, 0.1, 0.7):
        for off, touches in ((0.09, True), (-0.09, True), (0.11, False), (-0.11, False)):
            post = factor * source + shift + off
            assert bool(checked.check(np.array([[post + 2.0 * np.sign(off), source], [post, source]]))) == touches


@pytest.mark.parametrize("turns", [-2, 0, 1])
def test_a_joint_that_turns_without_end_is_where_its_angle_says(turns):
    text = robot_of(("post", "ground", "prismatic", BOX), ("arm", "ground", "continuous", "1.0 0.05 0.05"))
    checked = SelfCollision(text, ("to_arm", "to_post"), np.array([np.pi / 2, 0.4]))
    still = np.array([[np.pi / 2 + 2 * np.pi * turns, 0.4]] * 2)
    assert checked.check(still) == []
    assert checked.check(still + [[0.0, 0.0], [-np.pi / 2, 0.0]]) != []
