"""The WidowX description: each hardware choice expands to a valid URDF that loads in MuJoCo, shaped as published."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest

from embodiment_descriptions import Embodiment, EmbodimentError, Kinematics, robot_description

HARDWARE = ("mock", "gazebo", "isaac", "real")
PLUGIN = {
    "mock": "mock_components/GenericSystem",
    "gazebo": "gz_ros2_control/GazeboSimSystem",
    "isaac": "topic_based_ros2_control/TopicBasedSystem",
    "real": "interbotix_xs_ros_control/XSHardwareInterface",
}
FRAMES = {"world", "ee_gripper_link", "wrist_camera_optical_frame"}
SLEEP = (0.0, -1.80, 1.55, 0.0, 0.8, 0.0)  # rest pose in the manufacturer's configuration


def parsed(hardware: str) -> ElementTree.Element:
    return ElementTree.fromstring(robot_description("widowx", hardware=hardware))


def simulated(hardware: str = "mock") -> tuple[mujoco.MjModel, mujoco.MjData]:
    spec = mujoco.MjSpec.from_string(robot_description("widowx", hardware=hardware))
    spec.compiler.fusestatic = False
    model = spec.compile()
    return model, mujoco.MjData(model)


def check_urdf() -> tuple[str, dict[str, str]] | None:
    """Find the check_urdf program of the system, else the one that comes with pinocchio's wheels."""
    program = shutil.which("check_urdf")
    if program:
        return program, dict(os.environ)
    bundle = Path(sysconfig.get_path("purelib")) / "cmeel.prefix"
    if (bundle / "bin" / "check_urdf").exists():
        return str(bundle / "bin" / "check_urdf"), {**os.environ, "LD_LIBRARY_PATH": str(bundle / "lib")}
    return None


@pytest.mark.parametrize("hardware", HARDWARE)
def test_check_urdf_is_clean(hardware: str, tmp_path: Path) -> None:
    found = check_urdf()
    if found is None:
        pytest.skip("no check_urdf: install liburdfdom-tools")
    path = tmp_path / "widowx.urdf"
    path.write_text(robot_description("widowx", hardware=hardware), encoding="utf-8")
    done = subprocess.run([found[0], str(path)], env=found[1], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ee_gripper_link" in done.stdout
    assert "error" not in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("hardware", HARDWARE)
def test_hardware_chooses_the_plugin(hardware: str) -> None:
    control = parsed(hardware).findall("ros2_control")
    assert len(control) == 1 and control[0].get("type") == "system"
    assert [plugin.text for plugin in control[0].iter("plugin")] == [PLUGIN[hardware]]


@pytest.mark.parametrize("hardware", HARDWARE)
def test_control_block_agrees_with_joints_and_home(hardware: str, widowx: Embodiment) -> None:
    control = parsed(hardware).find("ros2_control")
    commanded = [joint for joint in control.findall("joint") if joint.find("command_interface") is not None]
    assert tuple(joint.get("name") for joint in commanded) == widowx.joint_names
    for joint in commanded:
        limit = widowx.limits[joint.get("name")]
        interface = joint.find("command_interface")
        assert interface.get("name") == "position"
        values = {param.get("name"): float(param.text) for param in interface.findall("param")}
        assert values == {"min": pytest.approx(limit.lower), "max": pytest.approx(limit.upper)}
        start = joint.find("state_interface/param[@name='initial_value']")
        assert float(start.text) == widowx.home[joint.get("name")]


def test_mimicking_finger_is_never_commanded() -> None:
    for hardware in ("mock", "gazebo", "isaac"):
        finger = parsed(hardware).find("ros2_control/joint[@name='right_finger']")
        assert finger is not None and finger.find("command_interface") is None
        assert {s.get("name") for s in finger.findall("state_interface")} == {"position", "velocity"}


def test_real_block_is_what_the_xs_interface_accepts() -> None:
    """It refuses a joint without exactly one command interface and takes the last joint for the gripper."""
    control = parsed("real").find("ros2_control")
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


def test_gazebo_gets_its_system_plugin_and_stands_on_the_world() -> None:
    text = robot_description("widowx", hardware="gazebo", controllers_file="some/controllers.yaml")
    root = ElementTree.fromstring(text)
    plugin = root.find("gazebo/plugin")
    assert plugin.get("name") == "gz_ros2_control::GazeboSimROS2ControlPlugin"
    assert plugin.find("parameters").text == "some/controllers.yaml"
    assert root.find("joint[@name='base_to_world']/parent").get("link") == "world"
    for other in ("mock", "isaac", "real"):
        assert parsed(other).find("gazebo") is None and parsed(other).find("link[@name='world']") is None


def test_unknown_robot_and_hardware_name_the_choices() -> None:
    with pytest.raises(EmbodimentError, match="unknown robot 'widowy'; known robots: .*widowx"):
        robot_description("widowy")
    with pytest.raises(EmbodimentError, match="unknown hardware 'real_robot'; choose one of mock, gazebo, isaac, real"):
        robot_description("widowx", hardware="real_robot")


@pytest.mark.parametrize("hardware", HARDWARE)
def test_text_needs_no_other_file(hardware: str) -> None:
    text = robot_description("widowx", hardware=hardware)
    assert "package://" not in text and "<mesh" not in text and "xacro" not in text.split("<robot", 1)[0]


@pytest.mark.parametrize("hardware", HARDWARE)
def test_every_link_has_a_body(hardware: str) -> None:
    for link in parsed(hardware).findall("link"):
        parts = {part.tag for part in link}
        expected = set() if link.get("name") in FRAMES else {"visual", "collision", "inertial"}
        assert parts == expected, link.get("name")


def test_inertias_are_those_of_possible_bodies() -> None:
    for inertial in parsed("mock").iter("inertial"):
        assert float(inertial.find("mass").get("value")) > 0
        moments = sorted(float(inertial.find("inertia").get(key)) for key in ("ixx", "iyy", "izz"))
        assert moments[0] > 0
        assert moments[0] + moments[1] >= moments[2] * (1 - 1e-9)


def test_published_limits(widowx: Embodiment) -> None:
    degrees = {"shoulder": (-108, 114), "elbow": (-123, 92), "wrist_angle": (-100, 123)}
    for name, bounds in degrees.items():
        assert (widowx.limits[name].lower, widowx.limits[name].upper) == pytest.approx(np.radians(bounds))
    for name in ("waist", "forearm_roll", "wrist_rotate"):
        assert widowx.limits[name].upper == pytest.approx(np.pi - 1e-5) == -widowx.limits[name].lower
    assert [widowx.limits[name].effort for name in widowx.joint_names] == [10, 20, 15, 2, 5, 1, 5]
    assert all(widowx.limits[name].velocity == pytest.approx(np.pi) for name in widowx.arms[0].joints)


def test_published_tip_at_zero(kinematics: Kinematics) -> None:
    """The home matrix M of the wx250s in the manufacturer's kinematics: x 0.458325 m, z 0.36065 m, no rotation."""
    expected = np.eye(4)
    expected[[0, 2], 3] = 0.458325, 0.36065
    np.testing.assert_allclose(kinematics.forward(np.zeros(6)), expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_pinocchio_and_mujoco_agree(seed: int, kinematics: Kinematics) -> None:
    model, data = simulated()
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
    model, data = simulated()
    for name, value in zip(kinematics.joint_names, kinematics.home if pose == "home" else SLEEP, strict=True):
        data.joint(name).qpos = value
    data.joint("left_finger").qpos, data.joint("right_finger").qpos = finger, -finger
    mujoco.mj_forward(model, data)
    touching = [tuple(model.body(model.geom_bodyid[g]).name for g in (c.geom1, c.geom2)) for c in data.contact]
    assert not touching


def test_pads_stand_at_the_joint_position_and_reach_past_the_tip() -> None:
    root = parsed("mock")
    for side, sign in (("left", 1), ("right", -1)):
        collision = root.find(f"link[@name='{side}_finger_link']/collision")
        centre = np.array(collision.find("origin").get("xyz").split(), dtype=float)
        size = np.array(collision.find("geometry/box").get("size").split(), dtype=float)
        assert sign * centre[1] - size[1] / 2 == pytest.approx(0.0)
        tip = float(root.find("joint[@name='ee_gripper']/origin").get("xyz").split()[0])
        assert centre[0] + size[0] / 2 - tip == pytest.approx(0.015, abs=1e-3)


def test_wrist_camera_sees_fingertips_and_what_lies_below() -> None:
    """Directions in the optical frame (z into the scene) stay within 60 degrees over the height of the image."""
    model, data = simulated()
    mujoco.mj_kinematics(model, data)
    eye, tip = data.body("wrist_camera_optical_frame"), data.body("ee_gripper_link")
    view, ahead = eye.xmat.reshape(3, 3), tip.xmat.reshape(3, 3)[:, 0]
    for beyond in (0.015, 0.05, 0.20):
        x, y, z = view.T @ (tip.xpos + beyond * ahead - eye.xpos)
        assert z > 0 and abs(x) < 1e-9
        assert abs(np.degrees(np.arctan2(y, z))) < 30
