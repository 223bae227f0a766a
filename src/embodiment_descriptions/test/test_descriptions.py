# SPDX-License-Identifier: Apache-2.0
"""Every robot with every choice of hardware: a valid URDF with all joints and limits, and controllers that fit it."""

from itertools import product
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from description_checks import COMBINATIONS, HARDWARE, check_urdf, parsed, robot, simulated, text

from embodiment_descriptions import (
    Embodiment,
    EmbodimentError,
    expand_xacro,
    known_robots,
    load_robot,
    resource_path,
    robot_description,
)
from embodiment_descriptions.urdf import MOVABLE, parse_urdf

ROBOTS = ("aloha", "mobile_base", "widowx")
ALL = list(product(ROBOTS, HARDWARE))
PLUGIN = {
    "mock": "mock_components/GenericSystem",
    "gazebo": "gz_ros2_control/GazeboSimSystem",
    "isaac": "joint_state_topic_hardware_interface/JointStateTopicSystem",
    "real": "interbotix_xs_ros_control/XSHardwareInterface",
}
# Robots whose hardware is not behind ros2_control: an xs_sdk node per arm; the base's own driver.
WITHOUT_CONTROL = {("aloha", "real"), ("mobile_base", "real")}
FRAMES = ("world", "base_footprint", "ee_gripper_link", "optical_frame")  # links without a body, by the end of the name
MIMICS = {
    "aloha": {f"follower_{side}/right_finger": f"follower_{side}/left_finger" for side in ("left", "right")},
    "mobile_base": {},
    "widowx": {"right_finger": "left_finger"},
}
FULL = np.pi - 1e-5
# lower, upper [deg] and effort [Nm] of the manufacturer's descriptions; the speed of all is pi rad/s.
ARMS = {
    "widowx": {
        "waist": (None, 10), "shoulder": ((-108, 114), 20), "elbow": ((-123, 92), 15), "forearm_roll": (None, 2),
        "wrist_angle": ((-100, 123), 5), "wrist_rotate": (None, 1),
    },
    "aloha": {
        "waist": (None, 10), "shoulder": ((-106, 72), 20), "elbow": ((-101, 92), 15), "forearm_roll": (None, 2),
        "wrist_angle": ((-107, 128), 5), "wrist_rotate": (None, 1),
    },
}  # fmt: skip
FINGERS = {"widowx": (0.015, 0.037), "aloha": (0.021, 0.057)}  # [m]
PREFIXES = {"widowx": ("",), "aloha": ("follower_left/", "follower_right/"), "mobile_base": ()}
WHEEL_SPEED = 77 * 2 * np.pi / 60  # XM430-W210 at 12 V without load [rad/s]


def expected_limits(name: str) -> dict[str, tuple[float | None, float | None, float, float]]:
    """Lower, upper, velocity and effort of every joint that moves."""
    limits: dict[str, tuple] = {}
    for prefix in PREFIXES[name]:
        for joint, (degrees, effort) in ARMS[name].items():
            bounds = (-FULL, FULL) if degrees is None else np.radians(degrees)
            limits[prefix + joint] = (*bounds, np.pi, effort)
        closed, opened = FINGERS[name]
        limits[prefix + "left_finger"] = (closed, opened, 1, 5)
        limits[prefix + "right_finger"] = (-opened, -closed, 1, 5)
    if name == "mobile_base":
        for side in ("left", "right"):
            limits[f"wheel_{side}_joint"] = (None, None, WHEEL_SPEED, 3.0)
    return limits


def test_all_robots_are_known() -> None:
    assert tuple(known_robots()) == ROBOTS


@pytest.mark.parametrize(("name", "hardware", "file"), COMBINATIONS)
def test_check_urdf_accepts_it_and_finds_every_link(name: str, hardware: str, file: str) -> None:
    found = check_urdf(text(name, hardware, file))
    if found is None:
        pytest.skip("no check_urdf: install liburdfdom-tools")
    tree = parse_urdf(text(name, hardware, file))
    named = {
        word for line in found.splitlines() for word in line.replace("root Link: ", "").split() if word in tree.links
    }
    assert named == set(tree.links)


@pytest.mark.parametrize(("name", "hardware", "file"), COMBINATIONS)
def test_every_joint_and_every_limit(name: str, hardware: str, file: str) -> None:
    tree = parse_urdf(text(name, hardware, file))
    moving = {joint.name: joint for joint in tree.joints.values() if joint.type in MOVABLE}
    expected = expected_limits(name)
    assert set(moving) == set(expected)
    for joint, (lower, upper, velocity, effort) in expected.items():
        found = moving[joint]
        assert (found.velocity, found.effort) == pytest.approx((velocity, effort), rel=1e-4), joint
        assert found.lower == (None if lower is None else pytest.approx(lower)), joint
        assert found.upper == (None if upper is None else pytest.approx(upper)), joint
        assert (found.mimic and found.mimic.joint) == MIMICS[name].get(joint), joint


@pytest.mark.parametrize("name", ROBOTS)
def test_mujoco_reads_the_same_joints_and_limits(name: str) -> None:
    """A second reader of URDFs, which knows nothing of this package."""
    model, _ = simulated(name)
    expected = expected_limits(name)
    assert {model.joint(index).name for index in range(model.njnt)} == set(expected)
    for joint, (lower, upper, _, effort) in expected.items():
        found = model.joint(joint)
        assert bool(model.jnt_limited[found.id]) == (lower is not None)
        if lower is not None:
            np.testing.assert_allclose(found.range, (lower, upper), atol=1e-9)
        np.testing.assert_allclose(model.jnt_actfrcrange[found.id], (-effort, effort))


@pytest.mark.parametrize(("name", "hardware", "file"), COMBINATIONS)
def test_text_needs_no_other_file(name: str, hardware: str, file: str) -> None:
    urdf = text(name, hardware, file)
    assert "package://" not in urdf and "<mesh" not in urdf and "$" not in urdf
    assert "xacro" not in urdf.split("<robot", 1)[0]
    assert (file in urdf) if file and hardware == "gazebo" else ("controllers.yaml" not in urdf)


@pytest.mark.parametrize(("name", "hardware"), ALL)
def test_hardware_chooses_the_plugin(name: str, hardware: str) -> None:
    control = parsed(name, hardware).findall("ros2_control")
    plugins = [plugin.text for block in control for plugin in block.iter("plugin")]
    assert {block.get("type") for block in control} <= {"system"}
    assert len({block.get("name") for block in control}) == len(control)
    if (name, hardware) in WITHOUT_CONTROL:
        assert not control
    else:
        assert plugins == [PLUGIN[hardware]] * max(len(PREFIXES[name]), 1)


@pytest.mark.parametrize(("name", "hardware"), [kind for kind in ALL if kind not in WITHOUT_CONTROL])
def test_control_blocks_agree_with_limits_and_home(name: str, hardware: str) -> None:
    e = robot(name)
    joints = parse_urdf(e.urdf).joints
    commanded = {
        joint.get("name"): joint
        for joint in parsed(name, hardware).findall("ros2_control/joint")
        if joint.find("command_interface") is not None
    }
    assert set(commanded) == {joint for joint in expected_limits(name) if joint not in MIMICS[name]}
    for joint, element in commanded.items():
        (interface,) = element.findall("command_interface")
        wheel = joints[joint].type == "continuous"
        assert interface.get("name") == ("velocity" if wheel else "position")
        if wheel:
            values = {param.get("name"): float(param.text) for param in interface.findall("param")}
            speed = joints[joint].velocity
            assert (values["min"], values["max"]) == pytest.approx((-speed, speed))
        start = float(element.find("state_interface/param[@name='initial_value']").text)
        assert start == (0.0 if wheel else e.home[joint])


@pytest.mark.parametrize(("name", "hardware"), [kind for kind in ALL if kind not in WITHOUT_CONTROL])
def test_a_joint_measured_outside_its_limits_does_not_end_its_controller(name: str, hardware: str) -> None:
    """The limiter of ros2_control throws there if it limits positions; it keeps limiting speeds, from the URDF."""
    joints = parse_urdf(text(name, hardware)).joints
    for element in parsed(name, hardware).findall("ros2_control/joint"):
        interface = element.find("command_interface[@name='position']")
        if interface is not None:
            assert [limits.get("enable") for limits in interface.findall("limits")] == ["false"]
            assert not interface.findall("param") and element.find("limits") is None
            assert joints[element.get("name")].velocity > 0


@pytest.mark.parametrize(("name", "hardware"), [kind for kind in ALL if kind not in WITHOUT_CONTROL])
def test_following_fingers_are_never_commanded(name: str, hardware: str) -> None:
    for joint in MIMICS[name]:
        finger = parsed(name, hardware).find(f"ros2_control/joint[@name='{joint}']")
        if hardware in ("isaac", "real"):
            assert finger is None
            continue
        assert finger.find("command_interface") is None and finger.find("param") is None
        assert {s.get("name") for s in finger.findall("state_interface")} == {"position", "velocity"}


@pytest.mark.parametrize("name", ROBOTS)
def test_isaac_obeys_commands_and_every_state_that_it_reports_has_its_interface(name: str) -> None:
    """The plugin names every joint of its system in one message with one value for each command interface, and Isaac
    Sim drops a message whose arrays differ in length. Isaac Sim in turn reports position, velocity and effort, and the
    plugin deactivates itself at a state that it cannot write."""
    topics = []
    for system in parsed(name, "isaac").findall("ros2_control"):
        joints = system.findall("joint")
        lengths = {
            kind: sum(joint.find(f"command_interface[@name='{kind}']") is not None for joint in joints)
            for kind in ("position", "velocity", "effort")
        }
        assert set(lengths.values()) == {0, len(joints)}
        for joint in joints:
            assert {s.get("name") for s in joint.findall("state_interface")} == {"position", "velocity", "effort"}
        topics.append(system.find("hardware/param[@name='joint_commands_topic']").text)
    assert len(set(topics)) == len(topics)  # Isaac Sim takes one message a tick from each


@pytest.mark.parametrize(("name", "hardware"), ALL)
def test_gazebo_parts_are_for_gazebo_alone(name: str, hardware: str) -> None:
    root = parsed(name, hardware, "some/controllers.yaml")
    if hardware != "gazebo":
        assert root.find("gazebo") is None and root.find("link[@name='world']") is None
        return
    plugins = root.findall("gazebo/plugin")
    assert [plugin.get("name") for plugin in plugins] == ["gz_ros2_control::GazeboSimROS2ControlPlugin"]
    assert plugins[0].find("parameters").text == "some/controllers.yaml"
    # A base drives about; an arm stands on the world.
    assert (root.find("joint[@name='base_to_world']/parent[@link='world']") is not None) == (name != "mobile_base")


@pytest.mark.parametrize("name", ROBOTS)
def test_gazebo_cameras_publish_on_the_topics_of_the_embodiment(name: str) -> None:
    e, root = robot(name), parsed(name, "gazebo")
    found = set()
    for sensor in root.findall("gazebo/sensor"):
        camera = sensor.find("camera")
        found.add((sensor.find("topic").text, camera.find("camera_info_topic").text))
        frame = camera.find("optical_frame_id").text
        assert sensor.find("gz_frame_id").text == frame  # the first up to Gazebo Ionic, the second from Jetty on
        parents = {j.find("child").get("link"): j.find("parent").get("link") for j in root.findall("joint")}
        assert parents[frame] == f"{sensor.get('name')}_link"
    wanted = {(camera.topic, camera.info_topic) for camera in e.cameras}
    if name == "widowx":  # its ego camera stands in the world, not on the robot
        wanted = {topics for topics in wanted if not topics[0].startswith("ego/")}
    assert found == wanted


@pytest.mark.parametrize(("name", "hardware"), ALL)
def test_every_link_has_a_body(name: str, hardware: str) -> None:
    for link in parsed(name, hardware).findall("link"):
        parts = {part.tag for part in link}
        expected = set() if link.get("name").endswith(FRAMES) else {"visual", "collision", "inertial"}
        assert parts == expected, link.get("name")


@pytest.mark.parametrize("name", ROBOTS)
def test_inertias_are_those_of_possible_bodies(name: str) -> None:
    for inertial in parsed(name).iter("inertial"):
        assert float(inertial.find("mass").get("value")) > 0
        moments = sorted(float(inertial.find("inertia").get(key)) for key in ("ixx", "iyy", "izz"))
        assert moments[0] > 0
        assert moments[0] + moments[1] >= moments[2] * (1 - 1e-9)


# --- controllers ------------------------------------------------------------------------------------------------------


def controllers(name: str) -> dict[str, dict]:
    """Parameters by the name of the node, without the wildcard."""
    content = yaml.safe_load(resource_path(f"config/controllers/{name}.yaml").read_text(encoding="utf-8"))
    assert all(key.startswith("/**/") for key in content)
    return {key.removeprefix("/**/"): value["ros__parameters"] for key, value in content.items()}


@pytest.mark.parametrize("name", ROBOTS)
def test_controllers_serve_the_commands_of_the_embodiment(name: str) -> None:
    found, e = controllers(name), robot(name)
    assert found["controller_manager"]["update_rate"] >= 2 * e.rate_hz
    assert found["joint_state_broadcaster"]["type"] == "joint_state_broadcaster/JointStateBroadcaster"
    trajectory = {
        f"{node}/joint_trajectory": parameters
        for node, parameters in found.items()
        if parameters.get("type") == "joint_trajectory_controller/JointTrajectoryController"
    }
    wanted = {command.topic: command.joints for command in e.commands if command.backend == "joint_trajectory"}
    assert {topic: tuple(parameters["joints"]) for topic, parameters in trajectory.items()} == wanted
    for parameters in trajectory.values():
        assert parameters["interpolate_from_desired_state"] is True
        assert parameters["allow_partial_joints_goal"] is False
        assert parameters["allow_nonzero_velocity_at_trajectory_end"] is False
        assert parameters["command_interfaces"] == ["position"]


@pytest.mark.parametrize("name", ROBOTS)
def test_controllers_claim_interfaces_that_the_hardware_has(name: str) -> None:
    states, commands = set(), set()
    for joint in parsed(name, "mock").findall("ros2_control/joint"):
        states |= {(joint.get("name"), i.get("name")) for i in joint.findall("state_interface")}
        commands |= {(joint.get("name"), i.get("name")) for i in joint.findall("command_interface")}
    for parameters in controllers(name).values():
        for joint, kind in product(parameters.get("joints", ()), parameters.get("command_interfaces", ())):
            assert (joint, kind) in commands
        for joint, kind in product(parameters.get("joints", ()), parameters.get("state_interfaces", ())):
            assert (joint, kind) in states


def test_diff_drive_controller_has_the_base_of_the_description() -> None:
    parameters, e, root = (
        controllers("mobile_base")["diff_drive_controller"],
        robot("mobile_base"),
        parsed("mobile_base"),
    )
    assert parameters["type"] == "diff_drive_controller/DiffDriveController"
    wheels = {side: parameters[f"{side}_wheel_names"] for side in ("left", "right")}
    assert wheels == {"left": ["wheel_left_joint"], "right": ["wheel_right_joint"]}

    def place(joint: str) -> list[float]:
        return [float(v) for v in root.find(f"joint[@name='{joint}']/origin").get("xyz").split()]

    separation = place("wheel_left_joint")[1] - place("wheel_right_joint")[1]
    assert parameters["wheel_separation"] == pytest.approx(separation)
    radius = float(root.find("link[@name='wheel_left_link']/collision/geometry/cylinder").get("radius"))
    assert parameters["wheel_radius"] == radius
    assert parameters["base_frame_id"] == e.base.link == "base_footprint"
    limits = e.safety.base
    for axis, speed, acceleration in (
        (parameters["linear"]["x"], limits.max_linear, limits.max_linear_acceleration),
        (parameters["angular"]["z"], limits.max_angular, limits.max_angular_acceleration),
    ):
        assert (axis["min_velocity"], axis["max_velocity"]) == (-speed, speed)
        # Signs are those of dv/dt: braking forward and speeding up backward are negative.
        assert (axis["max_acceleration"], axis["max_deceleration_reverse"]) == (acceleration, acceleration)
        assert (axis["max_deceleration"], axis["max_acceleration_reverse"]) == (-acceleration, -acceleration)
    # Neither straight ahead nor on the spot do the wheels need more than their motors give.
    assert limits.max_linear / radius <= WHEEL_SPEED
    assert limits.max_angular * separation / 2 / radius <= WHEEL_SPEED


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_unknown_robot_and_hardware_name_the_choices() -> None:
    with pytest.raises(EmbodimentError, match="unknown robot 'widowy'; known robots: aloha, mobile_base, widowx"):
        robot_description("widowy")
    with pytest.raises(EmbodimentError, match="unknown hardware 'real_robot'; choose one of mock, gazebo, isaac, real"):
        robot_description("widowx", hardware="real_robot")


@pytest.mark.parametrize("name", ROBOTS)
def test_an_unknown_hardware_fails_in_xacro_too(name: str) -> None:
    with pytest.raises(EmbodimentError, match="hardware:=fake is unknown; choose one of mock, gazebo, isaac, real"):
        expand_xacro(resource_path(f"urdf/{name}/{name}.urdf.xacro"), {"hardware": "fake"})


@pytest.mark.parametrize(("name", "hardware"), ALL)
def test_embodiment_of_every_kind(name: str, hardware: str) -> None:
    e = load_robot(name, hardware=hardware)
    assert isinstance(e, Embodiment) and e.name == name and e.commands
    assert ElementTree.fromstring(e.urdf).get("name") == name
