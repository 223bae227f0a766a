# SPDX-License-Identifier: Apache-2.0
"""The simulator as other nodes see it: a running process on the real middleware."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque

import numpy as np
import psutil
import pytest
import rclpy
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from embodiment_descriptions import robot_description
from qwen_vla_msgs.msg import TaskState
from qwen_vla_msgs.srv import ResetWorld
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_sim.widowx.suite import WidowXPickSuite
from qwen_vla_sim.widowx.table_spec import CAMERAS

PICK = WidowXPickSuite()
DEADLINE = 30.0  # [s] for whatever should happen soon on an idle machine
ARM = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"]
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
VOLATILE, TRANSIENT_LOCAL = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL


class Simulator:
    """A `widowx_sim` process with three cubes; parameters as keywords. It is always ended, and its output kept."""

    def __init__(self, output, namespace="", environment=None, **parameters):
        parameters = {"suite": "widowx_pick", **parameters}
        given = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        self.output = output
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qwen_vla_sim.widowx.node", "--ros-args", "-r", f"__ns:=/{namespace}", *given],
            stdout=output.open("w"),
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *_) -> None:
        self.end()

    def end(self, sign=signal.SIGINT) -> int:
        """Send the signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sign)
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Client(Node):
    """Subscribes to everything that the simulator publishes and waits for conditions."""

    def __init__(self, namespace="", sim=None):
        super().__init__("sim_test_client", namespace=namespace)
        self.sim = sim
        self.joints, self.clocks, self.logs = deque(maxlen=2000), deque(maxlen=2000), deque(maxlen=500)
        self.images = {camera: deque(maxlen=200) for camera in CAMERAS}
        self.infos = {camera: deque(maxlen=200) for camera in CAMERAS}
        self.states, self.descriptions = deque(maxlen=100), deque(maxlen=10)
        self.camera_poses = deque(maxlen=10)
        self._keep(JointState, "joint_states", self.joints, 100)
        self._keep(Clock, "/clock", self.clocks, 100)
        self._keep(Log, "/rosout", self.logs, 100)
        self._keep(TaskState, "widowx_sim/task_state", self.states, LATCHED)
        self._keep(String, "robot_description", self.descriptions, LATCHED)
        self._keep(PoseStamped, "widowx_sim/ego_camera_pose", self.camera_poses, LATCHED)
        for camera in CAMERAS:
            self._keep(Image, f"{camera}/image_raw", self.images[camera], qos_profile_sensor_data)
            self._keep(CameraInfo, f"{camera}/camera_info", self.infos[camera], qos_profile_sensor_data)
        self.arm = self.create_publisher(JointTrajectory, "arm_controller/joint_trajectory", 10)
        self.gripper = self.create_publisher(JointTrajectory, "gripper_controller/joint_trajectory", 10)
        self.reset_client = self.create_client(ResetWorld, "widowx_sim/reset")
        self.step_client = self.create_client(Trigger, "widowx_sim/step")
        self.set_client = self.create_client(SetParameters, "widowx_sim/set_parameters")

    def _keep(self, kind, topic, messages, qos) -> None:
        self.create_subscription(kind, topic, lambda message: messages.append(message), qos)

    def wait(self, condition, what: str):
        """Spin until `condition()` is true and return its value; fail after the deadline."""
        end = time.monotonic() + DEADLINE
        while not (value := condition()):
            if self.sim is not None and self.sim.process.poll() is not None:
                pytest.fail(f"the simulator ended while waiting for {what}:\n{self.sim.output.read_text()}")
            assert time.monotonic() < end, f"no {what} within {DEADLINE} s"
            rclpy.spin_once(self, timeout_sec=0.1)
        return value

    def call(self, client, request):
        """The reply of a service."""
        self.wait(client.service_is_ready, f"service {client.srv_name}")
        future = client.call_async(request)
        self.wait(future.done, f"reply of {client.srv_name}")
        return future.result()

    def reset(self, seed: int):
        return self.call(self.reset_client, ResetWorld.Request(seed=seed))

    def step(self) -> None:
        assert self.call(self.step_client, Trigger.Request()).success

    def set_parameter(self, name: str, value):
        parameter = Parameter(name, value=value).to_parameter_msg()
        return self.call(self.set_client, SetParameters.Request(parameters=[parameter])).results[0]

    def ready(self) -> Client:
        """Wait until both directions are connected."""
        self.wait(lambda: self.joints, "joint states")
        for publisher in (self.arm, self.gripper):
            self.wait(publisher.get_subscription_count, f"subscriber of {publisher.topic_name}")
        return self

    def now(self) -> int:
        return stamp(self.joints[-1]) if self.joints else 0

    def wait_until(self, time_ns: int) -> None:
        self.wait(lambda: self.now() >= time_ns, f"simulated time {time_ns / 1e9} s")

    def positions(self) -> np.ndarray:
        return np.array(self.joints[-1].position)


def stamp(message) -> int:
    time_message = message.clock if isinstance(message, Clock) else message.header.stamp
    return time_message.sec * 10**9 + time_message.nanosec


def trajectory(names, *points) -> JointTrajectory:
    """Points are (seconds, positions)."""
    message = JointTrajectory(joint_names=names)
    for seconds, positions in points:
        duration = Duration(sec=int(seconds), nanosec=round(seconds % 1 * 1e9))
        message.points.append(JointTrajectoryPoint(positions=[float(p) for p in positions], time_from_start=duration))
    return message


def pixels(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)


@pytest.fixture(scope="module", autouse=True)
def ros():
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope="class")
def running(tmp_path_factory):
    """One simulator in real time, for the tests of a class; it is gone before a test that starts its own."""
    with Simulator(tmp_path_factory.mktemp("sim") / "output.txt", seed=3) as sim:
        client = Client(sim=sim)
        yield client.ready()
        client.destroy_node()
    assert sim.process.returncode == 0


@pytest.fixture
def at_home(running):
    """The running simulator, freshly reset to seed 3."""
    assert running.reset(3).success
    later = running.now() + 100_000_000  # what was published before the reset may still arrive
    running.joints.clear()
    running.wait(lambda: running.joints and stamp(running.joints[-1]) > later, "joint states")
    return running


class TestWhileItRuns:
    @pytest.mark.parametrize(
        ("topic", "kind", "reliability", "durability"),
        [
            ("/joint_states", "sensor_msgs/msg/JointState", RELIABLE, VOLATILE),
            ("/clock", "rosgraph_msgs/msg/Clock", RELIABLE, VOLATILE),
            ("/robot_description", "std_msgs/msg/String", RELIABLE, TRANSIENT_LOCAL),
            ("/widowx_sim/task_state", "qwen_vla_msgs/msg/TaskState", RELIABLE, TRANSIENT_LOCAL),
            ("/widowx_sim/ego_camera_pose", "geometry_msgs/msg/PoseStamped", RELIABLE, TRANSIENT_LOCAL),
            ("/ego/image_raw", "sensor_msgs/msg/Image", BEST_EFFORT, VOLATILE),
            ("/ego/camera_info", "sensor_msgs/msg/CameraInfo", BEST_EFFORT, VOLATILE),
            ("/cam_wrist/image_raw", "sensor_msgs/msg/Image", BEST_EFFORT, VOLATILE),
            ("/cam_wrist/camera_info", "sensor_msgs/msg/CameraInfo", BEST_EFFORT, VOLATILE),
        ],
    )
    def test_published(self, running, topic, kind, reliability, durability):
        (info,) = running.wait(
            lambda: [x for x in running.get_publishers_info_by_topic(topic) if x.node_name == "widowx_sim"], topic
        )
        assert info.topic_type == kind
        assert info.qos_profile.reliability == reliability
        assert info.qos_profile.durability == durability

    @pytest.mark.parametrize("controller", ["arm_controller", "gripper_controller"])
    def test_subscribed(self, running, controller):
        topic = f"/{controller}/joint_trajectory"
        (info,) = running.wait(lambda: running.get_subscriptions_info_by_topic(topic), f"subscriber of {topic}")
        assert info.topic_type == "trajectory_msgs/msg/JointTrajectory"
        assert info.qos_profile.reliability == RELIABLE

    def test_a_late_listener_gets_the_description_of_the_robot_that_is_simulated(self, running):
        received = running.wait(lambda: running.descriptions, "robot description")
        assert received[0].data == robot_description("widowx", hardware="mock")

    def test_joint_states_are_whole_and_a_hundred_per_simulated_second(self, at_home):
        at_home.joints.clear()
        messages = at_home.wait(lambda: len(at_home.joints) >= 50 and list(at_home.joints), "50 joint states")
        assert list(messages[0].name) == [*ARM, "left_finger", "right_finger"]
        assert all(len(m.position) == len(m.velocity) == len(m.effort) == 8 for m in messages)
        assert messages[0].header.frame_id == "base_link"
        np.testing.assert_array_equal(np.diff([stamp(m) for m in messages]), 10_000_000)
        assert messages[0].position[7] == -messages[0].position[6]

    def test_images_come_in_pairs_at_their_rate_with_their_camera_info(self, running):
        for camera in CAMERAS:
            running.images[camera].clear()
            running.infos[camera].clear()
        ego, wrist = (running.images[camera] for camera in CAMERAS)
        running.wait(lambda: len(ego) >= 12 and len(wrist) >= 12, "a dozen images of each camera")
        gaps = np.diff([stamp(m) for m in ego])
        assert (gaps % 100_000_000 == 0).all()
        assert np.median(gaps) == 100_000_000
        assert len({stamp(m) for m in ego} & {stamp(m) for m in wrist}) >= 10
        for camera in CAMERAS:
            image = running.images[camera][0]
            info = running.wait(
                lambda c=camera, i=image: [x for x in running.infos[c] if x.header == i.header], "info"
            )[0]
            assert (image.height, image.width, image.encoding, image.step) == (240, 320, "rgb8", 960)
            assert (info.height, info.width, info.distortion_model) == (240, 320, "plumb_bob")
            assert image.header.frame_id == {"ego": "ego_optical_frame"}.get(camera, "wrist_camera_optical_frame")
            assert info.k[0] == info.k[4] > 100 and (info.k[2], info.k[5]) == (160, 120)
            np.testing.assert_array_equal(np.reshape(info.p, (3, 4))[:, :3].ravel(), info.k)
            assert pixels(image).std() > 10

    def test_task_state_names_the_target_of_the_sentence(self, at_home):
        state = at_home.wait(lambda: at_home.states and at_home.states[-1], "task state")
        scene = PICK.scene(3)
        assert state.instruction == scene.instruction
        assert state.target == f"{scene.named.color} cube"
        metrics = dict(zip(state.metric_names, state.metrics, strict=True))
        assert not state.success and not metrics["grasped"] and state.failure == "not grasped"
        assert 0.05 < state.distance < 0.5 and abs(metrics["lift"]) < 0.005
        assert state.sim_time < 60

    def test_the_clock_says_what_the_stamps_say(self, running):
        running.clocks.clear()
        running.joints.clear()
        running.wait(lambda: len(running.clocks) > 20 and len(running.joints) > 20, "clock and joint states")
        assert len({stamp(m) for m in running.clocks} & {stamp(m) for m in running.joints}) >= 10

    def test_the_arm_goes_where_and_when_the_trajectory_says(self, at_home):
        start = at_home.positions()[:6]
        half, goal = start + [0.2, 0, 0, 0, 0, 0.4], start + [0.4, 0.1, -0.1, 0.2, 0.1, 0.4]
        sent = at_home.now()
        at_home.arm.publish(trajectory(ARM, (1.0, half), (2.0, goal)))
        moved = at_home.wait(
            lambda: at_home.positions()[0] - start[0] > 0.1 and at_home.now(), "half of the first piece"
        )
        assert moved - sent >= 0.5e9  # a straight line: not before half of its time
        at_home.wait(lambda: np.abs(at_home.positions()[:6] - goal).max() < 0.01, "goal")
        assert at_home.now() - sent >= 1.9e9
        at_home.wait_until(at_home.now() + 300_000_000)
        np.testing.assert_allclose(at_home.positions()[:6], goal, atol=0.01)

    def test_joints_in_another_order_are_mapped_by_name(self, at_home):
        goal = at_home.positions()[:6] + [0.3, -0.1, 0.05, 0.2, -0.2, 0.6]
        at_home.arm.publish(trajectory(ARM[::-1], (0.5, goal[::-1])))
        at_home.wait(lambda: np.abs(at_home.positions()[:6] - goal).max() < 0.01, "goal")

    def test_the_gripper_closes_with_both_fingers(self, at_home):
        at_home.gripper.publish(trajectory(["left_finger"], (0.5, [0.02])))
        at_home.wait(lambda: np.allclose(at_home.positions()[6:], [0.02, -0.02], atol=1e-3), "closed gripper")

    @pytest.mark.parametrize(
        ("names", "points", "why"),
        [
            (ARM[:5], [(0.2, [0.5] * 5)], "missing: wrist_rotate"),
            ([*ARM[:5], "gripper"], [(0.2, [0.5] * 6)], "'gripper'"),
            (ARM, [(0.2, [0.5] * 6), (0.2, [0.6] * 6)], "increase strictly"),
            (ARM, [(0.2, [0.5, np.nan, 0.5, 0.5, 0.5, 0.5])], "not finite"),
            (ARM, [], "no points"),
        ],
    )
    def test_a_bad_message_is_refused_aloud_and_nothing_moves(self, at_home, names, points, why):
        at_home.logs.clear()
        before = at_home.positions()
        at_home.arm.publish(trajectory(names, *points))
        refused = "arm_controller: command refused"
        log = at_home.wait(lambda: [m for m in at_home.logs if m.msg.startswith(refused)], "error in the log")[0]
        assert why in log.msg and log.level == Log.ERROR
        at_home.wait_until(at_home.now() + 400_000_000)
        np.testing.assert_allclose(at_home.positions(), before, atol=1e-3)

    def test_the_seed_decides_the_scene_and_the_images_follow(self, running):
        world = PICK.make_world()
        try:
            for seed in (21, 22, 21):
                reply, scene = running.reset(seed), PICK.scene(seed)
                assert (reply.success, reply.instruction, reply.message) == (True, scene.instruction, "")
                world.reset(seed)
                for camera in CAMERAS:
                    running.images[camera].clear()
                    running.wait(lambda c=camera: len(running.images[c]) > 1, "images")  # one may be of before
                    seen = pixels(running.images[camera][-1]).astype(int)
                    assert np.abs(seen - world.render(camera)).mean() < 0.5
        finally:
            world.close()

    def test_every_scene_tells_where_its_ego_camera_stands(self, running):
        world = PICK.make_world()
        points = np.random.default_rng(0).uniform((0.2, -0.15, 0.0), (0.4, 0.15, 0.3), (20, 3))
        for seed in (21, 22):
            running.camera_poses.clear()
            assert running.reset(seed).success
            message = running.wait(lambda: running.camera_poses, "camera pose")[-1]
            assert message.header.frame_id == "base_link"
            world.reset(seed)
            p, q = message.pose.position, message.pose.orientation
            rotation = Rotation.from_quat([q.x, q.y, q.z, q.w])
            x, y, z = (rotation.inv().apply(points - [p.x, p.y, p.z])).T  # right, down, forward of the camera
            k = world.camera_intrinsics("ego")
            seen = np.stack([k[0, 0] * x / z + k[0, 2], k[1, 1] * y / z + k[1, 2], z], axis=1)
            np.testing.assert_allclose(seen, world.project("ego", points) * [320, 240, 1], atol=1e-6)

    def test_it_ends_a_motion_and_time_goes_on(self, at_home):
        home = at_home.positions()
        at_home.arm.publish(trajectory(ARM, (1.0, home[:6] + [1.0, 0, 0, 0, 0, 0])))
        at_home.wait(lambda: at_home.positions()[0] > 0.2, "motion")
        before = at_home.now()
        assert at_home.reset(3).success
        at_home.wait_until(before + 1_200_000_000)
        np.testing.assert_allclose(at_home.positions(), home, atol=1e-3)
        assert (np.diff([stamp(m) for m in at_home.joints]) > 0).all()

    def test_a_negative_seed_is_refused_with_the_value(self, at_home):
        reply = at_home.reset(-5)
        assert not reply.success and "-5" in reply.message
        assert at_home.wait(lambda: at_home.states, "task state")[-1].instruction == PICK.scene(3).instruction

    def test_parameters_are_checked_and_time_cannot_be_stepped_while_it_runs(self, running):
        refused = running.call(running.step_client, Trigger.Request())
        assert not refused.success and "'stepped'" in refused.message
        wrong = running.set_parameter("mode", "faster")
        assert not wrong.successful and "faster" in wrong.reason and "stepped" in wrong.reason
        assert not running.set_parameter("realtime_factor", 0.0).successful
        assert not running.set_parameter("seed", 4).successful  # read-only: scenes come from ~/reset


def test_time_can_be_stopped_and_stepped_in_a_namespace(tmp_path):
    """Paused, stamps do not advance; every step is one control period, with all its joint states and images."""
    with Simulator(tmp_path / "output.txt", "lab", mode="stepped", control_period=0.3, seed=5) as sim:
        client = Client("lab", sim)
        client.wait(lambda: client.clocks, "clock")
        for publisher in (client.arm, client.gripper):
            client.wait(publisher.get_subscription_count, f"subscriber of {publisher.topic_name}")
        assert client.reset(6).success
        client.wait(lambda: client.joints and all(client.images.values()), "joint states and images of the reset")
        start = client.now()
        for step in (1, 2):
            client.step()
            end = start + step * 300_000_000
            client.wait(lambda e=end: client.now() == e, "last joint state of the step")
            client.wait(lambda e=end: stamp(client.clocks[-1]) == e, "clock of the step's end")  # topics arrive apart
            client.clocks.clear()
            client.wait(lambda: len(client.clocks) >= 4, "clock of the paused simulation")
            assert {stamp(m) for m in client.clocks} == {end}
        for camera in CAMERAS:
            client.wait(lambda c=camera: len(client.images[c]) == 7, "images")
            due = [100_000_000 * i for i in range(1, 7)]
            assert [stamp(m) for m in client.images[camera]] == [start, *due]
        assert len(client.joints) == 61
        assert client.set_parameter("mode", "realtime").successful
        client.wait_until(start + 900_000_000)
        assert client.set_parameter("mode", "stepped").successful
        client.destroy_node()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_motion_ends_it_cleanly(tmp_path, sign):
    with Simulator(tmp_path / "output.txt", image_rate=30.0) as sim:
        client = Client(sim=sim).ready()
        client.arm.publish(trajectory(ARM, (5.0, client.positions()[:6] + 0.2)))
        client.wait(lambda: client.positions()[0] > 0.01 and client.images["ego"], "motion")
        children = psutil.Process(sim.process.pid).children(recursive=True)
        client.destroy_node()
        assert sim.end(sign) == 0
    assert not [child for child in children if child.is_running()]
    assert "Traceback" not in sim.output.read_text()


def test_ctrl_c_while_the_middleware_starts_ends_it_too(tmp_path):
    with Simulator(tmp_path / "output.txt") as sim:
        process = psutil.Process(sim.process.pid)
        end = time.monotonic() + DEADLINE
        while not any("rmw_fastrtps" in library.path for library in process.memory_maps()):
            assert time.monotonic() < end
        sim.end(signal.SIGINT)
    assert sim.process.returncode is not None


def test_without_opengl_it_reports_what_is_missing(tmp_path):
    with Simulator(tmp_path / "output.txt", environment={"MUJOCO_GL": "glfw", "DISPLAY": ""}) as sim:
        assert sim.process.wait(DEADLINE) == 1
    assert "libegl1" in sim.output.read_text()


def test_a_wrong_mode_at_start_is_an_error(tmp_path):
    with Simulator(tmp_path / "output.txt", mode="warp", image_rate=0.0) as sim:
        assert sim.process.wait(DEADLINE) == 1
    assert "'warp'" in sim.output.read_text()
