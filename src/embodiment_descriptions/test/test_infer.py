# SPDX-License-Identifier: Apache-2.0
"""A URDF without a YAML: one or two arms or a base are guessed, and the guesses are told."""

import pytest

from embodiment_descriptions import Embodiment, EmbodimentError, Kinematics, describe, load_robot, robot_description
from embodiment_descriptions.guess.yaml_text import guessed_yaml


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
    assert any("which is which; check it" in note for note in e.inferred)


def test_arm_without_fingers(robot, joint) -> None:
    e = Embodiment.from_urdf(robot("r", ["base", "a", "b"], [joint("j1", "base", "a"), joint("j2", "a", "b")]))
    assert e.arms[0].gripper is None and "gripper: none found behind the arm" in e.inferred


def test_whatever_moves_and_is_not_commanded_is_told(robot, joint) -> None:
    """A lift below the arm, the second of two fingers with motors of their own, an arm of another kind."""
    links = ["base", "mast", "a", "b", "c", "left", "right", "stick"]
    slide = {"lower": 0, "upper": 0.04, "velocity": 0.2, "effort": 9}
    joints = [joint("lift", "base", "mast", "prismatic"), joint("j1", "mast", "a"), joint("j2", "a", "b")]
    joints += [joint("j3", "b", "c"), joint("antenna", "base", "stick")]
    joints += [joint(f"{side}_finger", "c", side, "prismatic", slide) for side in ("left", "right")]
    e = Embodiment.from_urdf(robot("r", links, joints))
    assert e.arms[0].joints == ("j1", "j2", "j3") and e.arms[0].gripper.joint == "left_finger"
    (note,) = (note for note in e.inferred if note.startswith("not commanded: "))
    assert note.startswith("not commanded: lift, antenna, right_finger; what is to move belongs to an arm")


def test_a_slide_between_joints_that_turn_is_one_of_the_arm(robot, joint) -> None:
    joints = [joint("j1", "base", "a"), joint("j2", "a", "b"), joint("j3", "b", "c", "prismatic")]
    e = Embodiment.from_urdf(robot("scara", ["base", "a", "b", "c", "d"], [*joints, joint("j4", "c", "d")]))
    assert e.arms[0].joints == ("j1", "j2", "j3", "j4") and e.arms[0].gripper is None


def test_a_finger_is_known_by_its_link_where_its_joint_is_only_numbered(robot, joint) -> None:
    joints = [joint("j1", "base", "a"), joint("j2", "a", "hand"), joint("f1x", "hand", "arm_fngr")]
    arm = Embodiment.from_urdf(robot("r", ["base", "a", "hand", "arm_fngr"], joints)).arms[0]
    assert arm.joints == ("j1", "j2") and arm.gripper.joint == "f1x"


def test_a_dexterous_hand_is_no_gripper(robot, joint) -> None:
    """Each of its joints is a channel, in the control mode that has such channels."""
    fingers = [f"left_hand_{finger}_{n}_joint" for finger in ("thumb", "index") for n in (0, 1)]
    links = ["base", "a", "b", "c", *(f"{name}_link" for name in fingers)]
    joints = [joint("j1", "base", "a"), joint("j2", "a", "b"), joint("j3", "b", "c")]
    for inner, outer in (fingers[:2], fingers[2:]):
        joints += [joint(inner, "c", f"{inner}_link"), joint(outer, f"{inner}_link", f"{outer}_link")]
    e = Embodiment.from_urdf(robot("r", links, joints))
    assert e.arms[0].gripper is None and sorted(e.arms[0].hand) == sorted(fingers)
    assert e.control_mode == "joint_position" and len(e.channel_names) == 3 + 4
    assert Embodiment.from_urdf(e.urdf, guessed_yaml(e)) == e.model_copy(update={"inferred": ()})


DIGITS = ("thumb", "index", "middle", "ring", "pinky")


def forearm_and_hand(joint, wrist: str, digits: tuple[str, ...] = DIGITS) -> tuple[list[str], list[str]]:
    """Links and joints of two arm joints, a wrist, and on its palm fingers whose outer joint follows the inner one."""
    links, joints = ["base", "a", "b", "wrist", "palm"], [joint("j1", "base", "a"), joint("j2", "a", "b")]
    joints += [joint(wrist, "b", "wrist"), joint("mount", "wrist", "palm", "fixed", None)]
    for digit in digits:
        inner, outer = f"L_{digit}_proximal", f"L_{digit}_distal"
        links += [inner, outer]
        joints += [joint(f"{inner}_joint", "palm", inner)]
        joints += [joint(f"{outer}_joint", inner, outer, mimic=f"{inner}_joint")]
    return links, joints


@pytest.mark.parametrize("wrist", ["left_hand_joint", "left_wrist_yaw_joint", "gripper_roll", "claw_yaw"])
def test_a_joint_that_carries_several_fingers_is_a_wrist(robot, joint, wrist: str) -> None:
    """However it is called; and beside a thumb, other joints of the palm do not make the arm longer."""
    (arm,) = Embodiment.from_urdf(robot("r", *forearm_and_hand(joint, wrist))).arms
    assert arm.joints == ("j1", "j2", wrist) and arm.tip_link == "palm"
    assert arm.hand == tuple(f"L_{digit}_proximal_joint" for digit in DIGITS)


def test_the_wrist_of_a_gripper_may_be_named_after_it(robot, joint) -> None:
    slide = {"lower": 0, "upper": 0.04, "velocity": 0.2, "effort": 9}
    joints = [joint("j1", "base", "a"), joint("j2", "a", "b"), joint("gripper_yaw", "b", "c")]
    joints += [joint("left_jaw", "c", "left", "prismatic", slide)]
    joints += [joint("right_jaw", "c", "right", "prismatic", slide, mimic="left_jaw")]
    (arm,) = Embodiment.from_urdf(robot("r", ["base", "a", "b", "c", "left", "right"], joints)).arms
    assert arm.joints == ("j1", "j2", "gripper_yaw") and arm.gripper.joint == "left_jaw"


def test_a_finger_with_a_linkage_that_follows_it_is_no_wrist(robot, joint) -> None:
    joints = [joint("j1", "base", "a"), joint("j2", "a", "b"), joint("finger_joint", "b", "outer")]
    joints += [joint(f"{name}_joint", "outer", name, mimic="finger_joint") for name in ("inner", "pad")]
    (arm,) = Embodiment.from_urdf(robot("r", ["base", "a", "b", "outer", "inner", "pad"], joints)).arms
    assert arm.joints == ("j1", "j2") and arm.gripper.joint == "finger_joint"


def test_the_arch_of_a_palm_is_no_wrist(robot, joint) -> None:
    """It carries two fingers, but stands beside others."""
    links, joints = forearm_and_hand(joint, "wrist_roll", ("thumb", "index", "middle"))
    joints += [joint("hand_arch", "palm", "arch"), joint("ring", "arch", "r"), joint("pinky", "arch", "p")]
    (arm,) = Embodiment.from_urdf(robot("r", [*links, "arch", "r", "p"], joints)).arms
    assert arm.joints == ("j1", "j2", "wrist_roll") and {"hand_arch", "ring", "pinky"} < set(arm.hand)


def test_a_jaw_of_the_face_makes_no_fingers_of_arms_and_wheels(robot, joint) -> None:
    """Few of the chains that leave the torso are named as fingers."""
    joints = [
        joint(f"{side}_{n}", "base" if n == 0 else f"{side}_{n}", f"{side}_{n + 1}") for side in "pq" for n in (0, 1, 2)
    ]
    joints += [joint("jaw", "base", "chin"), joint("wheel", "base", "w", "continuous", None)]
    links = ["base", "chin", "w", *(f"{side}_{n}" for side in "pq" for n in (1, 2, 3))]
    e = Embodiment.from_urdf(robot("r", links, joints))
    assert [len(arm.joints) for arm in e.arms] == [3, 3] and "wheels: wheel: no arm" in e.inferred


def test_a_hand_without_an_arm_is_said_to_have_fingers_only(robot, joint) -> None:
    joints = [joint(f"{digit}_joint", "palm", digit) for digit in DIGITS]
    with pytest.raises(EmbodimentError, match=r"for an arm \(fingers: thumb_joint, index_joint, .*; give a YAML"):
        Embodiment.from_urdf(robot("hand", ["palm", *DIGITS], joints))


def test_propellers_are_no_arms(robot, joint) -> None:
    joints = [joint(f"rotor_{n}_joint", "base", f"rotor_{n}", "continuous", None) for n in range(4)]
    with pytest.raises(EmbodimentError, match=r"for an arm \(propellers: rotor_0_joint; rotor_1_joint; .*give a YAML"):
        Embodiment.from_urdf(robot("drone", ["base", *(f"rotor_{n}" for n in range(4))], joints))


def test_limits_in_degrees_are_asked_about(robot, joint) -> None:
    degrees = {"lower": -170, "upper": 170, "velocity": 90, "effort": 9}
    joints = [joint("j1", "base", "a", limit=degrees), joint("j2", "a", "b"), joint("j3", "b", "c", limit=degrees)]
    e = Embodiment.from_urdf(robot("r", ["base", "a", "b", "c"], joints))
    assert "limits: j1, j3 reach beyond 30 rad; a URDF has radians, are these degrees?" in e.inferred


@pytest.mark.parametrize("left", ["left_{}", "{}_l", "l/{}", "{}Left", "L{}", "LARM_{}"])
def test_sides_are_known_by_the_words_of_a_name(robot, joint, left: str) -> None:
    right = left.replace("eft", "ight").replace("l", "r").replace("L", "R")
    arms = [tuple(side.format(part) for part in ("Shoulder", "Elbow", "Wrist")) for side in (right, left)]
    e = Embodiment.from_urdf(body(robot, joint, *arms))
    assert {arm.name: arm.joints for arm in e.arms} == {"left": arms[1], "right": arms[0]}


def test_two_arms_that_are_alike_are_both_commanded(twin) -> None:
    e = Embodiment.from_urdf(twin()[0])
    sides = {arm.name: arm.joints for arm in e.arms}
    assert sides == {side: tuple(f"{side}_j{n}" for n in (1, 2, 3)) for side in ("left", "right")}
    topics = [command.topic for command in e.commands]
    assert {"left_arm_controller/joint_trajectory", "right_arm_controller/joint_trajectory"} <= set(topics)
    assert "with dual arms" in e.prompt("wave")


def test_of_more_than_two_arms_the_others_are_mentioned(robot, joint) -> None:
    arms = [tuple(f"{letter}{n}" for n in (1, 2, 3)) for letter in "pqs"]
    e = Embodiment.from_urdf(body(robot, joint, *arms))
    assert [arm.name for arm in e.arms] == ["arm_1", "arm_2"]
    assert any(note.startswith("not commanded: s1, s2, s3; ") and "at most two" in note for note in e.inferred)


def test_wheels_are_not_an_arm(robot, joint) -> None:
    wheel = {"velocity": 10, "effort": 1}
    joints = [joint("wheel", "base", "w", "continuous", wheel), joint("j1", "base", "a"), joint("j2", "a", "b")]
    assert Embodiment.from_urdf(robot("r", ["base", "w", "a", "b"], joints)).arms[0].joints == ("j1", "j2")


def pads(joint, kind: str, limit: dict, right_axis: str, left_axis: str = "0 -1 0", mimic: str | None = "left_knuckle"):
    """An arm with two fingers that begin 3 cm beside its axis and are 8 cm long."""
    follow = {} if mimic is None else {"mimic": mimic}
    sides = ((1, "left", left_axis, {}), (-1, "right", right_axis, follow))
    fingers = [
        part
        for side, name, axis, more in sides
        for part in (
            joint(f"{name}_mount", "b", f"{name}_base", "fixed", None).replace("0 0 0.1", f"{0.03 * side} 0 0.05"),
            joint(f"{name}_knuckle", f"{name}_base", name, kind, limit, axis=axis, **more).replace("0 0 0.1", "0 0 0"),
            joint(f"{name}_pad", name, f"{name}_tip", "fixed", None).replace("0 0 0.1", f"{0.03 * side} 0 0.08"),
        )
    ]
    links = ["base", "a", "b", *(f"{name}{part}" for _, name, _, _ in sides for part in ("_base", "", "_tip"))]
    return links, [joint("j1", "base", "a"), joint("j2", "a", "b"), *fingers]


@pytest.mark.parametrize(
    ("kind", "limit", "left", "right", "closed", "opened"),
    [
        ("revolute", (0, 0.8), "0 -1 0", "0 1 0", 0.8, 0),  # as a 2F-85: it closes while its joint grows
        ("revolute", (0, 0.8), "0 1 0", "0 -1 0", 0, 0.8),
        ("revolute", (-0.7, 0.1), "0 1 0", "0 -1 0", -0.7, 0.1),
        ("prismatic", (0, 0.025), "-1 0 0", "1 0 0", 0.025, 0),
        ("prismatic", (-0.02, 0.01), "1 0 0", "-1 0 0", -0.02, 0.01),
    ],
)
def test_a_gripper_is_open_where_its_finger_tips_are_apart(
    robot, joint, kind, limit, left, right, closed, opened
) -> None:
    bounds = {"lower": limit[0], "upper": limit[1], "velocity": 1, "effort": 9}
    links, joints = pads(joint, kind, bounds, right_axis=right, left_axis=left)
    e = Embodiment.from_urdf(robot("r", links, joints))
    gripper = e.arms[0].gripper
    assert (gripper.joint, gripper.closed, gripper.open) == ("left_knuckle", closed, opened)
    assert any("judged by the positions of its finger tips" in note for note in e.inferred)


def test_a_single_jaw_is_open_where_it_is_far_from_the_grasp_point() -> None:
    urdf = load_robot("examples/so101/so101.yaml").urdf
    jaw = urdf.index('<joint name="gripper"')
    mirrored = urdf[:jaw] + urdf[jaw:].replace('<axis xyz="0 0 1"/>', '<axis xyz="0 0 -1"/>', 1).replace(
        'lower="-0.174533" upper="1.74533"', 'lower="-1.74533" upper="0.174533"', 1
    )
    assert mirrored != urdf
    for text, closed, opened in ((urdf, -0.174533, 1.74533), (mirrored, 0.174533, -1.74533)):
        gripper = Embodiment.from_urdf(text).arms[0].gripper
        assert (gripper.joint, gripper.closed, gripper.open) == ("gripper", closed, opened)


@pytest.mark.parametrize("name", ["ur5e_2f85", "so101"])
def test_the_grippers_of_the_examples_are_guessed_as_their_yaml_has_them(name: str) -> None:
    example = load_robot(f"examples/{name}/{name}.yaml")
    assert Embodiment.from_urdf(example.urdf).arms == example.arms


LEG = ("left_hip_pitch_joint", "left_hip_roll_joint", "left_knee_joint", "left_ankle_joint")


def chain(joint, names: tuple[str, ...], root: str) -> tuple[list[str], list[str]]:
    """Links and revolute joints one after the other."""
    links = [f"{name}_link" for name in names]
    return links, [joint(name, parent, link) for name, parent, link in zip(names, [root, *links], links, strict=False)]


def body(robot, joint, *chains: tuple[str, ...]) -> str:
    parts = [chain(joint, names, "pelvis") for names in chains]
    return robot(
        "body", ["pelvis", *(link for links, _ in parts for link in links)], [j for _, js in parts for j in js]
    )


@pytest.mark.parametrize(
    ("other", "part"),
    [
        (LEG, "legs"),
        (("FL_hip_joint", "FL_thigh_joint", "FL_calf_joint", "FL_x"), "legs"),
        (("LF_HAA", "LF_HFE", "LF_KFE", "LF_x"), "legs"),
        (("LHipYawPitch", "LHipRoll", "LKneePitch", "LAnklePitch"), "legs"),
        (("head_1", "head_2", "eye_pan", "eye_tilt"), "head"),
        (("front_left_steering", "front_left_wheel", "x", "y"), "wheels"),
    ],
)
def test_legs_wheels_and_heads_are_no_arms_however_long(robot, joint, other: tuple[str, ...], part: str) -> None:
    e = Embodiment.from_urdf(body(robot, joint, other, ("shoulder", "elbow", "wrist")))
    assert e.arms[0].joints == ("shoulder", "elbow", "wrist")
    assert f"{part}: {', '.join(other)}: no arm" in e.inferred


@pytest.mark.parametrize("word", ["shoulder_lift_joint", "ship", "elegant_joint", "wrist_3_joint", "joint_a1", "drive"])
def test_names_that_only_look_like_them_are_arms(robot, joint, word: str) -> None:
    assert Embodiment.from_urdf(body(robot, joint, (word, "b", "c"))).arms[0].joints == (word, "b", "c")


def test_joints_that_two_arms_share_are_the_torso(robot, joint) -> None:
    names = [f"{side}_{part}" for side in ("left", "right") for part in ("shoulder", "elbow", "wrist")]
    links = ["base", "torso", *(f"{name}_link" for name in names)]
    joints = [joint("waist_yaw", "base", "torso")]
    for side in (names[:3], names[3:]):
        parents = ["torso", *(f"{name}_link" for name in side)]
        joints += [joint(name, parent, f"{name}_link") for name, parent in zip(side, parents, strict=False)]
    e = Embodiment.from_urdf(robot("upper_body", links, joints))
    assert [arm.joints for arm in e.arms] == [tuple(names[:3]), tuple(names[3:])]
    assert {arm.base_link for arm in e.arms} == {"torso"}


def test_only_wheels_are_a_base(robot, joint) -> None:
    joints = [joint(f"{side}_wheel_joint", "base_link", side, "continuous", None) for side in ("left", "right")]
    e = Embodiment.from_urdf(robot("rover", ["base_link", "left", "right"], joints))
    assert not e.arms and (e.base.kind, e.base.link, e.control_mode) == ("differential", "base_link", "base_waypoints")
    assert e.prompt("go").startswith("The robot is rover with mobile base. The control frequency is 2 Hz. ")
    assert e.safety.base.max_linear <= 0.3 and "left_wheel_joint, right_wheel_joint" in e.inferred[0]


def test_what_has_neither_arm_nor_wheels_is_said_to_have_legs(robot, joint) -> None:
    with pytest.raises(EmbodimentError, match=r"for an arm \(legs: left_hip_pitch_joint, .*; give a YAML"):
        Embodiment.from_urdf(body(robot, joint, LEG))


def test_where_every_joint_is_named_as_a_finger_that_is_said(robot, joint) -> None:
    with pytest.raises(EmbodimentError, match=r"for an arm \(fingers: gripper_1, gripper_2\); give a YAML"):
        Embodiment.from_urdf(body(robot, joint, ("gripper_1", "gripper_2")))


def test_a_torso_that_arms_and_head_share_is_not_called_head(robot, joint) -> None:
    links = ["base", "torso", "face", "a", "b", "c"]
    joints = [joint("waist", "base", "torso"), joint("head_pan", "torso", "face")]
    joints += [joint(name, *ends) for name, ends in (("j1", ("torso", "a")), ("j2", "ab"), ("j3", "bc"))]
    assert "head: head_pan: no arm" in Embodiment.from_urdf(robot("r", links, joints)).inferred


def test_a_urdf_without_revolute_joints_is_refused(robot, joint) -> None:
    urdf = robot("table", ["base", "top"], [joint("lift", "base", "top", "prismatic")])
    with pytest.raises(EmbodimentError, match="no revolute joint for an arm; give a YAML"):
        Embodiment.from_urdf(urdf)


def test_the_guess_is_written_as_a_yaml_that_gives_it_again(robot, joint) -> None:
    wheels = [joint(f"{side}_wheel", "base_link", side, "continuous", None) for side in ("left", "right")]
    rover = robot("rover", ["base_link", "left", "right"], wheels)
    urdfs = [rover, body(robot, joint, LEG, ("shoulder", "elbow", "wrist"))]
    urdfs += [body(robot, joint, LEG, *(tuple(f"{side}_{n}" for n in "abc") for side in ("left", "right")))]
    urdfs += [load_robot(f"examples/{name}/{name}.yaml").urdf for name in ("ur5e_2f85", "so101")]
    for urdf in urdfs:
        guess = Embodiment.from_urdf(urdf)
        text = guessed_yaml(guess)
        assert Embodiment.from_urdf(urdf, text) == guess.model_copy(update={"inferred": ()})
        assert all(f"# {note}\n" in text for note in guess.inferred), "every guess is a comment"
    assert text.index("# gripper: gripper, closed at -0.17") < text.index("arms:\n") < text.index("# cameras: one")
