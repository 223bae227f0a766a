# SPDX-License-Identifier: Apache-2.0
"""The streams of policy_node with the real middleware: drivers that come and go, with wrong stamps or a weaker QoS."""

from __future__ import annotations

import array
import threading
import time

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Odometry
from rclpy.clock import ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from spinning_peer import SpinningPeer

from embodiment_descriptions import load_robot
from qwen_vla_control.observation.robot_streams import History, Needs
from qwen_vla_control.observation.streams import Observation, Waiting
from qwen_vla_ros.policy.camera_subscriptions import PARAMETERS, ObservationSubscriptions
from qwen_vla_ros.ros.parameters import Parameters

PATIENCE = 6.0  # [s]
HEIGHT, WIDTH = 48, 64
TICK_NS = 25_000_000
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
TRANSIENT_LOCAL, VOLATILE = DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE


class Driver:
    """The driver of one camera: its publishers and their faults.

    Attributes:
        on: it publishes.
        still: it repeats its last image.
        ahead: of its clock [s].
        info: its CameraInfo, or None.
    """

    def __init__(self, node: Node, camera, qos: QoSProfile, compressed: bool = False, kind: type | None = None) -> None:
        self.node, self.compressed = node, compressed
        self.kind = kind or (CompressedImage if compressed else Image)
        topic = camera.topic + ("/compressed" if compressed else "")
        self.publisher = node.create_publisher(self.kind, topic, qos)
        self.info_publisher = node.create_publisher(CameraInfo, camera.info_topic, qos)
        self.on, self.still, self.ahead, self.count = True, False, 0.0, 0
        self.info = CameraInfo(height=HEIGHT, width=WIDTH)
        self.info.header.frame_id = self.frame = camera.tag

    def tick(self, now: Time) -> None:
        if not self.on:
            return
        self.count += not self.still
        stamp = (now + Duration(seconds=self.ahead)).to_msg()
        message = self.kind()
        if self.kind is not JointState:
            self.fill(message)
        message.header.stamp, message.header.frame_id = stamp, self.frame
        if self.info is not None:
            self.info.header.stamp = stamp
            self.info_publisher.publish(self.info)
        self.publisher.publish(message)

    def fill(self, message) -> None:
        pixels = image_of(self.count)
        if self.compressed:
            message.format = "rgb8; jpeg compressed bgr8"
            message.data = array.array("B", cv2.imencode(".jpg", pixels[:, :, ::-1])[1].tobytes())
        else:
            message.height, message.width, message.encoding, message.step = HEIGHT, WIDTH, "rgb8", 3 * WIDTH
            message.data = array.array("B", pixels.tobytes())

    def destroy(self) -> None:
        self.node.destroy_publisher(self.publisher)
        self.node.destroy_publisher(self.info_publisher)


def image_of(number: int) -> np.ndarray:
    """One color per number, and a mark that moves."""
    pixels = np.full((HEIGHT, WIDTH, 3), (200, 90, 30), np.uint8)
    pixels[:, number % WIDTH] = 255
    return pixels


class Scene:
    """policy_node's subscriptions, and drivers that the test ticks; `simulated_ns` is the time on /clock, if any."""

    def __init__(self) -> None:
        self.drivers_process = SpinningPeer("drivers")
        self.drivers_node = self.drivers_process.node
        self.changed = threading.Condition()
        self.drivers: dict[str, Driver] = {}
        self.others: list = []
        self.process = self.subscriptions = None
        self.clock, self.simulated_ns = self.drivers_node.create_publisher(Clock, "/clock", 10), None

    def subscribe(self, robot: str = "widowx", needs=None, history=None, tags=None, **parameters) -> None:
        """Subscribe to the streams of a robot, with a node like policy_node."""
        self.embodiment = load_robot(robot, "real")
        self.process = SpinningPeer("policy_node", **parameters)
        self.node = self.process.node
        self.node.parameters = Parameters(self.node, PARAMETERS)
        self.subscriptions = ObservationSubscriptions(self.node, self.embodiment, self.changed, tags, needs, history)
        self.process.__enter__()

    def drive(self, reliability=BEST_EFFORT, durability=VOLATILE, only=None, robot="widowx", **options) -> None:
        """Start the drivers of all cameras, or of some."""
        qos = QoSProfile(depth=5, reliability=reliability, durability=durability)
        for camera in load_robot(robot, "real").cameras:
            if only is None or camera.tag in only:
                if camera.tag in self.drivers:
                    self.drivers.pop(camera.tag).destroy()
                self.drivers[camera.tag] = Driver(self.drivers_node, camera, qos, **options)

    def publish(self, kind: type, topic: str, make) -> None:
        """Publish make(stamp) with every tick."""
        publisher = self.drivers_node.create_publisher(kind, topic, 10)
        self.others.append((publisher, make))

    def tick(self) -> None:
        now = self.drivers_node.get_clock().now()
        if self.simulated_ns is not None:
            self.simulated_ns += TICK_NS
            now = Time(nanoseconds=self.simulated_ns, clock_type=ClockType.ROS_TIME)
            self.clock.publish(Clock(clock=now.to_msg()))
        for driver in list(self.drivers.values()):
            driver.tick(now)
        for publisher, make in self.others:
            publisher.publish(make(now.to_msg()))

    def select(self, **options) -> Observation | Waiting:
        with self.changed:
            return self.subscriptions.select(self.node.get_clock().now().nanoseconds, **options)

    def until(self, condition, what: str):
        """Tick the drivers at 40 Hz until a condition is true; returns its value."""
        limit = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < limit, f"not within {PATIENCE} s: {what}; last: {self.select()}"
            self.tick()
            due = time.monotonic() + TICK_NS * 1e-9
            with self.changed:
                while (left := due - time.monotonic()) > 0:
                    self.changed.wait(left)
        return value

    def observation(self, **options) -> Observation:
        def found():
            answer = self.select(**options)
            return answer if isinstance(answer, Observation) else None

        return self.until(found, "an observation")

    def fault(self, *words: str) -> str:
        """Wait for a reason that contains all these words."""

        def found():
            answer = self.select()
            hit = isinstance(answer, Waiting) and answer.fault and all(word in answer.message for word in words)
            return answer.message if hit else None

        return self.until(found, f"a reason with {words}")

    def status(self, name: str) -> DiagnosticStatus:
        with self.changed:
            found = self.subscriptions.diagnostics(self.node.get_clock().now().nanoseconds, self.embodiment.name)
        return next(status for status in found if status.name == f"policy_node: {name}")

    def values(self, name: str = "camera 'ego'") -> dict[str, str]:
        return {pair.key: pair.value for pair in self.status(name).values}

    def close(self) -> None:
        if self.subscriptions is not None:
            self.process.in_turn(self.subscriptions.destroy)
            self.process.close()
        self.drivers_process.close()


@pytest.fixture
def scene():
    made = Scene()
    yield made
    made.close()


# Quality of service ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reliability", "durability", "words"),
    [
        (BEST_EFFORT, VOLATILE, "best effort, volatile"),
        (RELIABLE, VOLATILE, "reliable, volatile"),
        (RELIABLE, TRANSIENT_LOCAL, "reliable, transient local"),
    ],
)
def test_the_quality_is_that_of_the_publisher_and_is_reported(scene, reliability, durability, words):
    scene.subscribe()
    scene.drive(reliability, durability)
    scene.observation()
    scene.until(lambda: scene.values()["quality of service"] == words, "the publisher's quality")
    scene.until(lambda: scene.values()["publishers"] == f"/drivers ({words})", "the publisher by name")
    scene.observation()
    assert scene.status("camera 'ego'").level == DiagnosticStatus.OK


def test_an_image_from_before_the_subscription_is_received_where_the_publisher_keeps_it(scene):
    scene.drive(RELIABLE, TRANSIENT_LOCAL)
    scene.tick()
    scene.drivers["ego"].on = scene.drivers["cam_wrist"].on = False
    scene.subscribe()
    scene.until(lambda: scene.subscriptions.streams.cameras["ego"].received, "the image that was kept")


def test_a_driver_that_comes_back_with_another_quality_is_received_again(scene):
    scene.subscribe()
    scene.drive(RELIABLE)
    scene.until(lambda: scene.values()["quality of service"] == "reliable, volatile", "a reliable subscription")
    scene.observation()
    scene.drive(BEST_EFFORT)  # a reliable subscription receives nothing from it
    scene.fault("camera 'ego': no image for")
    scene.observation()
    assert scene.values()["quality of service"] == "best effort, volatile"


def test_a_second_publisher_of_weaker_quality_is_received_too(scene):
    scene.subscribe()
    scene.drive(RELIABLE)
    scene.until(lambda: scene.values()["quality of service"] == "reliable, volatile", "a reliable subscription")
    other = Driver(scene.drivers_node, scene.embodiment.cameras[0], QoSProfile(depth=5, reliability=BEST_EFFORT))
    scene.until(lambda: scene.values()["quality of service"] == "best effort, volatile", "one that receives both")
    assert "best effort" in scene.values()["publishers"] and "reliable" in scene.values()["publishers"]
    other.destroy()


# Transport ------------------------------------------------------------------------------------------------------------


def test_compressed_images_are_received_like_raw_ones(scene):
    scene.subscribe(image_transport="compressed")
    scene.drive(compressed=True)
    images = scene.subscriptions.decode(scene.observation())
    for image in images.values():
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert np.median(np.abs(image.astype(int) - (200, 90, 30))) <= 3
    values = scene.values()
    assert values["topic"] == "/ego/image_raw/compressed" and values["type"] == "sensor_msgs/msg/CompressedImage"
    assert values["size [px]"] == "64 x 48" and "jpeg" in values["encoding"]


@pytest.mark.parametrize(("chosen", "there"), [("raw", "compressed"), ("compressed", "raw")])
def test_the_wrong_transport_is_named_with_the_right_one(scene, chosen, there):
    scene.subscribe(image_transport=chosen)
    scene.drive(compressed=there == "compressed")
    raw, compressed = "/ego/image_raw", "/ego/image_raw/compressed"
    topic, other = (raw, compressed) if chosen == "raw" else (compressed, raw)
    scene.fault(
        f"camera 'ego': no image yet on {topic}; it has no publisher, but {other} does; set its transport to {there}"
    )


def test_a_topic_of_another_type_is_named(scene):
    scene.subscribe()
    scene.drive(kind=JointState)
    scene.fault("no image yet on /ego/image_raw; it carries sensor_msgs/msg/JointState, not sensor_msgs/msg/Image")


def test_a_camera_in_another_namespace_is_named(scene):
    scene.subscribe()
    scene.publish(Image, "left/ego/image_raw", lambda stamp: Image())
    scene.fault("it has no publisher, but /left/ego/image_raw does; is the namespace correct?")


# Faults of the input --------------------------------------------------------------------------------------------------


def test_a_camera_that_is_unplugged_and_comes_back(scene):
    scene.subscribe()
    scene.fault("camera 'ego': no image yet on /ego/image_raw; it has no publisher; is the driver running?")
    scene.drive()
    scene.observation()
    scene.drivers["cam_wrist"].on = False
    scene.fault("camera 'cam_wrist': no image for", "on /cam_wrist/image_raw (limit 0.5 s); is the driver running?")
    assert scene.status("camera 'cam_wrist'").level == DiagnosticStatus.ERROR
    assert scene.status("camera 'ego'").level == DiagnosticStatus.OK
    scene.drivers["cam_wrist"].on = True
    scene.observation()


def test_the_same_image_under_new_stamps_is_a_frozen_camera(scene):
    scene.subscribe(max_identical=0.3)
    scene.drive()
    scene.observation()
    scene.drivers["ego"].still = True
    scene.fault("camera 'ego': identical images with new stamps", "/ego/image_raw", "restart its driver")
    scene.drivers["ego"].still = False
    scene.observation()


def test_a_simulated_camera_may_repeat_its_image(scene):
    scene.subscribe(max_identical=0.05, use_sim_time=True)
    assert scene.subscriptions.rules().max_identical == float("inf")


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (5.0, ("stamps on /ego/image_raw are", "in the future (limit 0.10 s)", "chrony")),
        (-3.0, ("the images on /ego/image_raw are 3.", "old when they arrive (limit 0.5 s)", "clocks of the machines")),
    ],
)
def test_a_camera_whose_clock_is_off_is_refused_until_it_is_right(scene, ahead, words):
    scene.subscribe()
    scene.drive()
    scene.drivers["ego"].ahead = ahead
    scene.fault("camera 'ego': ", *words)
    scene.drivers["ego"].ahead = 0.0
    scene.observation()


def test_a_camera_whose_clock_goes_back_a_little_is_named(scene):
    scene.subscribe()
    scene.drive()
    scene.observation()
    scene.drivers["ego"].ahead = -0.9  # older than the previous images, but not so much that the stream starts again
    scene.fault("camera 'ego'", "its stamps have gone back by 0.", "is its clock being set?")


def test_a_simulation_that_restarts_is_observed_from_its_beginning(scene):
    scene.simulated_ns = 100 * 10**9
    scene.subscribe(use_sim_time=True)
    scene.drive()
    assert scene.observation().stamp_ns >= scene.simulated_ns - 10**9
    for driver in scene.drivers.values():
        driver.on = False  # the clock is received first
    scene.simulated_ns = 10**9
    scene.fault("in the future (limit 0.10 s)", "if ROS time was set back, wait for new ones")
    for driver in scene.drivers.values():
        driver.on = True
    assert scene.observation().stamp_ns < 50 * 10**9
    assert all(len(stream) < 50 for stream in scene.subscriptions.streams.cameras.values())


def test_a_clock_that_differs_from_the_stamps_points_to_use_sim_time(scene):
    scene.simulated_ns = 100 * 10**9
    scene.subscribe()  # without use_sim_time
    scene.drive()
    scene.fault("/ego/image_raw has stamps of another clock; is use_sim_time the same everywhere?")


def test_parameters_with_a_choice_refuse_other_values(scene):
    scene.subscribe()
    (result,) = scene.node.set_parameters([RosParameter("alignment", value="newest")])
    assert not result.successful and "'newest'" in result.reason and "asof" in result.reason
    (result,) = scene.node.set_parameters([RosParameter("alignment", value="asof")])
    assert result.successful and scene.subscriptions.rules().alignment == "asof"


# CameraInfo -----------------------------------------------------------------------------------------------------------


def test_a_missing_camera_info_is_a_warning_that_can_be_made_an_error(scene):
    scene.subscribe()
    scene.drive()
    scene.drivers["ego"].info = None
    scene.observation()
    status = scene.status("camera 'ego'")
    assert status.level == DiagnosticStatus.WARN and "no CameraInfo on /ego/camera_info" in status.message
    scene.node.set_parameters([RosParameter("camera_info", value="require")])
    scene.fault("camera 'ego': no CameraInfo on /ego/camera_info; is the camera calibrated")
    scene.node.set_parameters([RosParameter("camera_info", value="off")])
    scene.observation()
    assert scene.status("camera 'ego'").level == DiagnosticStatus.OK


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 640, "height": 480}, "/ego/camera_info is for images of 640 x 480 pixels, the images have 64 x 48"),
        ({"frame": "somewhere"}, "/ego/camera_info is for frame 'somewhere', the images are in 'ego'"),
    ],
)
def test_a_camera_info_of_other_images_is_named(scene, change, words):
    scene.subscribe(camera_info="require")
    scene.drive()
    scene.observation()
    info = scene.drivers["ego"].info
    info.width, info.height = change.get("width", WIDTH), change.get("height", HEIGHT)
    info.header.frame_id = change.get("frame", "ego")
    scene.fault("camera 'ego': ", words)


def test_a_camera_info_of_binned_or_cropped_images_fits(scene):
    scene.subscribe(camera_info="require")
    scene.drive()
    info = scene.drivers["ego"].info
    info.width, info.height, info.binning_x, info.binning_y = 2 * WIDTH, 2 * HEIGHT, 2, 2
    cut = scene.drivers["cam_wrist"].info
    cut.width, cut.height, cut.roi.width, cut.roi.height = 10 * WIDTH, 10 * HEIGHT, WIDTH, HEIGHT
    scene.observation()
    assert scene.values()["camera info"] == "not calibrated"


# Besides images -------------------------------------------------------------------------------------------------------


def joint_states(names):
    def make(stamp):
        message = JointState(name=list(names), position=[0.1 * k for k in range(len(names))])
        message.header.stamp = stamp
        return message

    return make


def test_joint_states_of_two_arms_are_merged_under_the_names_of_the_urdf(scene):
    scene.subscribe("aloha", needs=Needs(joint_states=True), tags=["cam_high"])
    scene.drive(only=["cam_high"], robot="aloha")
    scene.fault("joint states '", "no joint state yet on /follower_left/joint_states")
    sources = scene.subscriptions.streams.joint_sources
    for source in sources:
        local = [joint.removeprefix(source.source.prefix) for joint in source.joints]
        scene.publish(JointState, source.source.topic, joint_states([*local, "something_else"]))
    positions = scene.observation().joints
    assert set(positions) == set(scene.embodiment.joint_names)
    for source in sources:
        told = [0.1 * k for k in range(len(source.joints))]
        assert [positions[joint] for joint in source.joints] == pytest.approx(told)


def test_joint_states_that_lack_a_joint_are_named(scene):
    scene.subscribe(needs=Needs(joint_states=True))
    scene.drive()
    names = [name for name in scene.embodiment.joint_names if name not in ("elbow", "left_finger")]
    scene.publish(JointState, "joint_states", joint_states(names))
    scene.fault(
        "joint states: no position of elbow, left_finger yet on /joint_states; ",
        "its messages have no position for elbow, left_finger",
    )


def test_arm_and_gripper_may_publish_separate_joint_states_on_one_topic(scene):
    scene.subscribe(needs=Needs(joint_states=True))
    scene.drive()
    gripper = scene.embodiment.arms[0].gripper.joint
    scene.publish(JointState, "joint_states", joint_states(scene.embodiment.arms[0].joints))
    scene.fault(f"joint states: no position of {gripper} yet on /joint_states")
    scene.publish(JointState, "joint_states", joint_states([gripper]))
    assert set(scene.observation().joints) == set(scene.embodiment.joint_names)


def test_a_mobile_base_needs_odometry(scene):
    scene.subscribe("mobile_base", needs=Needs(odometry=True))
    scene.drive(robot="mobile_base")
    scene.fault("odometry: no message yet on /odom; it has no publisher")

    def odometry(stamp):
        message = Odometry()
        message.header.stamp, message.pose.pose.position.x = stamp, 1.5
        return message

    scene.publish(Odometry, "odom", odometry)
    assert scene.observation().base.vector.tolist() == [1.5, 0.0, 0.0]
    scene.others.clear()
    scene.fault("odometry: no message for", "on /odom (limit 0.5 s)")


def test_a_history_grows_from_the_beginning_of_the_goal_at_its_rate(scene):
    scene.subscribe(history=History(frames=4, rate=10.0), tags=["ego"])
    scene.drive(only=["ego"])
    began = scene.observation().stamp_ns
    assert len(scene.select(history_from_ns=began).images["ego"]) == 1
    full = scene.until(lambda: (seen := scene.select(history_from_ns=began)).images["ego"][3:] and seen, "four frames")
    stamps = [message.header.stamp.sec + message.header.stamp.nanosec * 1e-9 for message in full.images["ego"]]
    assert np.diff(stamps) == pytest.approx([0.1] * 3, abs=0.06) and stamps[0] >= began * 1e-9 - 1e-6
    assert scene.subscriptions.decode(full)["ego"].shape == (4, HEIGHT, WIDTH, 3)
