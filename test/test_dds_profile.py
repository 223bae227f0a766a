# SPDX-License-Identifier: Apache-2.0
"""With the Fast DDS profile, camera images cross from process to process through shared memory, all of them."""

import os
import shutil
import subprocess
import sys
import time
from array import array
from pathlib import Path
from xml.etree import ElementTree

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from qwen_vla_ros.ros.environment import ros_environment

SHARED_MEMORY = Path("/dev/shm")
SEGMENT = 32 * 2**20  # [B], as in the profile
IMAGES = 30

# Answers each image by sending it back: no clock is needed to pace the two.
ECHO = """
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("echo")
publisher = node.create_publisher(Image, "back", qos_profile_sensor_data)
node.create_subscription(Image, "there", publisher.publish, qos_profile_sensor_data)
rclpy.spin(node)
"""


def wait_until(condition, executor: SingleThreadedExecutor, what: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        executor.spin_once(timeout_sec=0.05)
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"


def image(label: str, pixels: array) -> Image:
    message = Image(width=640, height=480, step=1920, encoding="rgb8", data=pixels)
    message.header.frame_id = label
    return message


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    if shutil.disk_usage(SHARED_MEMORY).free < 4 * SEGMENT:
        pytest.skip(f"{SHARED_MEMORY} is too small for the profile; in a container use --shm-size=512m")
    environment = ros_environment()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


def test_processes_with_and_without_images_bound_the_same_messages() -> None:
    """Of these topics a reader has room for what a message may be, and the middleware drops what is larger."""
    files = ("fastdds_large_images.xml", "fastdds_without_images.xml")
    roots = [ElementTree.parse(Path(__file__).parents[1] / "config" / "dds" / name).getroot() for name in files]
    readers = [
        {
            reader.get("profile_name"): reader.findtext("{*}historyMemoryPolicy")
            for reader in root.iterfind(".//{*}data_reader")
        }
        for root in roots
    ]
    assert readers[0] == readers[1]
    assert readers[0].pop("any_size") == "PREALLOCATED_WITH_REALLOC"
    chunks, report = ("/policy_node/action_chunk", "/executor_node/accepted_chunk"), "/executor_node/chunk_report"
    assert readers[0] == dict.fromkeys((*chunks, report), "PREALLOCATED")


def test_images_make_the_round_trip_through_shared_memory(profile: dict[str, str]) -> None:
    before = set(SHARED_MEMORY.glob("fast*"))
    context = rclpy.Context()
    rclpy.init(context=context)
    echo = subprocess.Popen([sys.executable, "-c", ECHO], env=profile)
    try:
        node = rclpy.create_node("camera", context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        back: list[Image] = []
        publisher = node.create_publisher(Image, "there", qos_profile_sensor_data)
        node.create_subscription(Image, "back", back.append, qos_profile_sensor_data)

        def answered() -> bool:  # discovery is one-sided: the first image may leave before echo's way back exists
            publisher.publish(image("hello", array("B")))
            return bool(back)

        wait_until(answered, executor, "echo answers")
        segments = [path.stat().st_size for path in set(SHARED_MEMORY.glob("fast*")) - before if path.exists()]
        assert sum(size >= SEGMENT for size in segments) >= 2, f"segments: {segments}"

        def labels() -> list[str]:
            return [message.header.frame_id for message in back if message.header.frame_id != "hello"]

        pixels = array("B", os.urandom(640 * 480 * 3))  # the one type that rclpy does not check byte by byte
        for count in range(IMAGES):
            publisher.publish(image(str(count), pixels))
            wait_until(lambda count=count: labels()[-1:] == [str(count)], executor, f"image {count} is back")
        assert labels() == [str(count) for count in range(IMAGES)]
        assert back[-1].data == pixels
    finally:
        echo.terminate()
        echo.wait(timeout=10)
        rclpy.shutdown(context=context)
