# SPDX-License-Identifier: Apache-2.0
"""The files read by other programs match the robots: Gazebo, Isaac Sim, SROS2, zenoh, containers.

None of those programs is needed here; the files are tested with them where they run.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from sros2_policy import refused, rules

from embodiment_descriptions import Embodiment, load_robot, robot_description
from embodiment_descriptions.commands import KINDS

REPOSITORY = Path(__file__).resolve().parents[4]
CONFIG = REPOSITORY / "config"
DOCKER = REPOSITORY / "docker"
ROBOTS = ("widowx", "aloha", "mobile_base")
HARDWARE = {"widowx": ("mock", "real"), "aloha": ("mock", "real"), "mobile_base": ("mock", "real")}


def camera_topics(embodiment: Embodiment) -> dict[str, str]:
    """Topic → name of its type."""
    return {c.topic: "Image" for c in embodiment.cameras} | {c.info_topic: "CameraInfo" for c in embodiment.cameras}


# Gazebo ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_bridge_carries_the_clock_and_the_cameras_and_nothing_else(robot: str) -> None:
    entries = yaml.safe_load((CONFIG / "gazebo" / f"{robot}_bridge.yaml").read_text())
    bridged = {entry["ros_topic_name"]: entry for entry in entries}
    expected = {"/clock": "Clock"} | camera_topics(load_robot(robot))
    assert {topic: entry["gz_type_name"] for topic, entry in bridged.items()} == {
        topic: f"gz.msgs.{kind}" for topic, kind in expected.items()
    }
    for entry in entries:
        assert set(entry) <= {
            "ros_topic_name", "gz_topic_name", "ros_type_name", "gz_type_name", "direction", "lazy",
        }  # fmt: skip
        assert entry["direction"] == "GZ_TO_ROS"
        assert entry["ros_type_name"].split("/")[-1] == entry["gz_type_name"].split(".")[-1]
        assert entry["gz_topic_name"].lstrip("/") == entry["ros_topic_name"].lstrip("/")


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_camera_is_a_sensor_of_the_robot_or_of_its_world(robot: str) -> None:
    world = ElementTree.parse(CONFIG / "gazebo" / f"{robot}.sdf").getroot()
    urdf = ElementTree.fromstring(robot_description(robot, hardware="gazebo"))
    sensors = [sensor for root in (world, urdf) for sensor in root.iter("sensor") if sensor.get("type") == "camera"]
    found = {}
    for sensor in sensors:
        found[sensor.findtext("topic")] = "Image"
        found[sensor.findtext("camera/camera_info_topic")] = "CameraInfo"
        # The frame of the images: the first up to Gazebo Ionic, the second from Jetty on.
        assert sensor.findtext("camera/optical_frame_id") == sensor.findtext("gz_frame_id")
        assert float(sensor.findtext("update_rate")) >= load_robot(robot).rate_hz / 2
    assert found == camera_topics(load_robot(robot))


@pytest.mark.parametrize("robot", ROBOTS)
def test_a_world_can_move_render_and_receive_the_robot(robot: str) -> None:
    world = ElementTree.parse(CONFIG / "gazebo" / f"{robot}.sdf").getroot().find("world")
    plugins = {plugin.get("name").split("::")[-1] for plugin in world.iter("plugin")}
    assert {"Physics", "Sensors", "UserCommands", "SceneBroadcaster"} <= plugins
    models = [model.get("name") for model in world.findall("model")]
    assert "floor" in models and len(set(models)) == len(models)


# Isaac Sim ------------------------------------------------------------------------------------------------------------


def isaac(robot: str) -> dict:
    """Settings of the import and the nodes of the action graph."""
    return yaml.safe_load((CONFIG / "isaac" / f"{robot}.yaml").read_text())


def inputs_of(robot: str, kind: str) -> list[dict]:
    """The attributes of every node of a type."""
    return [node.get("inputs", {}) for node in isaac(robot)["nodes"].values() if node["type"].split(".")[-1] == kind]


def topics_of_ros2_control(robot: str, parameter: str) -> list[str]:
    """The values of a parameter of the description's systems, one entry each."""
    urdf = ElementTree.fromstring(robot_description(robot, hardware="isaac"))
    return [param.text for param in urdf.iter("param") if param.get("name") == parameter]


@pytest.mark.parametrize("robot", ROBOTS)
def test_isaac_publishes_what_the_description_and_the_embodiment_expect(robot: str) -> None:
    (states,) = inputs_of(robot, "ROS2PublishJointState")
    assert set(topics_of_ros2_control(robot, "joint_states_topic")) == {f"/{states['topicName']}"}
    commands = inputs_of(robot, "ROS2SubscribeJointState")
    assert topics_of_ros2_control(robot, "joint_commands_topic") == [f"/{c['topicName']}" for c in commands]
    assert {c["queueSize"] for c in commands} == {1}  # a queue would add latency, at one message per tick
    seen = {i["topicName"]: "Image" for i in inputs_of(robot, "ROS2CameraHelper")}
    seen |= {i["topicName"]: "CameraInfo" for i in inputs_of(robot, "ROS2CameraInfoHelper")}
    assert seen == camera_topics(load_robot(robot))
    assert {i["type"] for i in inputs_of(robot, "ROS2CameraHelper")} == {"rgb"}
    assert [i["topicName"] for i in inputs_of(robot, "ROS2PublishClock")] == ["clock"]


# Inputs without which a node of Isaac Sim does nothing, or stays at time 0.
NEEDED = {
    "OnPlaybackTick": set(),
    "IsaacReadSimulationTime": set(),
    "ROS2PublishClock": {"execIn", "timeStamp", "topicName"},
    "ROS2PublishJointState": {"execIn", "timeStamp", "targetPrim", "topicName"},
    "ROS2SubscribeJointState": {"execIn", "topicName", "queueSize"},
    "IsaacJointNameResolver": {"execIn", "jointNames", "targetPrim"},
    "IsaacArticulationController": {"execIn", "jointNames", "targetPrim"},
    "IsaacCreateRenderProduct": {"execIn", "cameraPrim", "width", "height"},
    "ROS2CameraHelper": {"execIn", "renderProductPath", "type", "topicName", "frameId"},
    "ROS2CameraInfoHelper": {"execIn", "renderProductPath", "topicName", "frameId"},
}


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_node_of_isaac_s_graph_has_its_inputs_from_nodes_that_exist(robot: str) -> None:
    nodes = isaac(robot)["nodes"]
    for name, node in nodes.items():
        given, linked = node.get("inputs", {}), node.get("from", {})
        assert not set(given) & set(linked), name
        missing = NEEDED[node["type"].split(".")[-1]] - set(given) - set(linked)
        assert not missing, f"{name} lacks {missing}"
        assert {output.split(".")[0] for output in linked.values()} <= set(nodes)


@pytest.mark.parametrize("robot", ROBOTS)
def test_isaac_drives_the_joints_as_ros2_control_commands_them(robot: str) -> None:
    settings = isaac(robot)["import"]
    embodiment = load_robot(robot)
    assert settings["fixed_base"] is (embodiment.base is None)
    assert settings["joint_drive"] == ("position" if embodiment.base is None else "velocity")
    for node in isaac(robot)["nodes"].values():
        if node["type"].endswith("IsaacArticulationController"):
            assert f"{settings['joint_drive']}Command" in node["from"]
            assert node["from"]["jointNames"].startswith("joint_names")  # through the resolver, not the subscriber


@pytest.mark.parametrize("robot", ROBOTS)
def test_joint_names_survive_the_import_into_usd(robot: str) -> None:
    """A prim's name is [A-Za-z_][A-Za-z0-9_]*; the importer replaces anything else by _."""
    joints = [
        joint.get("name")
        for joint in ElementTree.fromstring(robot_description(robot, hardware="isaac")).findall("joint")
        if joint.get("type") != "fixed"
    ]
    renamed = {re.sub(r"[^A-Za-z0-9_]", "_", name): name for name in joints}
    assert len(renamed) == len(joints)
    overridden = {prim: name for prim, name in renamed.items() if prim != name}
    assert isaac(robot)["import"].get("name_override", {}) == overridden


# SROS2 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("robot, hardware", [(robot, h) for robot in ROBOTS for h in HARDWARE[robot]])
def test_each_computer_may_do_what_each_embodiment_needs(robot: str, hardware: str) -> None:
    embodiment = load_robot(robot, hardware)
    commands = {command.endpoint for command in embodiment.commands if not command.is_action}
    states = {stream.topic for stream in embodiment.joint_states}
    odometry = {embodiment.odometry.topic} if embodiment.odometry else set()
    images = {topic for camera in embodiment.cameras for topic in (camera.image_topic, camera.info_topic)}
    for verb in ("publish", "subscribe"):
        assert not refused("robot", "topic", verb, commands | states | odometry | images)
    assert not refused("policy", "topic", "subscribe", states | odometry | images)
    assert not refused("operator", "topic", "subscribe", commands | states | odometry | images)


# What ros2_control, xs_sdk, a simulator and a button on the robot's computer offer and use beyond the embodiment.
ON_THE_ROBOT = {
    ("topic", "publish"): {"dynamic_joint_states", "controller_manager/activity", "arm_controller/controller_state",
                           "isaac_joint_commands", "estop", "clock", "scene", "tf_static"},
    ("topic", "subscribe"): {"isaac_joint_states", "executor_node/transition_event", "estop"},
    ("service", "reply"): {"controller_manager/switch_controller", "arm_controller/get_parameters",
                           "xs_sdk/get_parameters", "get_robot_info", "launch_ros_4711/list_parameters",
                           "widowx_sim/reset", "mobile_base_sim/misbehave"},
    ("service", "request"): {"controller_manager/load_controller", "executor_node/change_state", "get_robot_info"},
    ("action", "execute"): {"gripper_controller/gripper_cmd", "arm_controller/follow_joint_trajectory"},
    ("action", "call"): {"gripper_controller/gripper_cmd", "follow_path"},
}  # fmt: skip


@pytest.mark.parametrize("kind, verb", ON_THE_ROBOT)
def test_the_robot_s_computer_may_run_all_its_programs(kind: str, verb: str) -> None:
    assert not refused("robot", kind, verb, ON_THE_ROBOT[kind, verb])


@pytest.mark.parametrize("enclave", ["policy", "operator"])
def test_only_the_robot_s_computer_commands_motors(enclave: str) -> None:
    commands = {c.topic for robot in ROBOTS for h in HARDWARE[robot] for c in load_robot(robot, h).commands} | {
        "cmd_vel"
    }
    spoofed = {"joint_states", "odom", "robot_description", "clock", "arm_controller/controller_state", "tf"}
    forbidden = commands | spoofed | {"isaac_joint_commands"}
    assert refused(enclave, "topic", "publish", forbidden) == forbidden
    manager = {"controller_manager/switch_controller", "arm_controller/set_parameters", "xs_sdk/set_parameters"}
    manager |= {"widowx_sim/misbehave", "widowx_sim/reset"}
    assert refused(enclave, "service", "request", manager) == manager
    answers = {"executor_node/hold", "executor_node/reset_estop", "controller_manager/list_controllers"}
    assert refused(enclave, "service", "reply", answers) == answers
    actions = {"gripper_controller/gripper_cmd", "follow_path", "arm_controller/follow_joint_trajectory"}
    for verb in ("call", "execute"):
        assert refused(enclave, "action", verb, actions) == actions


def test_the_policy_s_computer_neither_presses_nor_releases_the_emergency_stop() -> None:
    assert refused("policy", "topic", "publish", {"estop"}) == {"estop"}
    weakening = {"executor_node/reset_estop", "executor_node/set_parameters", "executor_node/change_state"}
    weakening |= {"executor_node/resume", "executor_node/resynchronize", "executor_node/go_home"}
    assert refused("policy", "service", "request", weakening) == weakening
    assert rules("operator", "action", "call") == {"policy_node/execute_instruction"}


@pytest.mark.parametrize("enclave", ["policy", "operator"])
def test_only_the_robot_s_computer_may_do_everything(enclave: str) -> None:
    for kind, verbs in {"topic": ("publish",), "service": ("reply", "request"), "action": ("call", "execute")}.items():
        for verb in verbs:
            assert not {"*", "/*"} & rules(enclave, kind, verb)


# zenoh ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine, key", [("robot", "listen/endpoints"), ("policy", "connect/endpoints")])
def test_the_routers_meet(machine: str, key: str) -> None:
    lines = (CONFIG / "zenoh" / f"{machine}_router.env").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert values["RMW_IMPLEMENTATION"] == "rmw_zenoh_cpp"
    overridden, endpoints = values["ZENOH_CONFIG_OVERRIDE"].split("=", 1)
    assert overridden == key
    (endpoint,) = yaml.safe_load(endpoints)
    assert re.fullmatch(r"tcp/(\[::\]|robot):7447", endpoint)


# Containers -----------------------------------------------------------------------------------------------------------


def pip_packages(dockerfile: str) -> set[str]:
    """Names of the packages that an image installs from PyPI."""
    text = (DOCKER / dockerfile).read_text().replace("\\\n", " ")
    (line,) = re.findall(r"--constraint /tmp/requirements.lock(.*?)&&", text)
    return {name.lower() for name in line.split()}


def with_requirements(names: set[str]) -> set[str]:
    """The packages and everything that they require here."""
    found, todo = set(), set(names)
    while todo:
        name = todo.pop()
        found.add(name)
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        todo |= {_plain(r) for r in required if "extra ==" not in r} - found
    return {_plain(name) for name in found}


def _plain(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9_.-]+", requirement).group().lower().replace("_", "-").replace(".", "-")


def imported_packages(*modules: str) -> set[str]:
    """Names of the PyPI packages, without those of ROS, that a process has loaded after importing modules."""
    program = (
        "import importlib, importlib.metadata, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "owners = importlib.metadata.packages_distributions()\n"
        "tops = {name.split('.')[0] for name in sys.modules}\n"
        "print('\\n'.join({owner for top in tops for owner in owners.get(top, [])}))\n"
    )
    answer = subprocess.run([sys.executable, "-c", program, *modules], capture_output=True, text=True, check=True)
    ours = {path.parent.name for path in REPOSITORY.glob("src/*/package.xml")}
    names = {_plain(name) for name in answer.stdout.split()}
    ros = {name for name in names if name.startswith("ros-") or name.endswith(("-msgs", "-interfaces"))}
    build = {"setuptools", "rclpy", "rosidl-parser", "charset-normalizer"}  # the last is used only if installed
    return names - ros - build - {_plain(name) for name in ours} - {"std-srvs", "rosidl-runtime-py"}


def test_the_robot_image_has_what_its_nodes_import_and_no_torch() -> None:
    nodes = ("executor.executor_node", "drawing.trajectory_visualizer", "recording.episode_recorder")
    command_modules = {kind.ros_side.partition(":")[0] for kind in KINDS}
    imported = imported_packages(*(f"qwen_vla_ros.{node}" for node in nodes), *command_modules)
    installed = with_requirements(pip_packages("robot.Dockerfile"))
    assert imported <= installed, f"docker/robot.Dockerfile lacks {sorted(imported - installed)}"
    assert "torch" not in installed | imported


@pytest.mark.parametrize("dockerfile", ["robot.Dockerfile", "inference.Dockerfile"])
def test_images_take_versions_from_the_lock_and_files_that_exist(dockerfile: str) -> None:
    files = [REPOSITORY / f"requirements.{suffix}" for suffix in ("in", "lock")]
    lines = [line for file in files for line in file.read_text().splitlines() if re.match("[A-Za-z]", line)]
    assert {_plain(name) for name in pip_packages(dockerfile)} <= {_plain(line) for line in lines}
    for source in re.findall(r"^COPY (\S+) ", (DOCKER / dockerfile).read_text(), flags=re.MULTILINE):
        assert (REPOSITORY / source).exists()
        allowed = (REPOSITORY / ".dockerignore").read_text().splitlines()
        assert f"!{source}" in allowed


def test_compose_starts_the_launch_files_with_arguments_that_they_have() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        assert service["network_mode"] == "host"
        assert service["profiles"] == [name]
        if "build" in service:
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        for file in [service["env_file"]] if "env_file" in service else []:
            assert (DOCKER / file).is_file()
    assert services["robot"]["restart"] == "no"  # yaml reads a bare no as false
    for name, default in {"robot": "widowx.launch.py", "policy": "policy.launch.py"}.items():
        command = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", services[name]["command"])
        assert default in command and (REPOSITORY / "launch" / default).is_file()
        given = set(re.findall(r"(\w+):=", command))
        modules = (REPOSITORY / "src/qwen_vla_ros/qwen_vla_ros/bringup").glob("*.py")
        source = "".join(module.read_text() for module in modules)
        assert given <= set(re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', source))
