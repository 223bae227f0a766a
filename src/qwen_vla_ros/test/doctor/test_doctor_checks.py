# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks one by one, on facts given here. The graph tests show that such facts are collected."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from embodiment_descriptions import ResourceError, embodiment_file, load_robot
from embodiment_descriptions.commands import BaseVelocityCommand, GripperActionCommand
from qwen_vla_ros.doctor.checks import cameras as camera_checks
from qwen_vla_ros.doctor.checks import commands as command_checks
from qwen_vla_ros.doctor.checks import joints as joint_checks
from qwen_vla_ros.doctor.checks import machine, ros_setup, streams
from qwen_vla_ros.doctor.checks import nodes as node_checks
from qwen_vla_ros.doctor.checks.checkpoint import check_checkpoint, read_checkpoint
from qwen_vla_ros.doctor.examination import examine, examine_setup, find_patient
from qwen_vla_ros.doctor.facts import Arrival, Endpoint, Graph, ImageFacts, Joints, Topic, with_ros_time
from qwen_vla_ros.doctor.findings import Area, Finding, Level, exit_code
from qwen_vla_ros.doctor.table import as_json, show
from qwen_vla_ros.ros.distributions import distribution
from qwen_vla_ros.ros.publishers import UNKNOWN

AREA = Area("Test")
NOW, MILLISECOND = 1_700_000_000_000_000_000, 1_000_000
NEED = streams.Need(least_rate=10.0, longest_gap=0.5, max_age=0.5)
GB = 10**9


def arrivals(times_ms, age_ms=1.0, **more) -> list[Arrival]:
    """Messages received at these times, each stamped and sent `age_ms` earlier."""
    received = [NOW + round(t * MILLISECOND) for t in times_ms]
    past = round(age_ms * MILLISECOND)
    return [Arrival(r, r - past, r - MILLISECOND, n + 1, b"a", **more) for n, r in enumerate(received)]


def level(finding: Finding) -> str:
    return finding.level.value


# Streams --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "expected", "fact"),
    [
        (range(0, 1000, 50), "ok", "20.0 Hz, longest gap 50 ms"),
        (range(0, 1000, 200), "warn", "5.0 Hz, longest gap 200 ms; 10 Hz required"),
        ([0, 50, 100, 700, 750], "fail", "longest gap 600 ms (limit 500 ms)"),
        ([0], "fail", "1 message in 1.0 s"),
    ],
)
def test_rate(times, expected, fact):
    finding = streams.check_rate(AREA, "rate", arrivals(times), NEED, seconds=1.0)
    assert level(finding) == expected and fact in finding.fact


def test_the_rate_is_that_of_sending_when_the_receiver_is_late():
    late = [dataclasses.replace(a, received=NOW) for a in arrivals(range(0, 1000, 50))]
    assert level(streams.check_rate(AREA, "rate", late, NEED, 1.0)) == "ok"


def test_the_rate_in_a_slow_simulator_is_that_of_its_own_time():
    slow = [dataclasses.replace(a, ros_time=n * 100 * MILLISECOND) for n, a in enumerate(arrivals(range(0, 5000, 900)))]
    assert streams.check_rate(AREA, "rate", slow, NEED, 5.0).fact == "10.0 Hz, longest gap 100 ms"


@pytest.mark.parametrize(
    ("age_ms", "expected", "fact"),
    [
        (20, "ok", "20 ms old"),
        (300, "warn", "300 ms old on arrival, unusable at 500 ms"),
        (900, "fail", "0.90 s old on arrival (limit 0.5 s)"),
        (-50, "warn", "50 ms in the future"),
        (-500, "fail", "0.50 s in the future (limit 0.1 s)"),
        (3 * 86_400_000, "fail", "3 days old"),
        ((NOW - 12_000 * MILLISECOND) / MILLISECOND, "fail", "stamps of simulated time (12.9 s)"),
        (NOW / MILLISECOND, "fail", "stamps"),
    ],
)
def test_stamps(age_ms, expected, fact):
    finding = streams.check_stamps(AREA, "stamps", arrivals(range(0, 1000, 50), age_ms), max_age=0.5)
    assert level(finding) == expected and fact in finding.fact


def test_simulated_time_is_compared_with_the_simulated_clock():
    ticks = [dataclasses.replace(a, stamp=5 * GB, ros_time=5 * GB + 20 * MILLISECOND) for a in arrivals([0, 50])]
    assert streams.check_stamps(AREA, "stamps", ticks, 0.5).fact == "20 ms old on arrival"


def test_a_late_receiver_does_not_make_stamps_look_early():
    """Interpolated between the ticks before and after, whatever the order of processing."""
    ticks = [Arrival(NOW + t * MILLISECOND, stamp=t * MILLISECOND // 2) for t in (200, 0, 100)]
    images = [Arrival(NOW + t * MILLISECOND, stamp=0) for t in (-50, 150, 250)]
    timed = with_ros_time({"/clock": ticks, "/image": images}, "/clock")["/image"]
    assert [a.ros_time for a in timed] == [None, 75 * MILLISECOND, None]


def test_loss_is_counted_per_publisher():
    numbers = [1, 2, 3, 7, 8, 9, 10]
    some = [Arrival(NOW, sequence=n, publisher=b"a") for n in numbers]
    all_of_another = [Arrival(NOW, sequence=n, publisher=b"b") for n in range(5, 8)]
    (finding,) = streams.check_loss(AREA, "loss", some + all_of_another)
    assert "3 of 13 messages did not arrive" in finding.fact and "fastdds_large_images.xml" in finding.remedy
    assert not list(streams.check_loss(AREA, "loss", all_of_another))


def test_numbers_of_publishers_that_cannot_be_distinguished_say_nothing_about_loss():
    pairs = zip(range(1, 9), range(901, 909), strict=True)
    told = [Arrival(NOW, stamp=NOW, sequence=number) for pair in pairs for number in pair]
    need = streams.Need(least_rate=0, longest_gap=1, max_age=1)
    for count, losses in ((1, ["several: loss"]), (2, [])):
        ends = tuple(Endpoint(f"/driver_{number}", "p/msg/T") for number in range(count))
        graph = Graph(seconds=1.0, topics={"/t": Topic("/t", publishers=ends)}, arrivals={"/t": told})
        found = streams.check_stream(AREA, "several", graph, "/t", ("p/msg/T",), need, "start it", shared=True)
        assert [f.subject for f in found if "loss" in f.subject] == losses


def test_definitions_of_a_type_that_differ_are_named():
    ends = [Endpoint(f"/{name}", "p/msg/T", type_hash=name) for name in ("old", "new")]
    graph = Graph(topics={"/t": Topic("/t", publishers=(ends[0],), subscribers=(ends[1],))})
    (finding,) = streams.check_definitions(graph)
    assert "/old and /new have different definitions of T" in finding.fact


# Joints ---------------------------------------------------------------------------------------------------------------


def joint_findings(robot, **changed) -> dict[str, Finding]:
    return {f.subject: f for f in joint_checks.check_values(robot, robot.home | changed)}


def test_the_home_pose_is_ok(widowx):
    assert {level(f) for f in joint_findings(widowx).values()} == {"ok"}


@pytest.mark.parametrize(
    ("joint", "value", "subject", "expected", "fact"),
    [
        ("left_finger", 37.0, "units", "fail", "millimeters? left_finger = 37, limits 0.015..0.037 m"),
        ("shoulder", -1.90, "limits", "warn", "shoulder = -1.9, limits -1.88"),
        ("shoulder", -2.20, "limits", "fail", "shoulder = -2.2"),
        ("left_finger", 0.005, "left_finger", "warn", "closed is 0.015 and open 0.037"),
        ("elbow", math.nan, "positions", "fail", "elbow not finite"),
    ],
)
def test_positions(widowx, joint, value, subject, expected, fact):
    finding = joint_findings(widowx, **{joint: value})[subject]
    assert level(finding) == expected and fact in finding.fact


def test_all_zeros_are_suspicious(widowx):
    findings = list(joint_checks.check_values(widowx, dict.fromkeys(widowx.home, 0.0)))
    assert any("exactly 0" in f.fact and level(f) == "warn" for f in findings)


def test_a_joint_far_outside_its_limits_is_not_taken_for_degrees(widowx):
    """2.6 rad beyond a limit of 2.1 is a fault of the arm; 149 degrees would be a different value."""
    assert "limits" in joint_findings(widowx, wrist_angle=2.6)


def test_a_misspelled_joint_is_named_with_the_likely_one(widowx):
    measured = {name.replace("elbow", "elbow_joint"): 0.0 for name in widowx.home}
    finding = joint_checks.check_names(widowx, measured)
    assert "elbow" in finding.fact and "did you mean 'elbow_joint'?" in finding.fact


def test_joints_of_several_sources_carry_their_prefixes():
    aloha = load_robot("aloha", "real")
    graph = Graph(seconds=1.0)
    for source in aloha.joint_states:
        topic = f"/{source.topic}"
        names = tuple(n.removeprefix(source.prefix) for n in aloha.home if n.startswith(source.prefix))
        content = Joints(names, tuple(aloha.home[source.prefix + n] for n in names))
        graph.topics[topic] = Topic(topic, publishers=(Endpoint("/xs_sdk", "sensor_msgs/msg/JointState"),))
        graph.arrivals[topic] = arrivals(range(0, 1000, 10), content=content)
    assert {level(f) for f in joint_checks.check_joint_states(aloha, graph, "")} == {"ok"}
    graph.topics.pop("/follower_left/joint_states"), graph.arrivals.pop("/follower_left/joint_states")
    findings = {f.subject: f for f in joint_checks.check_joint_states(aloha, graph, "")}
    assert "has no publisher" in findings["follower_left/joint_states"].fact
    assert "7 of 14 are missing: follower_left/waist" in findings["joint names"].fact


@pytest.mark.parametrize("publisher", [b"b", UNKNOWN])
@pytest.mark.parametrize(
    ("second", "expected", "fact"),
    [
        ("left_finger", "ok", "/joint_states from /driver, /other"),  # arm and gripper have a publisher each
        ("elbow", "fail", "2 publishers on /joint_states: /driver, /other"),
        ("wheel", "fail", "2 publishers on /joint_states: /driver, /other"),
    ],
)
def test_publishers_may_share_the_joints_but_not_a_joint(widowx, publisher, second, expected, fact):
    arm = Joints(widowx.arms[0].joints, tuple(widowx.home[name] for name in widowx.arms[0].joints))
    other = Joints((second,), (widowx.home.get(second, 0.0),))
    told = arrivals(range(0, 1000, 10), content=arm)
    told += [dataclasses.replace(a, publisher=publisher, content=other) for a in told]
    ends = tuple(Endpoint(name, "sensor_msgs/msg/JointState") for name in ("/driver", "/other"))
    topics = {"/joint_states": Topic("/joint_states", publishers=ends)}
    graph = Graph(seconds=1.0, topics=topics, arrivals={"/joint_states": told})
    finding = next(joint_checks.check_joint_states(widowx, graph, ""))
    assert level(finding) == expected and fact in finding.fact


# Cameras --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "expected", "fact"),
    [
        ([ImageFacts(640, 480, "rgb8", n, brightest=200) for n in range(3)], "ok", "640 x 480 rgb8"),
        ([ImageFacts(640, 480, "rgb8", 7, brightest=200)] * 3, "warn", "3 identical images"),
        ([ImageFacts(640, 480, "rgb8", n, brightest=2) for n in range(3)], "warn", "black"),
        ([ImageFacts(64, 48, "rgb8", n, brightest=200) for n in range(3)], "warn", "the model's input is 96 x 96"),
        ([ImageFacts(640, 480, "mono8", 1, "encoding 'mono8' cannot be used")], "fail", "mono8"),
    ],
)
def test_images(widowx, images, expected, fact):
    (finding,) = camera_checks.check_images(widowx.cameras[0], images, image_size=96)
    assert level(finding) == expected and fact in finding.fact


def test_cameras_out_of_step_are_named():
    ego, wrist = arrivals(range(0, 2000, 500)), arrivals(range(200, 2000, 500))
    (finding,) = camera_checks.check_alignment({"ego": ego, "cam_wrist": wrist})
    assert level(finding) == "fail" and "200 ms apart (limit 100 ms)" in finding.fact


# Commands -------------------------------------------------------------------------------------------------------------

TWIST, STAMPED = "geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"


def drive(message: str) -> BaseVelocityCommand:
    return BaseVelocityCommand(backend="base_velocity", topic="cmd_vel_nav", message=message)


@pytest.mark.parametrize(
    ("message", "listeners", "expected", "text"),
    [
        ("auto", [TWIST], "ok", "Twist"),
        ("auto", [STAMPED], "ok", "TwistStamped"),
        ("twist", [STAMPED], "fail", "message: twist_stamped"),
        ("auto", [TWIST, STAMPED], "fail", "expect different types"),
        ("auto", [], "fail", "has no subscriber"),
    ],
)
def test_twist_and_twist_stamped(message, listeners, expected, text):
    ends = tuple(Endpoint(f"/node{n}", kind) for n, kind in enumerate(listeners))
    finding = command_checks.check_listeners(drive(message), Topic("/cmd_vel_nav", subscribers=ends))
    assert level(finding) == expected and text in finding.fact + finding.remedy


def test_a_second_listener_that_does_not_match_is_a_warning():
    fine, odd = Endpoint("/base", TWIST), Endpoint("/old_base", STAMPED)
    deaf = Endpoint("/slow_base", TWIST, conflict="durability")
    for other, text in ((odd, "/old_base expects TwistStamped"), (deaf, "QoS of /slow_base")):
        topic = Topic("/cmd_vel_nav", subscribers=(fine, other))
        finding = command_checks.check_listeners(drive("twist"), topic)
        assert level(finding) == "warn" and text in finding.fact


@pytest.mark.parametrize(
    ("nodes", "sending", "expected"),
    [
        (["/executor_node"], [], None),
        (["/executor_node", "/controller_server"], [], "warn"),
        (["/executor_node", "/controller_server"], ["/controller_server"], "fail"),
        (["/executor_node", "/teleop"], [], "fail"),
        (["/teleop"], [], "warn"),
        (["/rosbag2_player"], ["/rosbag2_player"], None),
    ],
)
def test_rivals(nodes, sending, expected):
    topic = Topic("/cmd_vel_nav", publishers=tuple(Endpoint(n, TWIST, gid=n.encode()) for n in nodes))
    graph = Graph(arrivals={"/cmd_vel_nav": [Arrival(NOW, publisher=n.encode()) for n in sending]})
    found = list(command_checks.check_rivals(drive("auto"), topic, graph, "/executor_node"))
    assert [level(f) for f in found] == ([expected] if expected else [])


def test_a_rival_that_rclpy_does_not_tell_is_one_of_the_publishers():
    ends = tuple(Endpoint(name, TWIST, gid=name.encode()) for name in ("/executor_node", "/teleop"))
    topic = Topic("/cmd_vel_nav", publishers=ends)
    graph = Graph(arrivals={"/cmd_vel_nav": [Arrival(NOW, publisher=UNKNOWN)]})
    (found,) = command_checks.check_rivals(drive("auto"), topic, graph, "/executor_node")
    assert found.fact == "also published by /teleop; sending now: one of /executor_node, /teleop"


@pytest.mark.parametrize(
    ("kinds", "expected", "text"),
    [
        ((), "fail", "spawner gripper_controller"),
        (("control_msgs/action/GripperCommand",), "fail", "the YAML has ParallelGripperCommand"),
        (("control_msgs/action/ParallelGripperCommand",), "ok", ""),
    ],
)
def test_actions(kinds, expected, text):
    command = GripperActionCommand(
        backend="gripper_action", action="gripper_controller/gripper_cmd", joint="finger", kind="parallel"
    )
    graph = Graph(actions={"/gripper_controller/gripper_cmd": kinds})
    finding = command_checks.check_action(command, "/gripper_controller/gripper_cmd", graph)
    assert level(finding) == expected and text in finding.fact + finding.remedy


@pytest.mark.parametrize(
    ("controllers", "expected", "text"),
    [
        ({}, None, ""),
        ({"arm_controller": "active"}, "ok", "active"),
        ({"arm_controller": "inactive"}, "fail", "ros2 control set_controller_state arm_controller active"),
        ({"joint_state_broadcaster": "active"}, "fail", "spawner arm_controller"),
    ],
)
def test_a_controller_that_is_not_active_moves_nothing(widowx, controllers, expected, text):
    found = list(command_checks.check_controller(widowx.commands[0], Graph(controllers=controllers)))
    assert [level(f) for f in found] == ([expected] if expected else [])
    assert all(text in f.fact + f.remedy for f in found)


def test_packages_of_a_robot_that_are_missing_are_named_with_how_to_install_them(monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (finding,) = command_checks.check_packages(load_robot("aloha", "real"))
    assert finding.remedy == "apt install ros-jazzy-interbotix-xs-msgs"


# Nodes and clocks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("skew_ms", "expected"), [(0, "ok"), (30, "ok"), (80, "warn"), (500, "fail"), (-60, "warn")])
@pytest.mark.parametrize("publisher", [b"a", UNKNOWN])
def test_skew_is_that_of_the_fastest_message(publisher, skew_ms, expected):
    delays = [skew_ms + delay for delay in (40.0, 0.2, 3.0)]
    heard = [Arrival(NOW, sent=NOW - round(d * MILLISECOND), publisher=publisher) for d in delays]
    topic = Topic("/t", publishers=(Endpoint("/robot", "p/msg/T", gid=b"a"),))
    (finding,) = node_checks.check_skew(Graph(topics={"/t": topic}, arrivals={"/t": heard}))
    assert level(finding) == expected
    assert expected == "ok" or "the clock of /robot is" in finding.fact


@pytest.mark.parametrize(
    ("sim_time", "ticks", "expected", "fact"),
    [
        ({"/a": True, "/b": True}, [0, 10, 20], "ok", "simulated time everywhere"),
        ({"/a": True, "/b": True}, [], "fail", "/clock has no messages"),
        ({"/a": True, "/b": True}, [5, 5, 5], "fail", "/clock does not advance"),
        ({"/a": False, "/b": False}, [0, 10, 20], "warn", "use_sim_time is false in a, b"),
        ({"/a": False, "/b": False}, [], "ok", "real time everywhere"),
        ({"/a": True, "/sim": False}, [0, 10, 20], "ok", "simulated time everywhere"),
    ],
)
def test_simulated_time(sim_time, ticks, expected, fact):
    topic = Topic("/clock", publishers=(Endpoint("/sim", "rosgraph_msgs/msg/Clock"),))
    clock = [Arrival(NOW, stamp=tick) for tick in ticks]
    graph = Graph(topics={"/clock": topic}, arrivals={"/clock": clock}, sim_time=sim_time)
    finding = node_checks.check_simulated_time(graph)
    assert level(finding) == expected and fact in finding.fact


def test_nodes_in_another_domain_are_named():
    finding = node_checks.check_nobody(domain=0, others=[7, 12])
    assert "domain 7, 12" in finding.remedy and "export ROS_DOMAIN_ID=7" in finding.remedy


# Set-up and machine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "subject", "expected"),
    [
        ({}, "domain", "ok"),
        ({"ROS_DOMAIN_ID": "42"}, "domain", "ok"),
        ({"ROS_DOMAIN_ID": "150"}, "domain", "warn"),
        ({"ROS_DOMAIN_ID": "300"}, "domain", "fail"),
        ({"ROS_DOMAIN_ID": "robot"}, "domain", "fail"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, "discovery", "fail"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LAN"}, "discovery", "fail"),
        ({"ROS_LOCALHOST_ONLY": "1"}, "discovery", "warn"),
        ({"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}, "middleware", "ok"),
    ],
)
def test_variables(variables, subject, expected):
    findings = {f.subject: f for f in ros_setup.check_ros_setup(variables)}
    assert level(findings[subject]) == expected


def test_a_middleware_that_is_not_installed_prevents_joining_the_graph(tmp_path):
    place = tmp_path / "share/ament_index/resource_index/rmw_typesupport"
    place.mkdir(parents=True)
    (place / "rmw_fastrtps_cpp").touch()
    variables = {"AMENT_PREFIX_PATH": str(tmp_path), "RMW_IMPLEMENTATION": "rmw_zenoh_cpp", "ROS_DISTRO": "jazzy"}
    finding = ros_setup.check_rmw(variables)
    assert "apt install ros-jazzy-rmw-zenoh-cpp, or use one of rmw_fastrtps_cpp" in finding.remedy
    assert not ros_setup.can_join([finding])
    assert not ros_setup.can_join(list(ros_setup.check_ros_setup({"ROS_DOMAIN_ID": "300"})))
    assert ros_setup.can_join([ros_setup.check_rmw(variables | {"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"})])


def test_domains_are_read_from_the_ports_of_participants():
    ports = [7400, 7410, 7412, 7411, 7400 + 250 * 42 + 10, 7400 + 250 * 42 + 1, 22, 60000]
    assert sorted(set(ros_setup._domains(ports))) == [0, 42]


MACHINE = machine.Machine(
    "/data", 50 * GB, 8 * GB, 4, 0.5, 0, 512 * 10**6, 500 * 10**6, (), "/p.xml", 33_554_432, 8 * 10**6, False
)


@pytest.mark.parametrize(
    ("change", "weights", "subject", "expected", "text"),
    [
        ({}, 12_000_000, "shared memory", "ok", ""),
        ({"shm_total": 64 * 2**20, "shm_free": 64 * 2**20}, 0, "shared memory", "fail", "--shm-size=512m"),
        ({"shm_free": 10**6}, 0, "shared memory", "fail", "fastdds shm clean"),
        ({"segment": machine.DEFAULT_SEGMENT}, 0, "shared memory", "warn", "fastdds_large_images.xml"),
        ({"segment": 0}, 0, "shared memory", "ok", "uses none"),
        ({"segment": 0, "receive_buffer": 212_992}, 0, "shared memory", "warn", "sysctl -w net.core.rmem_max=4194304"),
        ({"segment": None}, 0, "shared memory", "fail", "/p.xml cannot be read"),
        ({"disk_free": 2 * GB}, 0, "disk", "warn", "recording"),
        ({"disk_free": 10**8}, 0, "disk", "fail", "free some space"),
        ({"threads": 16}, 0, "processors", "warn", "OMP_NUM_THREADS=16"),
        ({"load": 9.0}, 0, "processors", "warn", "heartbeats"),
        ({"memory_available": GB}, 9 * GB, "memory", "fail", "18.7 GB"),
        ({}, 9 * GB, "GPU", "warn", "on a machine with a GPU"),
        ({"gpus": (("A100", 5 * GB),)}, 9 * GB, "GPU", "fail", "nvidia-smi"),
        ({"gpus": (("A100", 40 * GB),)}, 9 * GB, "GPU", "ok", "A100"),
        ({"gpus": (("A100", 40 * GB),)}, 9 * GB, "kernels", "warn", "pip install flash-linear-attention"),
        ({"gpus": (("A100", 40 * GB),), "attention_kernels": True}, 9 * GB, "kernels", "ok", "is installed"),
    ],
)
def test_machine(change, weights, subject, expected, text):
    findings = {f.subject: f for f in machine.check_machine(dataclasses.replace(MACHINE, **change), weights)}
    assert level(findings[subject]) == expected and text in findings[subject].fact + findings[subject].remedy


def test_the_shipped_profile_is_read(tmp_path):
    from qwen_vla_ros.ros.environment import own_environment, ros_environment

    variable = distribution().profile_variable
    assert machine.segment_size(ros_environment(base={})[variable]) == 32 * 2**20
    assert machine.segment_size(own_environment(base={})[variable]) == 0
    assert machine.segment_size("") == machine.DEFAULT_SEGMENT
    assert machine.segment_size(str(tmp_path / "gone.xml")) is None


# The model ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path, widowx):
    """The small files of a checkpoint for the WidowX, which a test may damage before it calls the doctor."""
    from embodiment_descriptions import resource_path

    shipped = resource_path("checkpoints/tiny")
    files = {name: json.loads((shipped / f"{name}.json").read_text()) for name in ("embodiments", "normalization")}
    files["config"] = json.loads((shipped / "config.json").read_text())
    save_file({f"layer{n}": np.zeros(4, np.float32) for n in range(12)}, tmp_path / "model.safetensors")

    def check() -> dict[str, Finding]:
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return {f.subject: f for f in check_checkpoint(read_checkpoint(str(tmp_path)), widowx)}

    return SimpleNamespace(folder=tmp_path, files=files, check=check)


def test_the_shipped_checkpoint_is_ok(widowx):
    findings = list(check_checkpoint(read_checkpoint("tiny"), widowx))
    assert {level(f) for f in findings} == {"ok"}
    assert "never moved in training: ry, rz" in findings[-1].fact


def break_robot(files):
    files["embodiments"] = {"aloha": files["embodiments"]["widowx"] | {"name": "aloha"}}


def break_cameras(files):
    files["embodiments"]["widowx"]["camera_tags"] = ["ego", "cam_left"]


def break_rate(files):
    files["embodiments"]["widowx"]["period"] = 0.1


def break_prompt(files):
    files["embodiments"]["widowx"]["prompt_template"] = "Do {instruction}."


def break_order(files):
    files["normalization"]["widowx"]["channel_names"].reverse()


def break_units(files):
    for key in ("q01", "q99"):
        files["normalization"]["widowx"][key][0] *= 1000
        files["normalization"]["widowx"][key][5] = math.copysign(90.0, files["normalization"]["widowx"][key][0])


def break_gripper(files):
    files["normalization"]["widowx"]["q99"][6] = 100.0


@pytest.mark.parametrize(
    ("damage", "subject", "expected", "text"),
    [
        (break_robot, "robot", "fail", "trained for aloha, not for 'widowx'"),
        (break_cameras, "fit", "fail", "cameras: the policy needs cam_left, the robot has ego, cam_wrist"),
        (break_rate, "fit", "fail", "period [s]: trained with 0.1, the robot has 0.2"),
        (break_prompt, "prompt", "warn", "Do {instruction}."),
        (break_order, "statistics", "fail", "gripper rz ry rx z y x"),
        (break_units, "statistics", "fail", "the robot's limits -3..3 (millimeters?); rz -90..90"),
        (break_units, "statistics", "fail", "(degrees?)"),
        (break_gripper, "statistics", "fail", "gripper 0..100"),
    ],
)
def test_a_checkpoint_that_does_not_match(checkpoint, damage, subject, expected, text):
    damage(checkpoint.files)
    finding = checkpoint.check()[subject]
    assert level(finding) == expected and text in finding.fact


def test_the_checkpoint_that_runs_is_examined(checkpoint, widowx):
    """Without --policy, that of policy_node; a specified one is compared with it; one on another machine is skipped."""
    checkpoint.check()
    patient = find_patient("widowx", "mock", "", "")

    def model(policy: str, running: str) -> list[Finding]:
        graph = Graph(policy=running)
        found = examine(dataclasses.replace(patient, policy=policy), {}, graph)
        return [f for f in found if f.area == "Model"]

    assert model("", str(checkpoint.folder))[0].fact.startswith(checkpoint.folder.name)
    other = model("tiny", str(checkpoint.folder))[0]
    assert level(other) == "warn" and str(checkpoint.folder) in other.fact
    assert [level(f) for f in model("", "/elsewhere/model")] == ["ok"]
    assert "tiny" in model("", "")[0].fact
    assert level(model("qwen_vla://tiny", "")[0]) == "ok"


def test_for_a_policy_that_is_no_checkpoint_the_package_is_checked():
    patient = find_patient("widowx", "mock", "", "")

    def model(policy: str, graph: Graph | None = None) -> Finding:
        (found,) = (f for f in examine(dataclasses.replace(patient, policy=policy), {}, graph) if f.area == "Model")
        return found

    assert level(model("mock://hold")) == "ok" and "package qwen_vla opens mock://hold" in model("mock://hold").fact
    assert (
        level(model("chess://e4")) == "fail"
        and "installed: groot://, mock://, openpi://, qwen_vla://" in model("chess://e4").fact
    )
    running = model("", Graph(policy="chess://e4"))
    assert level(running) == "ok" and running.fact == "policy_node has loaded chess://e4"


def test_the_model_of_a_robot_without_a_description_is_not_passed_over(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(embodiment_file("widowx").read_text().replace("name: widowx", "name: mine", 1))
    found = [f for f in examine(find_patient(str(file), "real", "", "tiny"), {}, None) if f.area == "Model"]
    assert [(f.subject, level(f)) for f in found] == [("checkpoint", "ok"), ("fit", "warn")]
    assert "beside its YAML" in found[1].remedy


def test_damaged_files_are_named(checkpoint):
    assert level(checkpoint.check()["checkpoint"]) == "ok"
    weights = checkpoint.folder / "model.safetensors"
    whole = weights.read_bytes()
    for size in (len(whole) - 1, 20, 0):
        weights.write_bytes(whole[:size])
        assert f"model.safetensors is damaged or truncated ({size} bytes)" in checkpoint.check()["checkpoint"].fact
    weights.unlink()
    assert "model.safetensors is missing" in checkpoint.check()["checkpoint"].fact
    assert "nowhere" in read_checkpoint("nowhere").problem


# The whole ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "strict", "code"),
    [
        (["ok"], True, 0),
        (["ok", "warn"], False, 0),
        (["ok", "warn"], True, 1),
        (["warn", "fail"], False, 2),
        ([], True, 0),
    ],
)
def test_exit_code(levels, strict, code):
    assert exit_code([Finding(Level(level), "a", "b", "c") for level in levels], strict) == code


@pytest.mark.parametrize("robot", ["widowx", "aloha", "mobile_base"])
def test_every_robot_can_be_examined_without_a_graph(robot):
    patient = find_patient(robot, "mujoco", "", "remote")
    findings = [*examine_setup(patient, {}), *examine(patient, {}, None)]
    assert {f.area for f in findings} == {"ROS setup", "This machine"}
    assert [f.subject for f in findings if f.level is Level.FAIL and f.area != "This machine"] == []


def test_a_robots_computer_needs_no_torch_for_it():
    program = """
import sys
from qwen_vla_ros.doctor import examination, table
from qwen_vla_ros.doctor.command import Doctor
Doctor("widowx", offline=True).run()
sys.exit([name for name in ("torch", "safetensors", "rclpy") if name in sys.modules] or None)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_robot_of_ones_own_is_specified_by_its_yaml(tmp_path, widowx):
    file = tmp_path / "mine.yaml"
    file.write_text(embodiment_file("widowx").read_text().replace("name: widowx", "name: mine", 1))
    patient = find_patient(str(file), "real", "lab", "tiny")
    assert patient.config.name == "mine" and patient.own is None
    (tmp_path / "mine.urdf").write_text(widowx.urdf)
    patient = find_patient(str(file), "real", "lab", "tiny")
    assert patient.own.name == "mine" and patient.own.joint_names == widowx.joint_names
    with pytest.raises(ResourceError, match="no such embodiment YAML"):
        find_patient("yours.yaml", "mock", "", "")


def test_the_table_fits_80_columns_and_loses_nothing(capsys):
    findings = [
        AREA.ok("short", "all ok"),
        AREA.fail("follower_left/commands/joint_group: rivals", "a fact of many words " * 8, "the remedy " * 9),
        AREA.ok("a_name_that_is_longer_than_its_column/and_more", "well"),
        Area("Other").warn("thing", "x" * 100, "y" * 100),
    ]
    out = io.StringIO()
    show("title", findings, Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    assert words.count("remedy") == 9 and words.count(" words ") == 8 and text.count("x") >= 100
    assert "fail follower_left/commands/ " in text  # broken after a slash
    assert "ok   a_name_that_is_longer_tha" in text  # no empty line before
    assert "2 ok, 1 warn, 1 fail" in text and "fail: Test" in text
    assert as_json("r", findings)["counts"] == {"ok": 2, "warn": 1, "fail": 1}
