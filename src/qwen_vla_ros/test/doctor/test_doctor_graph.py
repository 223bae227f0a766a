# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla doctor` with real graphs: healthy, or with many faults at once, each of which it names."""

from __future__ import annotations

import math
import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from doctor_peer import ARM, GRIPPER, WIDOWX, Part, be_healthy, examine, start_other_computer
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from spinning_peer import SpinningPeer
from std_msgs.msg import Bool, Float64MultiArray, Header

from qwen_vla_msgs.msg import Embodiment as EmbodimentMessage
from qwen_vla_rclpy.messages import time_message
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_ros.doctor.checks.ros_setup import domains_in_use
from qwen_vla_ros.ros.chunk_messages import embodiment_message
from qwen_vla_ros.ros.distributions import distribution

DEGREES = {name: value if name == "left_finger" else math.degrees(value) for name, value in WIDOWX.home.items()}
SECOND = 1_000_000_000


class Parts(ExitStack):
    """Creates nodes that are removed at the end; `folder` is for files that they need."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __call__(self, name: str, namespace: str = "", **parameters: object) -> Part:
        return self.enter_context(Part(name, namespace, **parameters))

    def lifecycle_node(self, name: str) -> LifecycleNode:
        """Create a node that reports its lifecycle state."""
        return self.enter_context(SpinningPeer(name, kind=LifecycleNode)).node


def test_a_healthy_robot_passes_before_the_policy_runs(tmp_path, capsys):
    published = set()
    with Parts(tmp_path) as parts:
        robot = parts("robot", "lab")
        be_healthy(robot)
        robot.every(0.05, lambda: published.update(publishers_of_the_doctor(robot)))
        report = examine(tmp_path, namespace="lab")
        assert int(os.environ["ROS_DOMAIN_ID"]) in domains_in_use()
    assert report.at("fail") == []
    assert [(f.subject, f.fact) for f in report.at("warn")] == [
        ("emergency stop", "/lab/estop has no publisher"),
        ("/lab/policy_node", "not running"),
        ("/lab/executor_node", "not running"),
    ]
    shown = capsys.readouterr().out
    assert "Joint states" in shown and "fail:" not in shown
    assert published == {"/rosout", "/parameter_events"}  # as of every node: it commands nothing


def publishers_of_the_doctor(robot: Part) -> set[str]:
    return {
        topic
        for name, namespace in robot.node.get_node_names_and_namespaces()
        if name.startswith("_qwen_vla_doctor")
        for topic, _ in robot.node.get_publisher_names_and_types_by_node(name, namespace)
    }


def test_an_empty_graph_is_one_finding_with_remedies(tmp_path):
    report = examine(tmp_path)
    assert [f.subject for f in report.at("fail")] == ["graph"]
    assert "no nodes found in domain" in report.find("Nodes", "graph").fact
    assert report.code == 2


# Faults are grouped, because each observation of a graph takes a second or two.


def wrong_messages(make):
    """Degrees, old and future stamps, wrong types, encodings and sizes, rivals, a recorder instead of a controller."""
    robot = make("robot")
    robot.describe(qos=QoSProfile(depth=1))
    robot.tell_joints(DEGREES, stamp=lambda now: now - 5 * SECOND)
    robot.node.create_publisher(CompressedImage, "ego/image_raw", 10)
    robot.film("cam_wrist", stamp=lambda now: now + SECOND // 2, encoding="mono8", info=(640, 480))
    robot.execute(GRIPPER, Float64MultiArray)
    robot.node.create_publisher(Bool, "estop", LATCHED).publish(Bool(data=True))
    make("rosbag2_recorder").execute(ARM)
    make("teleop").command(ARM, rate=30.0)
    make("script").command(ARM)
    make("script")


def wrong_time(make):
    """Simulated and real time mixed, stamps of zero and stamps that do not change."""
    robot = make("robot", use_sim_time=True)
    began = time.time_ns()
    ticks = robot.node.create_publisher(Clock, "/clock", 10)
    robot.every(0.02, lambda: ticks.publish(Clock(clock=time_message(time.time_ns() - began))))
    robot.describe(WIDOWX.urdf.replace('upper="1.9896753472735358"', 'upper="1.5"'))
    robot.tell_joints(WIDOWX.home)
    robot.film("cam_wrist", stamp=lambda _now: 12 * SECOND)
    robot.execute(ARM)
    robot.execute(GRIPPER)
    make("driver", use_sim_time=False).film("ego", stamp=lambda _now: 0)


def wrong_parts(make):
    """Unknown joints, two sources of them, a silent camera, missing controllers, inactive nodes, a wrong clock."""
    computer = start_other_computer(make.folder, shift=7)
    make.callback(computer.wait)
    make.callback(computer.kill)
    robot = make("robot")
    robot.describe()
    robot.film("ego", silent=True)
    robot.execute(GRIPPER, qos=LATCHED)
    robot.tell_joints({f"wx250s/{name}": value for name, value in WIDOWX.home.items()})
    make("joint_state_publisher").tell_joints({})
    other = WIDOWX.model_copy(update={"rate_hz": 10.0})
    message = embodiment_message(other, "", robot.node.get_clock().now().to_msg())
    robot.node.create_publisher(EmbodimentMessage, "policy_node/embodiment", LATCHED).publish(message)
    status = DiagnosticStatus(name="camera: temperature", level=DiagnosticStatus.ERROR, message="85 °C")
    diagnostics = robot.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    robot.every(0.05, lambda: diagnostics.publish(DiagnosticArray(status=[status])))
    heartbeat = robot.node.create_publisher(Header, "policy_node/heartbeat", 10)
    robot.every(1 / 1.9, lambda: heartbeat.publish(Header()))
    robot.wait(lambda: robot.node.count_publishers("/diagnostics") == 2, "the other computer", 60.0)
    policy, executor = make.lifecycle_node("policy_node"), make.lifecycle_node("executor_node")
    policy.trigger_configure()
    policy.trigger_activate()
    executor.trigger_configure()


TELLS = distribution().tells_publishers
SENDER = "/teleop" if TELLS else "one of /script, /teleop"
OTHER_CLOCK = "/other_computer" if TELLS else "one of /other_computer, /robot"
SCENARIOS = {
    wrong_messages: [
        ("fail", "Robot description", "robot_description", "Volatile publisher", "transient local"),
        ("fail", "Joint states", "joint_states: stamps", "5.00 s old on arrival (limit 0.5 s)", "chrony"),
        ("fail", "Joint states", "units", "degrees? wrist_angle = 89.5", "radians"),
        ("fail", "Cameras", "ego", "has the type CompressedImage, required is Image", "YAML"),
        ("fail", "Cameras", "cam_wrist: stamps", "0.50 s in the future", "chrony"),
        ("fail", "Cameras", "cam_wrist: image", "mono8", "rgb8"),
        ("fail", "Cameras", "cam_wrist: info", "for 640 x 480, images are 128 x 96", "calibrate"),
        ("fail", "Commands", ARM, "/arm_controller/joint_trajectory has no subscriber except /rosbag2", "spawner"),
        ("fail", "Commands", f"{ARM}: rivals", f"sending now: {SENDER}", "only /executor_node may send commands"),
        ("fail", "Commands", GRIPPER, "/robot expects Float64MultiArray, not JointTrajectory", "YAML"),
        ("fail", "Commands", "emergency stop", "pressed", "/executor_node/reset_estop"),
        ("fail", "Nodes", "names", "/script is running 2 times", "namespace"),
    ],
    wrong_time: [
        ("fail", "Clocks", "use_sim_time", "true in robot, false in driver", "the same value in every node"),
        (
            "fail",
            "Joint states",
            "joint_states: stamps",
            "stamps of real time, but /clock is running",
            "use_sim_time:=true",
        ),
        ("fail", "Cameras", "ego: stamps", "all stamps are 0", "header.stamp"),
        ("fail", "Cameras", "cam_wrist: stamps", "the same stamp in", "restart the driver"),
        ("warn", "Robot description", "limits", "shoulder upper 1.5 instead of 1.99", "another version"),
    ],
    wrong_parts: [
        (
            "fail",
            "Joint states",
            "joint_states",
            "2 publishers on /joint_states: /joint_state_publisher, /robot",
            "mix",
        ),
        ("fail", "Joint states", "joint names", "7 of 7 are missing: waist, shoulder, elbow", "prefix"),
        ("fail", "Nodes", "policy's robot", "policy_node has rate 10.0, here 5.0", "restart policy_node"),
        ("fail", "Clocks", "skew", f"the clock of {OTHER_CLOCK} is 7.0 s ahead of ours", "chrony"),
        ("ok", "Nodes", "/policy_node", "active", ""),
        ("warn", "Nodes", "/executor_node", "inactive", "ros2 lifecycle set /executor_node activate"),
        ("fail", "Nodes", "heartbeat", "2 Hz, longest gap 0.5", "too busy"),
        ("fail", "Nodes", "diagnostics", "camera: temperature: 85 °C", "ros2 topic echo"),
        ("fail", "Cameras", "ego: rate", "no messages in", "unplugged"),
        ("fail", "Cameras", "cam_wrist", "/cam_wrist/image_raw has no publisher", "start the driver"),
        ("fail", "Commands", GRIPPER, "QoS of /robot (reliable, transient local) does not match", "reliable, volatile"),
        ("fail", "Commands", ARM, "/arm_controller/joint_trajectory has no subscriber", "spawner"),
    ],
}
CASES = [(scenario, *expected) for scenario, rows in SCENARIOS.items() for expected in rows]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The doctor's report on each scenario, created once; again when a test is retried."""
    made = {}

    def report(scenario, again):
        if scenario not in made or again:
            folder = tmp_path_factory.mktemp("doctor")
            with Parts(folder) as parts:
                scenario(parts)
                made[scenario] = examine(folder)
        return made[scenario]

    return report


@pytest.mark.parametrize(
    ("scenario", "level", "area", "subject", "fact", "remedy"), CASES, ids=[f"{c[0].__name__}-{c[3]}" for c in CASES]
)
def test_a_fault_is_named_with_its_remedy(reports, request, scenario, level, area, subject, fact, remedy):
    report = reports(scenario, again=getattr(request.node, "execution_count", 1) > 1)
    found = report.find(area, subject)
    assert (found.level, fact in found.fact, remedy in found.remedy) == (level, True, True), found
    assert report.code == 2
