# SPDX-License-Identifier: Apache-2.0
"""The geometry of the WidowX: as published, free of collisions, and in view of its wrist camera as intended."""

import mujoco
import numpy as np
import pytest
from description_checks import parsed, simulated, touching

from embodiment_descriptions import Kinematics

SLEEP = (0.0, -1.80, 1.55, 0.0, 0.8, 0.0)  # rest pose in the manufacturer's configuration


def test_real_block_is_what_the_xs_interface_accepts() -> None:
    """It refuses a joint without exactly one command interface and takes the last joint for the gripper."""
    control = parsed("widowx", "real").find("ros2_control")
    joints = control.findall("joint")
    assert [len(joint.findall("command_interface")) for joint in joints] == [1] * 7
    assert joints[-1].get("name") == "left_finger"
    parameters = {param.get("name"): param.text for param in control.findall("hardware/param")}
    assert parameters == {
        "loop_hz": "10",
        "group_name": "arm",
        "gripper_name": "gripper",
        "joint_states_topic": "joint_states",
    }


def test_published_tip_at_zero(kinematics: Kinematics) -> None:
    """The home matrix M of the wx250s in the manufacturer's kinematics: x 0.458325 m, z 0.36065 m, no rotation."""
    expected = np.eye(4)
    expected[[0, 2], 3] = 0.458325, 0.36065
    np.testing.assert_allclose(kinematics.forward(np.zeros(6)), expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_pinocchio_and_mujoco_agree(seed: int, kinematics: Kinematics) -> None:
    model, data = simulated("widowx")
    q = np.random.default_rng(seed).uniform(kinematics.lower, kinematics.upper)
    for name, value in zip(kinematics.joint_names, q, strict=True):
        data.joint(name).qpos = value
    mujoco.mj_kinematics(model, data)
    tip = data.body("ee_gripper_link")
    pose = kinematics.forward(q)
    np.testing.assert_allclose(pose[:3, 3], tip.xpos, atol=1e-9)
    np.testing.assert_allclose(pose[:3, :3], tip.xmat.reshape(3, 3), atol=1e-9)


@pytest.mark.parametrize("pose", ["home", "sleep"])
@pytest.mark.parametrize("finger", [0.015, 0.037])
def test_arm_does_not_touch_itself(pose: str, finger: float, kinematics: Kinematics) -> None:
    model, data = simulated("widowx")
    for name, value in zip(kinematics.joint_names, kinematics.home if pose == "home" else SLEEP, strict=True):
        data.joint(name).qpos = value
    data.joint("left_finger").qpos, data.joint("right_finger").qpos = finger, -finger
    assert not touching(model, data)


def test_pads_are_at_the_joint_position_and_reach_past_the_tip() -> None:
    root = parsed("widowx")
    for side, sign in (("left", 1), ("right", -1)):
        collision = root.find(f"link[@name='{side}_finger_link']/collision")
        center = np.array(collision.find("origin").get("xyz").split(), dtype=float)
        size = np.array(collision.find("geometry/box").get("size").split(), dtype=float)
        assert sign * center[1] - size[1] / 2 == pytest.approx(0.0)
        tip = float(root.find("joint[@name='ee_gripper']/origin").get("xyz").split()[0])
        assert center[0] + size[0] / 2 - tip == pytest.approx(0.015, abs=1e-3)


def test_wrist_camera_has_fingertips_and_what_is_below_in_view() -> None:
    """Directions in the optical frame (z into the scene) stay within 60 degrees over the height of the image."""
    model, data = simulated("widowx")
    mujoco.mj_kinematics(model, data)
    eye, tip = data.body("wrist_camera_optical_frame"), data.body("ee_gripper_link")
    view, ahead = eye.xmat.reshape(3, 3), tip.xmat.reshape(3, 3)[:, 0]
    for beyond in (0.015, 0.05, 0.20):
        x, y, z = view.T @ (tip.xpos + beyond * ahead - eye.xpos)
        assert z > 0 and abs(x) < 1e-9
        assert abs(np.degrees(np.arctan2(y, z))) < 30
