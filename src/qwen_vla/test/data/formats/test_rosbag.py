# SPDX-License-Identifier: Apache-2.0
"""Bags as episodes: selection at every tick, start and end of episodes, commands, and refusals."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from embodiment_descriptions import load_robot
from qwen_vla import QwenVLAConfig
from qwen_vla.data.formats.episodes import DatasetError, EpisodeSource
from qwen_vla.data.formats.rosbag import BagOptions, RosbagEpisodes
from qwen_vla.data.formats.rosbag_commands import CommandedPositions, Trajectory
from qwen_vla.data.formats.spec import DataError
from qwen_vla.data.robot.robot_source import RobotData
from qwen_vla.data.samples import SourceContext

STORE = get_typestore(Stores.ROS2_KILTED)
T = STORE.types
S = 1_000_000_000
WIDOWX = load_robot("widowx")
SECONDS = 3.0
START = 1_700_000_000 * S


def stamp(ns):
    return T["builtin_interfaces/msg/Time"](*divmod(int(ns), S))


def header(ns):
    return T["std_msgs/msg/Header"](stamp(ns), "")


def picture(number):
    """24×32, a different one for every number."""
    return np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def joints_at(seconds):
    """Within the limits of the WidowX, the finger last."""
    middle, amplitude = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.026]), np.array([0.2] * 6 + [0.008])
    return middle + amplitude * np.sin(seconds + np.arange(7))


class Bag:
    """A real bag file, message by message; `lag`: from stamp to arrival [ns]."""

    def __init__(self, path, plugin=StoragePlugin.MCAP, namespace="", lag=10_000_000):
        self.writer, self.connections, self.namespace, self.lag = None, {}, namespace, lag
        self.writer = Writer(path, version=9, storage_plugin=plugin)

    def __enter__(self):
        self.writer.open()
        return self

    def __exit__(self, *_):
        self.writer.close()

    def add(self, topic, kind, message, ns):
        topic = f"{self.namespace}/{topic}"
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=STORE)
        self.writer.write(self.connections[topic], int(ns) + self.lag, STORE.serialize_cdr(message, kind))

    def image(self, topic, ns, pixels, encoding="rgb8"):
        kind = "sensor_msgs/msg/Image"
        height, width = pixels.shape[:2]
        data = np.ascontiguousarray(pixels).reshape(-1)
        self.add(topic, kind, T[kind](header(ns), height, width, encoding, 0, width * 3, data), ns)

    def compressed(self, topic, ns, pixels):
        kind = "sensor_msgs/msg/CompressedImage"
        data = np.frombuffer(cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes(), np.uint8)
        self.add(topic, kind, T[kind](header(ns), "png", data), ns)

    def joints(self, ns, positions, names=WIDOWX.joint_names, topic="joint_states"):
        kind, none = "sensor_msgs/msg/JointState", np.zeros(0)
        # In another order than the robot's, as a driver may publish them.
        order = np.arange(len(names))[::-1]
        message = T[kind](header(ns), [names[k] for k in order], np.asarray(positions, float)[order], none, none)
        self.add(topic, kind, message, ns)

    def text(self, topic, ns, value):
        self.add(topic, "std_msgs/msg/String", T["std_msgs/msg/String"](value), ns)

    def trajectory(self, topic, ns, names, points, stamped=0):
        kind, point = "trajectory_msgs/msg/JointTrajectory", T["trajectory_msgs/msg/JointTrajectoryPoint"]
        none = np.zeros(0)
        rows = [
            point(
                np.asarray(p, float), none, none, none, T["builtin_interfaces/msg/Duration"](*divmod(round(t * S), S))
            )
            for t, p in points
        ]
        self.add(topic, kind, T[kind](header(stamped), list(names), rows), ns)


def record(bag, seconds=SECONDS, start=START, without=(), compressed=False):
    """Two cameras with different rates, joints at 100 Hz. Image k of camera c is picture(1000·c + k)."""
    events = [(start + k * S // 100, "joints", k) for k in range(int(100 * seconds))]
    for camera, (topic, rate) in enumerate((("ego/image_raw", 30), ("cam_wrist/image_raw", 20))):
        events += [(start + k * S // rate, topic, 1000 * camera + k) for k in range(int(rate * seconds))]
    for ns, what, number in sorted(events):
        if what in without:
            continue
        if what == "joints":
            bag.joints(ns, joints_at((ns - START) / S))
        elif compressed:
            bag.compressed(what, ns, picture(number))
        else:
            bag.image(what, ns, picture(number))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "plain"
    with Bag(path) as bag:
        record(bag)
    return path


SAY = BagOptions(instruction="lift the red cube")


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("compressed", [False, True])
def test_rows_hold_what_belonged_together(tmp_path, plugin, compressed):
    with Bag(tmp_path / "bag", plugin, namespace="/left") as bag:
        record(bag, compressed=compressed)
    source = RosbagEpisodes(tmp_path / "bag", WIDOWX, BagOptions(namespace="left", instruction="lift it"))
    assert isinstance(source, EpisodeSource)
    (episode,) = source
    assert episode.instruction == "lift it" and episode.rate_hz == WIDOWX.rate_hz and not episode.defects
    assert len(episode) == math.floor((SECONDS - 0.05) * WIDOWX.rate_hz) + 1
    assert episode.state.names == WIDOWX.joint_names and episode.state.units == ("rad",) * 6 + ("m",)
    for row in range(len(episode)):
        # At tick t the newest of the slower camera is at t, and the faster one's nearest image is chosen.
        t = row / WIDOWX.rate_hz
        np.testing.assert_array_equal(episode.images["cam_wrist"][row], picture(1000 + round(t * 20)))
        np.testing.assert_array_equal(episode.images["ego"][row], picture(round(t * 30)))
        np.testing.assert_allclose(episode.state.values[row], joints_at(t), atol=1e-9)
    assert episode.actions is None


class InParts(Bag):
    """A bag whose arm and gripper publish their joint states each for itself, the gripper a little later."""

    def joints(self, ns, positions, names=WIDOWX.joint_names, topic="joint_states"):
        arm = len(WIDOWX.arms[0].joints)
        super().joints(ns, positions[:arm], names[:arm])
        super().joints(ns + 2_000_000, positions[arm:], names[arm:])


def test_joint_states_of_several_publishers_on_one_topic_are_merged(tmp_path):
    with InParts(tmp_path / "bag") as bag:
        record(bag)
    (episode,) = RosbagEpisodes(tmp_path / "bag", WIDOWX, SAY)
    assert not episode.defects and len(episode) == math.floor((SECONDS - 0.05) * WIDOWX.rate_hz) + 1
    for row in range(len(episode)):
        arm, gripper = np.split(episode.state.values[row], [6])
        np.testing.assert_allclose(arm, joints_at(row / WIDOWX.rate_hz)[:6], atol=1e-9)
        np.testing.assert_allclose(gripper, joints_at(row / WIDOWX.rate_hz)[6:], atol=0.2 * 0.01)


class OnTwoTopics(Bag):
    """A bag whose gripper publishes its joint states on a topic of its own."""

    def joints(self, ns, positions, names=WIDOWX.joint_names, topic="joint_states"):
        arm = len(WIDOWX.arms[0].joints)
        for topic, part in (("joint_states", slice(arm)), ("gripper/joint_states", slice(arm, None))):
            kind, none = "sensor_msgs/msg/JointState", np.zeros(0)
            message = T[kind](header(ns), list(names[part]), np.asarray(positions[part], float), none, none)
            self.add(topic, kind, message, ns)


def test_joint_states_of_several_topics_with_one_prefix_are_merged(tmp_path):
    with OnTwoTopics(tmp_path / "bag") as bag:
        record(bag)
    gripper = WIDOWX.joint_states[0].model_copy(update={"topic": "gripper/joint_states"})
    robot = WIDOWX.model_copy(update={"joint_states": (*WIDOWX.joint_states, gripper)})
    (episode,) = RosbagEpisodes(tmp_path / "bag", robot, SAY)
    assert not episode.defects
    for row in range(len(episode)):
        np.testing.assert_allclose(episode.state.values[row], joints_at(row / WIDOWX.rate_hz), atol=1e-9)


def test_the_hash_is_that_of_the_contents(tmp_path, plain):
    with Bag(tmp_path / "same") as bag:
        record(bag)
    with Bag(tmp_path / "longer") as bag:
        record(bag, SECONDS + 0.5)
    first = RosbagEpisodes(plain, WIDOWX, SAY).fingerprint
    assert RosbagEpisodes(plain, WIDOWX, SAY).fingerprint == first
    assert RosbagEpisodes(tmp_path / "longer", WIDOWX, SAY).fingerprint != first


def test_a_folder_of_bags_is_one_episode_each_and_a_topic_says_what_to_do(tmp_path):
    for number in range(2):
        with Bag(tmp_path / f"bag{number}") as bag:
            bag.text("task", START, f"task {number}")
            record(bag, 1.0 + number)
    source = RosbagEpisodes(tmp_path, WIDOWX, BagOptions(instruction_topic="task"))
    assert [e.instruction for e in source] == ["task 0", "task 1"]
    assert [len(e) for e in source] == [5, 10]
    np.testing.assert_array_equal(source.episodes, [[0, 5], [5, 15]])


def test_a_marker_topic_cuts_a_bag_into_episodes(tmp_path):
    with Bag(tmp_path / "bag") as bag:
        record(bag)
        for seconds, text in ((0.4, "open the drawer"), (1.2, ""), (1.6, "close the drawer"), (2.6, "")):
            bag.text("episode", START + int(seconds * S), text)
    source = RosbagEpisodes(tmp_path / "bag", WIDOWX, BagOptions(marker_topic="episode"))
    assert [e.instruction for e in source] == ["open the drawer", "close the drawer"]
    assert [len(e) for e in source] == [5, 6]
    np.testing.assert_allclose(source[1].state.values[0], joints_at(1.6), atol=0.02)


def test_bags_of_a_simulator_have_another_clock(tmp_path):
    with Bag(tmp_path / "bag", lag=START) as bag:
        record(bag, start=5 * S)
    (episode,) = RosbagEpisodes(tmp_path / "bag", WIDOWX, SAY)
    assert len(episode) == 15 and not episode.defects


def test_a_camera_that_fails_for_a_while_leaves_bad_rows_which_are_named(tmp_path):
    with Bag(tmp_path / "bag") as bag:
        record(bag, 1.0)
        record(bag, 1.5, START + 1 * S, without=("cam_wrist/image_raw",))
        record(bag, 1.0, START + int(2.5 * S))
    spec = RobotData(kind="robot", path=str(tmp_path / "bag"), robot="widowx", bag={"instruction": "lift it"})
    context = SourceContext(QwenVLAConfig.preset("tiny"), 0.0)
    with pytest.raises(DataError, match=r"bag episode 0 row 8 .*missing frame: camera 'cam_wrist': no image for"):
        spec.open(context)
    source = spec.model_copy(update={"on_bad_rows": "skip"}).open(context)
    bad = sorted(source.bad_rows.reasons)
    assert bad == list(range(8, 13)), "from when the last image is too old until the next one"
    ends = len(source._ends)
    expected = [row for row in range(ends) if not set(range(row, min(row + 17, ends))) & set(bad)]
    np.testing.assert_array_equal(source.training, expected)
    assert source.provenance()["bad_rows"] == 5 and source.provenance()["bad_row_kinds"] == {"missing frame": 5}


def test_actions_are_what_the_controllers_were_told_and_else_what_was_reached(tmp_path, plain):
    arm = WIDOWX.commands[0].topic
    names = WIDOWX.arms[0].joints
    with Bag(tmp_path / "bag") as bag:
        record(bag)
        bag.trajectory(arm, START + S, names, [(1.0, np.ones(6)), (2.0, np.full(6, 2.0))])
    commanded = RosbagEpisodes(tmp_path / "bag", WIDOWX, SAY)[0]
    first = commanded.state.values[4]
    begun = int(S + 10_000_000)  # the trajectory takes over when it arrives
    for row in range(len(commanded)):
        due = row / WIDOWX.rate_hz + 1 / WIDOWX.rate_hz
        if due * S < begun:
            np.testing.assert_allclose(commanded.actions.values[row, :6], commanded.state.values[row, :6])
        elif due > 1.9 + 0.2:
            expected = np.interp(due - begun / S, [1.0, 2.0], [1, 2])
            np.testing.assert_allclose(commanded.actions.values[row, :6], expected, atol=1e-6)
    gripper = commanded.state.values[:, 6]
    np.testing.assert_array_equal(commanded.actions.values[:, 6], [*gripper[1:], gripper[-1]], "nobody commanded it")
    assert np.isfinite(commanded.actions.values).all() and np.isfinite(first).all()
    context = SourceContext(QwenVLAConfig.preset("tiny"), 0.0)
    spec = RobotData(kind="robot", path=str(plain), robot="widowx", bag={"instruction": "lift it"})
    source = spec.open(context)
    assert source.sample(0, None).actions.shape == (16, 7) and set(source.sample(0, None).images) == {
        "ego",
        "cam_wrist",
    }
    assert source.sample(0, None).state.shape == (7,)
    reached = source.targets.commanded[:-1]
    np.testing.assert_allclose(reached, source.targets.measured[1:], atol=1e-12)


def test_what_a_bag_lacks_is_named(tmp_path, plain):
    with Bag(tmp_path / "blind") as bag:
        record(bag, 1.0, without=("cam_wrist/image_raw",))
    with pytest.raises(DatasetError, match=r"lacks /cam_wrist/image_raw; it has /ego/image_raw, /joint_states"):
        RosbagEpisodes(tmp_path / "blind", WIDOWX, SAY)
    assert len(RosbagEpisodes(tmp_path / "blind", WIDOWX.model_copy(update={"cameras": ()}), SAY)[0]) == 5
    with pytest.raises(DatasetError, match="no instruction"):
        RosbagEpisodes(plain, WIDOWX)
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(next(plain.glob("*.mcap")).read_bytes()[:1000])
    with pytest.raises(DatasetError, match=r"broken.mcap"):
        RosbagEpisodes(broken, WIDOWX, SAY)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.lists(st.integers(1, 20), min_size=1, max_size=4)), max_size=5),
    st.integers(0, 100),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=100, deadline=None)
def test_commanded_positions_are_continuous_and_end_at_the_last_point(plans, time, seed):
    rng = np.random.default_rng(seed)
    trajectories = [
        Trajectory(start, ("a",), start + np.cumsum(steps), rng.uniform(-1, 1, (len(steps), 1)))
        for start, steps in plans
    ]
    commands = CommandedPositions(("a", "b"), trajectories)
    measured = np.array([0.3, -0.7])
    assert commands.at(time, measured)[1] == -0.7, "nobody commanded b"
    if not plans or time < min(start for start, _ in plans):
        assert commands.at(time, measured)[0] == 0.3
    else:
        assert -1 <= commands.at(time, measured)[0] <= 1
    if plans:
        last = sorted(trajectories, key=lambda t: t.start_ns)[-1]
        assert commands.at(1000, measured)[0] == last.positions[-1, 0]
