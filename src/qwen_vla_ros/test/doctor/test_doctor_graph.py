"""`qwen-vla doctor` in front of real graphs: healthy, or with many faults at once, each of which it names."""

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

DEGREES = {name: value if name == "left_finger" else math.degrees(value) for name, value in WIDOWX.home.items()}
SECOND = 1_000_000_000


class Parts(ExitStack):
    """Makes nodes that are gone in the end; `folder` is for files that they need."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __call__(self, name: str, namespace: str = "", **parameters: object) -> Part:
        return self.enter_context(Part(name, namespace, **parameters))

    def lifecycle_node(self, name: str) -> LifecycleNode:
        """Make a node that tells its lifecycle state."""
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
        ("emergency stop", "nobody publishes /lab/estop"),
        ("/lab/policy_node", "is not running"),
        ("/lab/executor_node", "is not running"),
    ]
    shown = capsys.readouterr().out
    assert "Joint states" in shown and "fail:" not in shown
    assert published == {"/rosout", "/parameter_events"}  # what every node has: it commands nothing


def publishers_of_the_doctor(robot: Part) -> set[str]:
    return {
        topic
        for name, namespace in robot.node.get_node_names_and_namespaces()
        if name.startswith("_qwen_vla_doctor")
        for topic, _ in robot.node.get_publisher_names_and_types_by_node(name, namespace)
    }


def test_nobody_there_is_one_finding_with_ways_out(tmp_path):
    report = examine(tmp_path)
    assert [f.subject for f in report.at("fail")] == ["graph"]
    assert "no node is visible in domain" in report.find("Nodes", "graph").fact
    assert report.code == 2


# Faults come in groups, because each look at a graph takes a second or two.


def wrong_messages(make):
    """Degrees, old and future stamps, wrong types, encodings and sizes, rivals, a recorder instead of a controller."""
    robot = make("robot")
    robot.describe(qos=QoSProfile(depth=1))
    robot.tell_joints(DEGREES, stamp=lambda now: now - 5 * SECOND)
    robot.node.create_publisher(CompressedImage, "ego/image_raw", 10)
    robot.film("cam_wrist", stamp=lambda now: now + SECOND // 2, encoding="mono8", info=(640, 480))
    robot.obey(GRIPPER, Float64MultiArray)
    robot.node.create_publisher(Bool, "estop", LATCHED).publish(Bool(data=True))
    make("rosbag2_recorder").obey(ARM)
    make("teleop").command(ARM, rate=30.0)
    make("script").command(ARM)
    make("script")


def wrong_time(make):
    """Simulated and real time mixed, stamps of zero and stamps that stand still."""
    robot = make("robot", use_sim_time=True)
    began = time.time_ns()
    ticks = robot.node.create_publisher(Clock, "/clock", 10)
    robot.every(0.02, lambda: ticks.publish(Clock(clock=time_message(time.time_ns() - began))))
    robot.describe(WIDOWX.urdf.replace('upper="1.9896753472735358"', 'upper="1.5"'))
    robot.tell_joints(WIDOWX.home)
    robot.film("cam_wrist", stamp=lambda _now: 12 * SECOND)
    robot.obey(ARM)
    robot.obey(GRIPPER)
    make("driver", use_sim_time=False).film("ego", stamp=lambda _now: 0)


def wrong_parts(make):
    """Foreign joints, two sources of them, a silent camera, missing controllers, nodes not at work, a wrong clock."""
    computer = start_other_computer(make.folder, shift=7)
    make.callback(computer.wait)
    make.callback(computer.kill)
    robot = make("robot")
    robot.describe()
    robot.film("ego", silent=True)
    robot.obey(GRIPPER, qos=LATCHED)
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


SCENARIOS = {
    wrong_messages: [
        ("fail", "Robot description", "robot_description", "Volatile publisher", "transient local"),
        ("fail", "Joint states", "joint_states: stamps", "5.00 s old on arrival (limit 0.5 s)", "chrony"),
        ("fail", "Joint states", "units", "degrees? wrist_angle = 89.5", "radians"),
        ("fail", "Cameras", "ego", "has the type CompressedImage, needed is Image", "YAML"),
        ("fail", "Cameras", "cam_wrist: stamps", "0.50 s in the future", "chrony"),
        ("fail", "Cameras", "cam_wrist: image", "mono8", "rgb8"),
        ("fail", "Cameras", "cam_wrist: info", "for 640 x 480, images have 128 x 96", "calibrate"),
        ("fail", "Commands", ARM, "nobody listens to /arm_controller/joint_trajectory but /rosbag2", "spawner"),
        ("fail", "Commands", f"{ARM}: rivals", "sending now: /teleop", "only /executor_node may command"),
        ("fail", "Commands", GRIPPER, "/robot expects Float64MultiArray, not JointTrajectory", "YAML"),
        ("fail", "Commands", "emergency stop", "is pressed", "/executor_node/reset_estop"),
        ("fail", "Nodes", "names", "/script runs 2 times", "namespace"),
    ],
    wrong_time: [
        ("fail", "Clocks", "use_sim_time", "true in robot, false in driver", "the same in every node"),
        ("fail", "Joint states", "joint_states: stamps", "stamps of real time, but /clock runs", "use_sim_time:=true"),
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
        ("fail", "Clocks", "skew", "the clock of /other_computer is 7.0 s ahead of ours", "chrony"),
        ("ok", "Nodes", "/policy_node", "active", ""),
        ("warn", "Nodes", "/executor_node", "is inactive", "ros2 lifecycle set /executor_node activate"),
        ("fail", "Nodes", "heartbeat", "2 Hz, longest gap 0.5", "too busy"),
        ("fail", "Nodes", "diagnostics", "camera: temperature: 85 °C", "ros2 topic echo"),
        ("fail", "Cameras", "ego: rate", "no messages in", "unplugged"),
        ("fail", "Cameras", "cam_wrist", "nobody publishes /cam_wrist/image_raw", "start the driver"),
        ("fail", "Commands", GRIPPER, "QoS of /robot (reliable, transient local) does not match", "reliable, volatile"),
        ("fail", "Commands", ARM, "nobody listens to /arm_controller/joint_trajectory", "spawner"),
    ],
}
CASES = [(scenario, *expected) for scenario, rows in SCENARIOS.items() for expected in rows]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The doctor's report about each scenario, made once; anew when a test is tried again."""
    made = {}

    def report(scenario, anew):
        if scenario not in made or anew:
            folder = tmp_path_factory.mktemp("doctor")
            with Parts(folder) as parts:
                scenario(parts)
                made[scenario] = examine(folder)
        return made[scenario]

    return report


@pytest.mark.parametrize(
    ("scenario", "level", "area", "subject", "fact", "remedy"), CASES, ids=[f"{c[0].__name__}-{c[3]}" for c in CASES]
)
def test_a_fault_is_named_with_its_way_out(reports, request, scenario, level, area, subject, fact, remedy):
    report = reports(scenario, anew=getattr(request.node, "execution_count", 1) > 1)
    found = report.find(area, subject)
    assert (found.level, fact in found.fact, remedy in found.remedy) == (level, True, True), found
    assert report.code == 2
