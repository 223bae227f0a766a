# SPDX-License-Identifier: Apache-2.0
"""Names of columns as others write them lead to the right joints, or to a refusal that shows both lists."""

import numpy as np
import pytest

from embodiment_descriptions import load_robot
from qwen_vla.data.formats.episodes import DatasetError
from qwen_vla.data.formats.lerobot_meta import element_names
from qwen_vla.data.robot.joint_names import find_joints, find_names

WIDOWX, ALOHA = load_robot("widowx"), load_robot("aloha")
ARM = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"]
# The usual order of two arms: each gripper behind its arm.
DUAL = [(side, joint) for side in ("left", "right") for joint in (*ARM, "gripper")]


def joint_of(side, joint):
    return f"follower_{side}/{'left_finger' if joint == 'gripper' else joint}"


def mapped(names, robot):
    """Robot joint -> name in the file."""
    found = find_joints(names, robot, "set: action")
    return dict(zip(robot.joint_names, np.array(names)[list(found.picks)], strict=True))


@pytest.mark.parametrize(
    "style",
    [
        "{side}_{joint}",
        "{side}_{joint}.pos",
        "follower_{side}/{joint}",
        "leader_{side}/{joint}",
        "{side}/{joint}_joint",
        "{S}{J}",
        "arm.{side}.{joint}.position",
        "{s}_{joint}",
    ],
)
def test_two_arms_whose_grippers_stand_behind_each_arm(style):
    names = [
        style.format(side=side, s=side[0], S=side.title(), joint=joint, J="".join(w.title() for w in joint.split("_")))
        for side, joint in DUAL
    ]
    expected = {joint_of(*place): name for place, name in zip(DUAL, names, strict=True)}
    assert mapped(names, ALOHA) == expected
    assert mapped(names[::-1], ALOHA) == expected, "in any order"


@pytest.mark.parametrize("finger", ["left_finger", "gripper", "gripper.pos", "finger_joint", "jaw"])
@pytest.mark.parametrize("style", ["{}", "{}.pos", "main_{}", "wx250s/{}", "{}_joint", "joint_{}.position"])
def test_one_arm_with_prefixes_suffixes_and_another_word_for_its_finger(style, finger):
    order = [3, 0, 5, 1, 2, 4]
    names = [style.format(ARM[k]) for k in order] + [style.format(finger)]
    expected = {ARM[k]: name for k, name in zip(order, names, strict=False)} | {"left_finger": names[-1]}
    assert mapped(names, WIDOWX) == expected


def test_exact_names_may_stand_beside_other_quantities():
    names = ["gripper_effort", *(f"{joint}.vel" for joint in ARM), *(f"{joint}.pos" for joint in ARM)]
    names += ["left_finger.pos", "right_finger.pos"]
    assert mapped(names, WIDOWX) == {joint: f"{joint}.pos" for joint in WIDOWX.joint_names}


@pytest.mark.parametrize(
    ("names", "robot", "why"),
    [
        ([f"joint_{k}" for k in range(7)], WIDOWX, "7 names cannot be mapped to the 7"),
        ([*ARM, "left_gripper", "right_gripper"], WIDOWX, "8 names"),
        ([*ARM[:5], "gripper"], WIDOWX, "6 names"),
        ([f"{side}_{joint}" for side in ("left", "right") for joint in ARM], WIDOWX, "12 names"),
        ([*ARM, "gripper", *(f"right_{joint}" for joint in (*ARM, "gripper"))], ALOHA, "14 names"),
        ([f"{side}_{joint}.vel" for side, joint in DUAL], ALOHA, "14 names"),
        ([*ARM, "waist"], WIDOWX, "more than one element is called waist"),
    ],
)
def test_what_is_not_understood_is_refused_with_both_lists(names, robot, why):
    with pytest.raises(DatasetError, match=why) as error:
        find_joints(names, robot, "set: action")
    assert all(name in str(error.value) for name in names) and error.value.where == "set: action"
    if "mapped" in why:
        assert all(name in str(error.value) for name in robot.joint_names)


def test_numbered_joints_are_never_shifted_by_one():
    joints = tuple(f"joint{k}" for k in range(1, 7))
    numbered = WIDOWX.model_copy(update={"arms": (WIDOWX.arms[0].model_copy(update={"joints": joints}),)})
    assert mapped([*(f"arm_joint_{k}" for k in range(1, 7)), "gripper"], numbered)["joint3"] == "arm_joint_3"
    with pytest.raises(DatasetError, match="cannot be mapped"):
        find_joints([*(f"joint_{k}" for k in range(6)), "gripper"], numbered, "action")


def test_elements_of_poses_are_found_by_name():
    assert find_names(["ee_qx", "ee_x"], ["x", "qx"], "pose") == (1, 0)
    assert find_names(["right_x", "left_x"], ["left_x", "right_x"], "pose") == (1, 0)
    with pytest.raises(DatasetError, match="x, y, roll; the robot has x, y, rx"):
        find_names(["x", "y", "roll"], ["x", "y", "rx"], "action")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (None, ()),
        (["a", "b"], ("a", "b")),
        ([["a", "b"]], ("a", "b")),
        ({"motors": ["a", "b"]}, ("a", "b")),
        ({"b": 1, "a": 0}, ("a", "b")),
        ({"left": ["a", "b"], "right": ["a", "b"]}, ("left/a", "left/b", "right/a", "right/b")),
        ({"left": ["la"], "right": ["ra"]}, ("la", "ra")),
    ],
)
def test_names_are_read_in_the_forms_that_occur(names, found):
    assert element_names(names) == found
