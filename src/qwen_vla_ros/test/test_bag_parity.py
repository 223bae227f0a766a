"""A bag gives training what the same messages give the policy live: the same choice, bit-equal images and joints."""

from __future__ import annotations

import array
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image, JointState

from qwen_vla.data.rosbag import BagOptions, RosbagEpisodes
from qwen_vla.observation_buffer import CameraStreams, Observation, Stream, Waiting
from qwen_vla_ros.chunk_messages import nanoseconds, stamp_message
from qwen_vla_ros.policy_node import PARAMETERS, GoalPorts, PolicyNode

S = 1_000_000_000
START = 1_700_000_000 * S
RATES = {"ego/image_raw": 30.0, "cam_wrist/image_raw": 24.0}
ENCODINGS = {"ego/image_raw": ("rgb8", 3), "cam_wrist/image_raw": ("yuv422_yuy2", 2)}
IMAGE = ("sensor_msgs/msg/Image", Image)
TYPES = {"joint_states": ("sensor_msgs/msg/JointState", JointState)} | dict.fromkeys(RATES, IMAGE)


def messages(seed: int, embodiment, seconds: float) -> list[tuple[int, str, object]]:
    """(arrival, topic, message) in order of arrival: jittered periods and latencies, a dropped image now and then."""
    rng = np.random.default_rng(seed)
    events = []
    for topic, rate in (*RATES.items(), ("joint_states", 100.0)):
        stamps = START + np.cumsum(rng.uniform(0.7, 1.3, int(seconds * rate)) * S / rate).astype(np.int64)
        for stamp in stamps[rng.random(len(stamps)) > 0.1]:
            arrival = int(stamp + rng.uniform(0.002, 0.03) * S)
            events.append((arrival, topic, message(rng, topic, int(stamp), embodiment)))
    return sorted(events, key=lambda event: event[0])


def message(rng, topic: str, stamp: int, embodiment) -> object:
    if topic == "joint_states":
        names = list(rng.permutation(embodiment.joint_names))
        result = JointState(name=names, position=rng.normal(size=len(names)).tolist())
    else:
        encoding, channels = ENCODINGS[topic]
        padding = 5
        data = rng.integers(0, 256, 24 * (32 * channels + padding), np.uint8)
        result = Image(height=24, width=32, encoding=encoding, step=32 * channels + padding)
        result.data = array.array("B", data.tobytes())
    result.header.stamp = stamp_message(stamp)
    return result


def record(path, events) -> None:
    """A real MCAP file with the bytes that travel over ROS."""
    store = get_typestore(Stores.ROS2_KILTED)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        known = {topic: writer.add_connection(f"/{topic}", kind, typestore=store) for topic, (kind, _) in TYPES.items()}
        for arrival, topic, content in events:
            writer.write(known[topic], arrival, serialize_message(content))


class Live:
    """The part of policy_node that sees, run by its own methods; time is the test's, and the policy hands on its input.

    The joint states are kept as executor_node keeps them.
    """

    def __init__(self, embodiment) -> None:
        self._changed = threading.Condition()
        self._cameras = CameraStreams(embodiment.cameras)
        self._policy = SimpleNamespace(infer=lambda observation, seed: observation)
        self.parameters = SimpleNamespace(**{parameter.name: parameter.default for parameter in PARAMETERS})
        self.parameters.max_silence = 600.0  # of the wall clock: the messages come as fast as the test can push them
        self.joints = Stream("joint states", "joint_states", 0.5, 256)
        self.embodiment = embodiment
        self.tags = {camera.topic: camera.tag for camera in embodiment.cameras}
        self.ports = GoalPorts.__new__(GoalPorts)
        self.ports._node, self.ports._instruction, self.ports._drawn = self, "lift it", 0

    def arrive(self, topic: str, content, now: int) -> None:
        if topic == "joint_states":
            known = dict(zip(content.name, content.position, strict=True))
            positions = np.array([known[name] for name in self.embodiment.joint_names])
            self.joints.push(nanoseconds(content.header.stamp), positions, now)
        else:
            PolicyNode._store(self, self.tags[topic], content)

    def observe(self, now: int) -> Observation | Waiting:
        self.ports.now = lambda: now
        return self.ports.observe(0)


@pytest.mark.parametrize("seed", range(3))
def test_bag_and_live_observations_are_bit_equal(tmp_path, widowx, seed):
    events = messages(seed, widowx, seconds=4.0)
    record(tmp_path / "bag", events)
    (episode,) = RosbagEpisodes(tmp_path / "bag", widowx, BagOptions(instruction="lift it"))
    times = episode.columns["timestamp"].values[:, 0]
    live, coming, compared, first = Live(widowx), list(events), 0, None
    for row, time in enumerate(times):
        while coming and (first is None or coming[0][0] <= first + round(time * S)):
            arrival, topic, content = coming.pop(0)
            live.arrive(topic, deserialize_message(serialize_message(content), TYPES[topic][1]), arrival)
            if first is None and isinstance(live.observe(arrival), Observation) and len(live.joints):
                first = arrival
        observation = live.observe(first + round(time * S))
        if row in episode.defects.get("observation", {}):
            assert not isinstance(observation, Observation)
            continue
        images = live.ports.infer(observation).images
        for tag, image in images.items():
            np.testing.assert_array_equal(episode.images[tag][row], image)
        np.testing.assert_array_equal(episode.state.values[row], live.joints.nearest(observation.stamp_ns).message)
        compared += 1
    assert compared >= 15 and set(images) == {camera.tag for camera in widowx.cameras}
