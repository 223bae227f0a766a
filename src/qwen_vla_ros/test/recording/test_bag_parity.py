# SPDX-License-Identifier: Apache-2.0
"""A bag yields the same data for training as the same messages for the live policy: bit-equal images and joints."""

from __future__ import annotations

import array
import os
import threading

import numpy as np
import pytest
import rclpy
from rclpy.parameter import Parameter as RosParameter
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image, JointState

from qwen_vla.data.formats.rosbag import BagOptions, RosbagEpisodes
from qwen_vla_control.observation.robot_streams import Needs
from qwen_vla_control.observation.streams import Alignment, Observation, Waiting
from qwen_vla_rclpy.guarded_node import GuardedNode
from qwen_vla_rclpy.messages import time_message
from qwen_vla_ros.policy.camera_subscriptions import ObservationSubscriptions
from qwen_vla_ros.policy.observation_reader import ObservationReader
from qwen_vla_ros.policy.policy_node import PARAMETERS
from qwen_vla_ros.ros.parameters import Parameters

S = 1_000_000_000
START = 1_700_000_000 * S
RATES = {"ego/image_raw": 30.0, "cam_wrist/image_raw": 24.0}
ENCODINGS = {"ego/image_raw": ("rgb8", 3), "cam_wrist/image_raw": ("yuv422_yuy2", 2)}
IMAGE = ("sensor_msgs/msg/Image", Image)
TYPES = {"joint_states": ("sensor_msgs/msg/JointState", JointState)} | dict.fromkeys(RATES, IMAGE)


def messages(seed: int, embodiment, seconds: float) -> list[tuple[int, str, object]]:
    """(arrival, topic, message) in order of arrival: jittered periods and latencies, with occasional dropped images."""
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
        phases = [(stamp - START) / S + embodiment.joint_names.index(name) for name in names]
        result = JointState(name=names, position=(0.01 * np.sin(phases)).tolist())  # what moves faster is doubted
    else:
        encoding, channels = ENCODINGS[topic]
        padding = 5
        data = rng.integers(0, 256, 24 * (32 * channels + padding), np.uint8)
        result = Image(height=24, width=32, encoding=encoding, step=32 * channels + padding)
        result.data = array.array("B", data.tobytes())
    result.header.stamp = time_message(stamp)
    return result


def record(path, events) -> None:
    """A real MCAP file with the bytes as sent over ROS."""
    store = get_typestore(Stores.ROS2_KILTED)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        known = {topic: writer.add_connection(f"/{topic}", kind, typestore=store) for topic, (kind, _) in TYPES.items()}
        for arrival, topic, content in events:
            writer.write(known[topic], arrival, serialize_message(content))


@pytest.fixture(scope="module")
def node():
    """A node with the parameters of policy_node, except for wall-clock checks: messages arrive as fast as possible."""
    context = rclpy.Context()
    context.init(domain_id=int(os.environ["ROS_DOMAIN_ID"]))
    patient = [RosParameter("max_silence", value=600.0)]
    made = GuardedNode("parity", context=context, parameter_overrides=patient)
    made.parameters = Parameters(made, PARAMETERS)
    yield made
    made.destroy_node()
    context.try_shutdown()


class Live:
    """The streams of policy_node and their reader."""

    def __init__(self, node, embodiment) -> None:
        changed = threading.Condition()
        self.subscriptions = ObservationSubscriptions(node, embodiment, changed, needs=Needs(joint_states=True))
        self.reader = ObservationReader(self.subscriptions, embodiment.joint_names, (), changed)
        sources = [source.subscription for source in self.subscriptions.subscribed]
        self.callbacks = {subscription.topic: subscription.callback for subscription in sources}

    def arrive(self, topic: str, content) -> None:
        self.callbacks[f"/{topic}"](content)

    def observe(self, now: int) -> Observation | Waiting:
        return self.reader.select(now, not_before_ns=0, history_from_ns=0)


@pytest.mark.parametrize(("seed", "alignment"), list(enumerate(Alignment)))
def test_bag_and_live_observations_are_bit_equal(tmp_path, widowx, node, seed, alignment):
    node.set_parameters([RosParameter("alignment", value=alignment.value)])
    events = messages(seed, widowx, seconds=4.0)
    record(tmp_path / "bag", events)
    (episode,) = RosbagEpisodes(tmp_path / "bag", widowx, BagOptions(instruction="lift it", alignment=alignment))
    times = episode.columns["timestamp"].values[:, 0]
    live, coming, compared, first = Live(node, widowx), list(events), 0, None
    for row, time in enumerate(times):
        while coming and (first is None or coming[0][0] <= first + round(time * S)):
            arrival, topic, content = coming.pop(0)
            live.arrive(topic, deserialize_message(serialize_message(content), TYPES[topic][1]))
            if first is None and isinstance(live.observe(arrival), Observation):
                first = arrival
        observation = live.observe(first + round(time * S))
        if row in episode.defects.get("observation", {}):
            assert not isinstance(observation, Observation)
            continue
        seen = live.reader.read(observation, "lift it")
        for tag, image in seen.images.items():
            np.testing.assert_array_equal(episode.images[tag][row], image)
        np.testing.assert_array_equal(episode.state.values[row], seen.state)
        compared += 1
    live.subscriptions.destroy()
    assert compared >= 15 and set(seen.images) == {camera.tag for camera in widowx.cameras}
