# SPDX-License-Identifier: Apache-2.0
"""The geometry of ALOHA: both arms as published, mounted where they should be, in view of its four cameras."""

import mujoco
import numpy as np
import pytest
from description_checks import parsed, robot, simulated, touching

from embodiment_descriptions import Embodiment, Kinematics
from embodiment_descriptions.urdf import parse_urdf

ALOHA = robot("aloha")
SIDES = ("left", "right")
SLEEP = (0.0, -1.85, 1.55, 0.0, 0.8, 0.0)  # rest pose in the manufacturer's configuration
START = (0.0, -0.96, 1.16, 0.0, -0.3, 0.0)
RADIUS = 0.469  # from the middle of the table to either arm [m]


def pose_both(data: mujoco.MjData, joints: tuple[float, ...], finger: float) -> None:
    for side, arm in zip(SIDES, ALOHA.arms, strict=True):
        for name, value in zip(arm.joints, joints, strict=True):
            data.joint(name).qpos = value
        data.joint(f"follower_{side}/left_finger").qpos = finger
        data.joint(f"follower_{side}/right_finger").qpos = -finger


def test_everything_of_an_arm_has_its_prefix() -> None:
    tree = parse_urdf(ALOHA.urdf)
    for side in SIDES:
        prefix = f"follower_{side}/"
        below = [joint for link in tree.links if link.startswith(prefix) for joint in tree.below(link)]
        foreign = {joint.name for joint in below if not joint.name.startswith(prefix)}
        assert foreign == {f"cam_{side}_wrist_mount"}
        names = {name.removeprefix(prefix) for name in tree.joints if name.startswith(prefix)}
        assert {"waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "left_finger"} < names


@pytest.mark.parametrize("arm", [0, 1])
def test_published_tip_at_zero(arm: int) -> None:
    """The home matrix M of the vx300s in the manufacturer's kinematics: x 0.536494 m, z 0.42705 m, no rotation."""
    expected = np.eye(4)
    expected[[0, 2], 3] = 0.536494, 0.42705
    np.testing.assert_allclose(Kinematics(ALOHA, arm).forward(np.zeros(6)), expected, atol=1e-9)


@pytest.mark.parametrize("arm", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_pinocchio_and_mujoco_agree(arm: int, seed: int) -> None:
    """Also with the other arm somewhere else: it must not matter."""
    model, data = simulated("aloha")
    random, kinematics = np.random.default_rng(seed), Kinematics(ALOHA, arm)
    q = random.uniform(kinematics.lower, kinematics.upper)
    for name in ALOHA.joint_names:
        data.joint(name).qpos = random.uniform(ALOHA.limits[name].lower, ALOHA.limits[name].upper)
    for name, value in zip(kinematics.joint_names, q, strict=True):
        data.joint(name).qpos = value
    mujoco.mj_kinematics(model, data)
    base, tip = (data.body(link) for link in (ALOHA.arms[arm].base_link, ALOHA.arms[arm].tip_link))
    frame, pose = base.xmat.reshape(3, 3), kinematics.forward(q)
    np.testing.assert_allclose(pose[:3, 3], frame.T @ (tip.xpos - base.xpos), atol=1e-9)
    np.testing.assert_allclose(pose[:3, :3], frame.T @ tip.xmat.reshape(3, 3), atol=1e-9)


@pytest.mark.parametrize("arm", [0, 1])
def test_the_inverse_finds_what_is_on_the_table(arm: int) -> None:
    kinematics = Kinematics(ALOHA, arm)
    down = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0.0]])
    for x, y in ((0.25, -0.2), (0.35, 0.0), (RADIUS, 0.1)):
        target = np.eye(4)
        target[:3, :3], target[:3, 3] = down, (x, y, 0.10)
        np.testing.assert_allclose(kinematics.forward(kinematics.inverse(target)), target, atol=1e-4)


def test_the_arms_face_each_other_across_the_table() -> None:
    model, data = simulated("aloha")
    mujoco.mj_kinematics(model, data)
    left, right = (data.body(f"follower_{side}/base_link") for side in SIDES)
    np.testing.assert_allclose(left.xpos, [-0.019, RADIUS, 0.020], atol=1e-9)
    np.testing.assert_allclose(right.xpos, [-0.019, -RADIUS, 0.020], atol=1e-9)
    np.testing.assert_allclose(left.xmat.reshape(3, 3)[:, 0], [0, -1, 0], atol=1e-9)
    np.testing.assert_allclose(right.xmat.reshape(3, 3)[:, 0], [0, 1, 0], atol=1e-9)


@pytest.mark.parametrize("pose", [START, SLEEP])
@pytest.mark.parametrize("finger", [0.021, 0.057])
def test_arms_touch_neither_themselves_nor_the_table(pose: tuple[float, ...], finger: float) -> None:
    model, data = simulated("aloha")
    pose_both(data, pose, finger)
    assert not touching(model, data)


def test_stretched_out_arms_would_collide() -> None:
    model, data = simulated("aloha")
    pose_both(data, (0.0,) * 6, 0.021)
    assert any(
        {link.split("/")[0] for link in pair} == {"follower_left", "follower_right"} for pair in touching(model, data)
    )


def test_pads_are_at_the_joint_position() -> None:
    """At the lower limit of the joint their inner faces are 0.2 mm short of the middle; they end 46 mm past the tip."""
    root = parsed("aloha")
    for side, sign in (("left", 1), ("right", -1)):
        collision = root.findall(f"link[@name='follower_left/{side}_finger_link']/collision")[-1]
        center = np.array(collision.find("origin").get("xyz").split(), dtype=float)
        size = np.array(collision.find("geometry/box").get("size").split(), dtype=float)
        assert 0.021 + sign * center[1] - size[1] / 2 == pytest.approx(0.0002)
        tip = float(root.find("joint[@name='follower_left/ee_gripper']/origin").get("xyz").split()[0])
        assert center[0] + size[0] / 2 - tip == pytest.approx(0.046, abs=1e-3)


def angles(data: mujoco.MjData, camera: str, point: np.ndarray) -> tuple[float, float]:
    """Direction of a point from a camera [deg]: to the right of and below the image center."""
    eye = data.body(f"{camera}_optical_frame")
    x, y, z = eye.xmat.reshape(3, 3).T @ (point - eye.xpos)
    assert z > 0
    return float(np.degrees(np.arctan2(x, z))), float(np.degrees(np.arctan2(y, z)))


def test_cameras_cover_the_workspace() -> None:
    """Fields of view are 73 x 58 degrees. High and low point at the table, the wrist ones between their own fingers."""
    model, data = simulated("aloha")
    pose_both(data, START, 0.057)
    mujoco.mj_kinematics(model, data)
    # The lenses of the ALOHA 2 workcell; there, x is to the right and y away from the operator.
    for camera, place in (("cam_high", (-0.303794, 0, 1.02524)), ("cam_low", (-0.377167, 0, 0.0316055))):
        np.testing.assert_allclose(data.body(f"{camera}_link").xpos, place, atol=1e-9)
        right, below = angles(data, camera, np.array([0.0, 0.0, 0.03]))
        assert abs(right) < 1e-6 and abs(below) < 29
        # Seen from the operator's side, the left arm is on the left.
        assert angles(data, camera, data.body("follower_left/ee_gripper_link").xpos)[0] < -10
    for side in SIDES:
        gripper = data.body(f"follower_{side}/ee_gripper_link")
        fingertips = gripper.xpos + 0.046 * gripper.xmat.reshape(3, 3)[:, 0]
        right, below = angles(data, f"cam_{side}_wrist", fingertips)
        assert abs(right) < 1e-6 and 0 < below < 29


# --- the embodiment ---------------------------------------------------------------------------------------------------


def test_fourteen_channels_in_alohas_order() -> None:
    joints = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
    expected = [
        name for side in SIDES for name in (*(f"follower_{side}/{joint}" for joint in joints), f"{side}_gripper")
    ]
    assert ALOHA.channel_names == tuple(expected)
    assert (ALOHA.control_mode, ALOHA.rate_hz, ALOHA.chunk_size, ALOHA.period) == ("joint_position", 50.0, 50, 0.02)
    assert ALOHA.base_frame == "follower_left/base_link" and ALOHA.odometry is None


def test_cameras_are_those_of_the_drivers() -> None:
    assert [(camera.tag, camera.topic) for camera in ALOHA.cameras] == [
        ("ego", "cam_high/camera/color/image_rect_raw"),
        ("cam_low", "cam_low/camera/color/image_rect_raw"),
        ("cam_left_wrist", "cam_left_wrist/camera/color/image_rect_raw"),
        ("cam_right_wrist", "cam_right_wrist/camera/color/image_rect_raw"),
    ]


def test_home_is_the_start_pose_with_closed_grippers() -> None:
    for side, arm in zip(SIDES, ALOHA.arms, strict=True):
        assert tuple(ALOHA.home[joint] for joint in arm.joints) == START
        assert ALOHA.home[f"follower_{side}/left_finger"] == arm.gripper.closed


@pytest.fixture(scope="module")
def real() -> Embodiment:
    """ALOHA with its real hardware."""
    return robot("aloha", "real")


def test_a_real_one_is_driven_by_xs_sdk(real: Embodiment) -> None:
    assert [(command.backend, command.topic) for command in real.commands] == [
        ("xs_group", "follower_left/commands/joint_group"),
        ("xs_single", "follower_left/commands/joint_single"),
        ("xs_group", "follower_right/commands/joint_group"),
        ("xs_single", "follower_right/commands/joint_single"),
    ]
    for arm, group, single in zip(real.arms, real.commands[::2], real.commands[1::2], strict=True):
        assert (group.group, group.joints) == ("arm", arm.joints)
        assert (single.name, single.joint) == ("gripper", arm.gripper.joint)
        assert (single.calibration.closed, single.calibration.open) == (0.6197, 1.6214)
    assert [(source.topic, source.prefix) for source in real.joint_states] == [
        ("follower_left/joint_states", "follower_left/"),
        ("follower_right/joint_states", "follower_right/"),
    ]


def test_a_real_one_differs_in_nothing_else(real: Embodiment) -> None:
    different = {key for key in Embodiment.model_fields if getattr(real, key) != getattr(ALOHA, key)}
    assert different == {"arms", "home", "joint_states", "commands", "limits", "urdf"}
    for mine, theirs in zip(real.arms, ALOHA.arms, strict=True):
        assert mine.model_copy(update={"gripper": theirs.gripper}) == theirs
    assert real.channel_names == ALOHA.channel_names and real.prompt("wave") == ALOHA.prompt("wave")


def test_the_calibration_widens_the_limits_of_the_finger(real: Embodiment) -> None:
    """0.0579 m is what an open gripper reports; the URDF ends at 0.057 m."""
    for arm in real.arms:
        limit = real.limits[arm.gripper.joint]
        assert (limit.lower, limit.upper) == (0.021, 0.0579)
    assert real.gripper_to_joint(1.0, arm=1) == pytest.approx(0.0579)
    assert real.gripper_from_joint(0.0440) == 0.0
