# SPDX-License-Identifier: Apache-2.0
"""The RViz configurations show topics that exist, with types and qualities of service that match."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from embodiment_descriptions import known_robots, load_robot
from qwen_vla_ros.drawing.robot_shapes import RobotShapes
from qwen_vla_ros.ros.environment import ros_environment

FOLDER = Path(__file__).resolve().parents[4] / "config" / "rviz"
ROBOTS = ("widowx", "aloha", "mobile_base")
# Topics shown by an RViz display; None: it shows no topic of its own.
DISPLAYS = {
    "rviz_default_plugins/Grid": None,
    "rviz_default_plugins/TF": None,
    "rviz_default_plugins/RobotModel": "std_msgs/msg/String",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/Path": "nav_msgs/msg/Path",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
}
OTHERS = {
    *(f"rviz_default_plugins/{tool}" for tool in ("Interact", "MoveCamera", "Select", "FocusCamera", "Measure")),
    *(f"rviz_common/{panel}" for panel in ("Displays", "Selection", "Tool Properties", "Views", "Time")),
    "rviz_default_plugins/TF",  # transformation
    "rviz_default_plugins/Orbit",
    "",
}


def test_every_robot_has_its_configuration() -> None:
    assert set(ROBOTS) == set(known_robots())
    assert {path.stem for path in FOLDER.glob("*.rviz")} == {*ROBOTS, "robot"}, "robot.rviz: of any other"


@pytest.fixture(scope="module", params=ROBOTS)
def robot(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def config(robot: str) -> dict:
    return yaml.safe_load((FOLDER / f"{robot}.rviz").read_text(encoding="utf-8"))


def displays(config: dict) -> list[dict]:
    return config["Visualization Manager"]["Displays"]


def topics(config: dict) -> dict[str, tuple[str, dict]]:
    """Topic -> (type, the display's quality of service)."""
    found = {}
    for display in displays(config):
        topic = display.get("Description Topic") or display.get("Topic")
        if topic:
            found[f"/{topic['Value']}"] = (DISPLAYS[display["Class"]], topic)
    return found


def classes(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "Class" in node:
            yield node["Class"]
        for value in node.values():
            yield from classes(value)
    elif isinstance(node, list):
        for value in node:
            yield from classes(value)


def test_classes_are_known(config: dict) -> None:
    assert set(classes(config)) <= DISPLAYS.keys() | OTHERS


def test_everything_is_shown_once_and_the_robot_has_a_ghost(robot: str, config: dict) -> None:
    shown = [display["Class"].split("/")[1] for display in displays(config)]
    embodiment = load_robot(robot)
    counts = {name.split("/")[1]: shown.count(name.split("/")[1]) for name in DISPLAYS}
    paths = max(1, len(embodiment.arms))
    assert counts == {
        "Grid": 1,
        "TF": 1,
        "RobotModel": 2,
        "MarkerArray": 1,
        "Path": paths,
        "Image": len(embodiment.cameras),
    }
    model, ghost = (display for display in displays(config) if display["Class"].endswith("/RobotModel"))
    assert (model["TF Prefix"], ghost["TF Prefix"]) == ("", "ghost") and ghost["Alpha"] < 0.5
    names = [display["Name"] for display in displays(config)]
    assert len(set(names)) == len(names)


def test_the_cameras_are_those_of_the_robot(robot: str, config: dict) -> None:
    images = {d["Topic"]["Value"] for d in displays(config) if d["Class"].endswith("/Image")}
    assert images == {camera.topic for camera in load_robot(robot).cameras}


def test_the_fixed_frame_is_one_of_the_robot(robot: str, config: dict) -> None:
    embodiment = load_robot(robot)
    frame = config["Visualization Manager"]["Global Options"]["Fixed Frame"]
    assert frame == ("odom" if embodiment.base else RobotShapes(embodiment.urdf).root)


def test_topics_are_relative(config: dict) -> None:
    """Else the configuration would not follow a namespace."""
    assert not [topic for topic in topics(config) if topic.startswith("//")]


@pytest.fixture
def processes(robot: str) -> Iterator[list[subprocess.Popen]]:
    """The simulator and the visualizer, each in a process of its own."""
    modules = (f"qwen_vla_sim.{robot}.node", "qwen_vla_ros.drawing.trajectory_visualizer")
    program = "import sys; from {} import main; sys.exit(main())"
    started = [subprocess.Popen([sys.executable, "-c", program.format(m)], env=ros_environment()) for m in modules]
    try:
        yield started
    finally:
        for process in started:
            process.send_signal(signal.SIGINT)
        for process in started:
            process.wait(timeout=30)


@pytest.fixture
def watcher() -> Iterator[Node]:
    """A node that observes the graph."""
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        yield rclpy.create_node("watcher", context=context)
    finally:
        rclpy.shutdown(context=context)


def test_every_topic_is_published_as_the_display_wants_it(
    config: dict, processes: list[subprocess.Popen], watcher: Node
) -> None:
    wanted = topics(config)
    executor = SingleThreadedExecutor(context=watcher.context)
    executor.add_node(watcher)
    deadline = time.monotonic() + 90.0
    while missing := [topic for topic in wanted if watcher.count_publishers(topic) == 0]:
        assert [process.poll() for process in processes] == [None, None], "a node ended by itself"
        assert time.monotonic() < deadline, f"not published: {missing}"
        executor.spin_once(timeout_sec=0.1)
    for topic, (kind, quality) in wanted.items():
        for publisher in watcher.get_publishers_info_by_topic(topic):
            assert publisher.topic_type == kind, topic
            offered = publisher.qos_profile
            if quality["Reliability Policy"] == "Reliable":
                assert offered.reliability == ReliabilityPolicy.RELIABLE, topic
            if quality["Durability Policy"] == "Transient Local":
                assert offered.durability == DurabilityPolicy.TRANSIENT_LOCAL, topic
