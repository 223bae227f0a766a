# SPDX-License-Identifier: Apache-2.0
"""Typed actions: layouts, channel names, decoding of chunks, and angles modulo 2 pi."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from embodiment_descriptions import ActionLayout, Channel, ChannelKind, ControlMode, Embodiment, EmbodimentError
from embodiment_descriptions.actions import Action, ArmAction
from embodiment_descriptions.actions.channels import POSE

TURN = 2 * math.pi
NAMES = st.from_regex(r"[a-z][a-z0-9_/]{0,8}", fullmatch=True)


@st.composite
def layouts(draw: st.DrawFn) -> ActionLayout:
    """Layouts of every control mode: one or two arms, with and without grippers, waist and continuous joints."""
    mode = draw(st.sampled_from(ControlMode))
    if mode.moves_base:
        return ActionLayout.of_base(mode)
    labels = draw(st.sampled_from([("",), ("left", "right"), ("arm_1", "arm_2")]))
    joints = draw(st.lists(NAMES, min_size=1 + 2 * len(labels), max_size=8, unique=True))
    assume(not any(name.endswith("gripper") for name in joints))
    channels: list[Channel] = []
    for label in labels:
        own = [joints.pop() for _ in range(draw(st.integers(1, 2)))]
        by_pose = mode is ControlMode.EEF_DELTA
        channels += [Channel.of(kind, label) for kind in POSE] if by_pose else [a_joint(draw, n, label) for n in own]
        channels += [Channel.of(ChannelKind.GRIPPER, label)] if draw(st.booleans()) else []
    if mode is ControlMode.JOINT_POSITION:
        channels += [a_joint(draw, name, "", ChannelKind.WAIST) for name in joints]
    return ActionLayout(mode, tuple(channels))


def a_joint(draw: st.DrawFn, name: str, arm: str, kind: ChannelKind = ChannelKind.JOINT) -> Channel:
    unit, continuous = draw(st.sampled_from([("rad", False), ("rad", True), ("m", False)]))
    return Channel(kind, arm, unit, continuous, name)


def values(layout: ActionLayout, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-4, 4, (*shape, len(layout.channels)))


def of_names(mode: ControlMode, names: str, **joints: bool) -> ActionLayout:
    return ActionLayout.parse(mode, names.split(), joints or None)


# --- names ------------------------------------------------------------------------------------------------------------


def test_control_modes_are_spelled_as_in_files_and_messages() -> None:
    assert [str(mode) for mode in ControlMode] == ["joint_position", "eef_delta", "base_waypoints", "base_velocity"]
    assert [mode for mode in ControlMode if mode.moves_base] == ["base_waypoints", "base_velocity"]


@given(layouts())
def test_names_round_trip(layout: ActionLayout) -> None:
    joints = {layout.names[k]: layout.channels[k].continuous for k in layout.joints}
    known = ActionLayout.parse(layout.control_mode, layout.names, joints)
    guessed = ActionLayout.parse(layout.control_mode, layout.names)
    assert known.names == guessed.names == layout.names
    for found in (known, guessed):
        np.testing.assert_array_equal(found.grippers, layout.grippers)
        np.testing.assert_array_equal(found.rotations, layout.rotations)
        np.testing.assert_array_equal(found.joints, layout.joints)
    np.testing.assert_array_equal(known.continuous, layout.continuous)
    if layout.control_mode is not ControlMode.JOINT_POSITION:
        assert known == guessed == layout


@pytest.mark.parametrize(
    ("mode", "names", "unknown", "known"),
    [
        (ControlMode.EEF_DELTA, "x y z rx ry rz grip", "grip", "x, y, z, rx, ry, rz, gripper"),
        (ControlMode.EEF_DELTA, "x y z rx ry rz _gripper joint", "_gripper, joint", "x, y, z, rx, ry, rz, gripper"),
        (ControlMode.BASE_WAYPOINTS, "dx dy wz", "wz", "dx, dy, dtheta"),
        (ControlMode.BASE_WAYPOINTS, "a_dx dy dtheta", "a_dx", "dx, dy, dtheta"),
        (ControlMode.BASE_VELOCITY, "vx vy w", "w", "vx, vy, wz"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(mode, names, unknown, known) -> None:
    with pytest.raises(ValueError, match=f"{mode} has no channel {unknown}; it has {known}"):
        of_names(mode, names)


def test_unknown_joints_are_refused_where_the_joints_are_known() -> None:
    with pytest.raises(ValueError, match="joint_position has no channel elbow; it has a, b, gripper"):
        of_names(ControlMode.JOINT_POSITION, "a elbow gripper", a=False, b=True)


def test_a_joint_named_like_a_gripper_is_a_joint_where_the_joints_are_known() -> None:
    layout = of_names(ControlMode.JOINT_POSITION, "wrist_gripper left_gripper", wrist_gripper=True)
    assert (layout.joints.tolist(), layout.grippers.tolist(), layout.continuous.tolist()) == ([0], [1], [0])


@pytest.mark.parametrize(
    ("mode", "names", "why"),
    [
        (ControlMode.EEF_DELTA, "x y z rx ry gripper", "lack rz"),
        (ControlMode.EEF_DELTA, "left_x left_y left_z left_rx left_ry left_rz right_gripper", "lack right_x, right_y"),
        (ControlMode.BASE_WAYPOINTS, "dx dy", "lack dtheta"),
        (ControlMode.JOINT_POSITION, "a b a", "more than one channel is called a"),
        (ControlMode.JOINT_POSITION, "", "lack everything"),
    ],
)
def test_a_layout_is_complete_and_without_duplicates(mode: ControlMode, names: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        of_names(mode, names)


def test_a_layout_has_only_channels_of_its_control_mode() -> None:
    with pytest.raises(ValueError, match="base_velocity has no channel dx; it has vx, vy, wz"):
        ActionLayout(ControlMode.BASE_VELOCITY, (Channel.of(ChannelKind.DX),))


# --- columns ----------------------------------------------------------------------------------------------------------


def test_columns_of_two_arms(twin) -> None:
    urdf, config = twin(waist=True)
    layout = Embodiment.from_urdf(urdf, config | {"control_mode": "joint_position"}).layout
    assert layout.arms == ("left", "right")
    assert layout.arm("right").tolist() == [4, 5, 6, 7] and layout.motion("right").tolist() == [4, 5, 6]
    assert layout.grippers.tolist() == [3, 7] and layout.waist.tolist() == [8]
    assert layout.joints.tolist() == [0, 1, 2, 4, 5, 6, 8] and not len(layout.rotations)
    with pytest.raises(KeyError, match="no arm is called 'middle'; the channels are of 'left', 'right'"):
        layout.arm("middle")


def test_columns_of_deltas(widowx: Embodiment) -> None:
    layout = widowx.layout
    assert layout.arms == ("",) and layout.arm("").tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert layout.translations.tolist() == [0, 1, 2] and layout.rotations.tolist() == [3, 4, 5]
    assert not len(layout.joints) and not len(layout.continuous)


def test_units_come_from_the_urdf(small: tuple[str, dict]) -> None:
    urdf, config = small
    urdf = urdf.replace('name="j1" type="revolute"', 'name="j1" type="continuous"')
    urdf = urdf.replace('name="j2" type="revolute"', 'name="j2" type="prismatic"')
    layout = Embodiment.from_urdf(urdf, config | {"control_mode": "joint_position"}).layout
    assert [channel.unit for channel in layout.channels] == ["rad", "m", "rad", "1"]
    assert layout.continuous.tolist() == [0]


def test_a_joint_with_the_name_of_a_gripper_channel_is_refused(small: tuple[str, dict]) -> None:
    urdf, config = small
    config["arms"][0]["joints"] = ["j1", "j2", "gripper"]
    with pytest.raises(EmbodimentError, match="more than one channel is called gripper; rename"):
        Embodiment.from_urdf(urdf.replace('"j3"', '"gripper"'), config | {"control_mode": "joint_position"})


def test_joint_positions_by_name(widowx: Embodiment) -> None:
    """A gripper's channel is dimensionless, and its joint may have the same name: the two are not confused."""
    layout = of_names(ControlMode.JOINT_POSITION, "shoulder elbow gripper")
    rows = layout.of_joints(("gripper", "elbow", "wheel"), np.array([[0.7, 0.2, 9.0]]))
    np.testing.assert_array_equal(rows, [[0.0, 0.2, 0.0]])
    np.testing.assert_array_equal(widowx.layout.of_joints(widowx.joint_names, np.ones(7)), np.zeros(7))


# --- values -----------------------------------------------------------------------------------------------------------


@given(layouts(), st.sampled_from([(), (5,), (2, 3)]))
def test_encoding_undoes_decoding(layout: ActionLayout, shape: tuple[int, ...]) -> None:
    rows = values(layout, *shape)
    np.testing.assert_array_equal(layout.encode(layout.decode(rows)), rows)


@given(layouts())
def test_parts_are_what_their_names_say(layout: ActionLayout) -> None:
    action = layout.decode(np.arange(float(len(layout.channels))))
    assert tuple(part.arm for part in action.arms) == layout.arms
    for part in action.arms:
        own = [layout.channels[int(column)] for column in part.motion]
        assert all(channel.arm == part.arm and channel.kind is not ChannelKind.GRIPPER for channel in own)
        assert part.gripper is None or layout.channels[int(part.gripper)] == Channel.of(ChannelKind.GRIPPER, part.arm)
    assert (action.waist is None) == (not len(layout.waist)) and (action.base is None) == (not len(layout.base))


def test_deltas_have_their_order_whatever_that_of_the_columns() -> None:
    layout = of_names(ControlMode.EEF_DELTA, "gripper rz ry rx z y x")
    part = layout.decode(np.arange(7.0)).arms[0]
    assert part.motion.tolist() == [6, 5, 4, 3, 2, 1] and part.gripper == 0
    np.testing.assert_array_equal(layout.encode(Action((part,))), np.arange(7.0))


def test_an_action_of_another_layout_is_refused(widowx: Embodiment) -> None:
    layout = widowx.layout
    for wrong in (
        Action(),
        Action((ArmAction("", np.zeros(6)),)),
        Action((ArmAction("", np.zeros(5), np.zeros(())),)),
        Action((ArmAction("", np.zeros(6), np.zeros(())),), waist=np.zeros(1)),
        Action((ArmAction("", np.zeros(6), np.zeros(())),), base=np.zeros(3)),
        Action((ArmAction("", np.zeros(6), np.zeros(())),) * 2),
    ):
        with pytest.raises(ValueError, match="of the channels x, y, z, rx, ry, rz, gripper"):
            layout.encode(wrong)
    with pytest.raises(KeyError, match="no arm is called 'left'"):
        layout.encode(Action((ArmAction("left", np.zeros(6), np.zeros(())),)))


def test_rows_of_another_width_are_refused(widowx: Embodiment) -> None:
    layout, rows = widowx.layout, np.zeros((4, 6))
    calls = (layout.decode, lambda r: layout.difference(r, r), lambda r: layout.unwrap(r, r[0]))
    for call in calls:
        with pytest.raises(ValueError, match=r"\(4, 6\) values for 7 channels: x, y"):
            call(rows)


# --- angles -----------------------------------------------------------------------------------------------------------


@given(layouts(), st.integers(0, 99))
def test_a_difference_leads_from_one_to_the_other(layout: ActionLayout, seed: int) -> None:
    a, b = values(layout, 2, 3, seed=seed)
    found = layout.difference(b, a)
    turns = (a + found - b) / TURN
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-12)
    others = np.setdiff1d(np.arange(len(layout.channels)), layout.continuous)
    np.testing.assert_array_equal(found[:, others], (b - a)[:, others])
    assert (np.abs(found[:, layout.continuous]) <= math.pi + 1e-12).all()


@given(layouts(), st.integers(0, 99))
def test_unwrapping_changes_only_full_turns(layout: ActionLayout, seed: int) -> None:
    rows, measured = values(layout, 6, seed=seed), values(layout, seed=seed + 1) * 3
    found = layout.unwrap(rows, measured)
    turns = (found - rows) / TURN
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-12)
    others = np.setdiff1d(np.arange(len(layout.channels)), layout.continuous)
    np.testing.assert_array_equal(found[:, others], rows[:, others])
    path = np.vstack([measured, found])[:, layout.continuous]
    assert (np.abs(np.diff(path, axis=0)) <= math.pi + 1e-9).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_continuous_joint_takes_the_shorter_rotation_across_pi(sign: int) -> None:
    layout = of_names(ControlMode.JOINT_POSITION, "roll elbow", roll=True, elbow=False)
    before, after = sign * np.array([3.1, 0.5]), sign * np.array([-3.1, -0.5])
    np.testing.assert_allclose(layout.difference(after, before), sign * np.array([TURN - 6.2, -1.0]))
    rows = layout.unwrap(np.array([after, before]), before)
    np.testing.assert_allclose(rows, sign * np.array([[TURN - 3.1, -0.5], [3.1, 0.5]]))


def test_headings_are_continuous_and_angular_velocities_are_not() -> None:
    waypoints, velocities = (ActionLayout.of_base(mode) for mode in ControlMode if mode.moves_base)
    assert waypoints.difference([0, 0, 3.0], [0, 0, -3.0])[2] == pytest.approx(6.0 - TURN)
    assert velocities.difference([0, 0, 3.0], [0, 0, -3.0])[2] == 6.0


def test_what_is_not_finite_is_left_unchanged() -> None:
    layout = of_names(ControlMode.JOINT_POSITION, "roll", roll=True)
    rows = layout.unwrap(np.array([[math.nan], [3.0], [-3.0]]), np.array([math.nan]))
    np.testing.assert_allclose(rows, [[math.nan], [3.0], [TURN - 3.0]])
