"""A URDF without a YAML: one arm is guessed, and the guesses are told."""

import pytest

from embodiment_descriptions import Embodiment, EmbodimentError, Kinematics, describe, robot_description


def test_widowx_alone_gives_the_configured_arm(widowx: Embodiment) -> None:
    e = Embodiment.from_urdf(robot_description("widowx"))
    assert e.arms == widowx.arms
    assert e.prompt("wave").startswith("The robot is widowx with single arm. ")
    assert [camera.tag for camera in e.cameras] == ["ego"]
    text = describe(e)
    assert "guessed" in text and all(note in text for note in e.inferred)


def test_seven_joints_and_a_hand(robot, joint) -> None:
    links = [f"link{i}" for i in range(8)]
    joints = [joint(f"joint{i + 1}", links[i], links[i + 1]) for i in range(7)]
    slide = {"lower": 0, "upper": 0.04, "velocity": 0.2, "effort": 9}
    joints += [
        joint("hand_mount", "link7", "hand", "fixed", None),
        joint("tcp_mount", "hand", "hand_tcp", "fixed", None),
        joint("camera_mount", "hand", "camera_arm", "fixed", None),
        joint("camera_optical", "camera_arm", "camera_optical_tcp", "fixed", None),
        joint("finger_joint1", "hand", "finger1", "prismatic", slide),
        joint("finger_joint2", "hand", "finger2", "prismatic", slide, mimic="finger_joint1"),
    ]
    extra = ["hand", "hand_tcp", "camera_arm", "camera_optical_tcp", "finger1", "finger2"]
    e = Embodiment.from_urdf(robot("Seven Axes", [*links, *extra], joints))
    assert e.name == "seven_axes" and e.robot_tag == "Seven Axes"
    assert e.arms[0].joints == tuple(f"joint{i}" for i in range(1, 8))
    assert (e.arms[0].base_link, e.arms[0].tip_link) == ("link0", "hand_tcp")
    assert (e.arms[0].gripper.joint, e.arms[0].gripper.closed, e.arms[0].gripper.open) == ("finger_joint1", 0.0, 0.04)
    assert Kinematics(e).forward([0.0] * 7)[2, 3] == pytest.approx(0.9)


def test_revolute_gripper_is_not_part_of_the_arm(robot, joint) -> None:
    joints = [
        joint("j1", "base", "a"),
        joint("j2", "a", "b"),
        joint("finger_joint", "b", "knuckle", "revolute", {"lower": 0, "upper": 0.8, "velocity": 2, "effort": 9}),
    ]
    e = Embodiment.from_urdf(robot("r", ["base", "a", "b", "knuckle"], joints))
    assert e.arms[0].joints == ("j1", "j2")
    assert e.arms[0].gripper.joint == "finger_joint"
    assert any("check which is which" in note for note in e.inferred)


def test_arm_without_fingers(robot, joint) -> None:
    e = Embodiment.from_urdf(robot("r", ["base", "a", "b"], [joint("j1", "base", "a"), joint("j2", "a", "b")]))
    assert e.arms[0].gripper is None and "gripper: none found behind the arm" in e.inferred


def test_second_arm_is_mentioned(twin) -> None:
    e = Embodiment.from_urdf(twin()[0])
    assert e.arms[0].joints == ("left_j1", "left_j2", "left_j3")
    assert any("right_j1, right_j2, right_j3, was left out" in note for note in e.inferred)


def test_wheels_are_not_an_arm(robot, joint) -> None:
    wheel = {"velocity": 10, "effort": 1}
    joints = [joint("wheel", "base", "w", "continuous", wheel), joint("j1", "base", "a"), joint("j2", "a", "b")]
    assert Embodiment.from_urdf(robot("r", ["base", "w", "a", "b"], joints)).arms[0].joints == ("j1", "j2")


def test_nothing_that_turns(robot, joint) -> None:
    urdf = robot("table", ["base", "top"], [joint("lift", "base", "top", "prismatic")])
    with pytest.raises(EmbodimentError, match="no revolute joint to make an arm of; give a YAML"):
        Embodiment.from_urdf(urdf)
