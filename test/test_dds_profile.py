# SPDX-License-Identifier: Apache-2.0
"""With the Fast DDS profile, camera images cross from process to process through shared memory, all of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from qwen_vla_ros.ros.distributions import PROFILE_VARIABLES
from qwen_vla_ros.ros.environment import (
    LARGE_IMAGES,
    PROFILES,
    THIS_MACHINE,
    WITHOUT_SHARED_MEMORY,
    own_environment,
    ros_environment,
)

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
# Sends one image after the other, the next when one is back; prints which have come back unchanged, and the sizes of
# the memory that it shares. Discovery is one-sided: the first may leave before the way back exists.
CAMERA = """
import json, os, sys, rclpy
from array import array
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("camera")
back = []
publisher = node.create_publisher(Image, "there", qos_profile_sensor_data)
node.create_subscription(Image, "back", back.append, qos_profile_sensor_data)
while not back:
    publisher.publish(Image())
    rclpy.spin_once(node, timeout_sec=0.05)
pixels = array("B", os.urandom(640 * 480 * 3))  # the one type that rclpy does not check byte by byte
same = []
for count in range(int(sys.argv[1])):
    image = Image(width=640, height=480, step=1920, encoding="rgb8", data=pixels)
    image.header.frame_id = str(count)
    publisher.publish(image)
    while back[-1].header.frame_id != str(count):
        rclpy.spin_once(node, timeout_sec=0.05)
    same.append(back[-1].data == pixels)
maps = [line.split() for line in open("/proc/self/maps") if "/dev/shm/fast" in line]
sizes = [int(end, 16) - int(begin, 16) for begin, end in (line[0].split("-") for line in maps)]
print(json.dumps({"same": same, "sizes": sizes}))
"""


def test_all_profiles_bound_the_same_messages() -> None:
    """Of these topics a reader has room for what a message may be, and the middleware drops what is larger."""
    folder = Path(__file__).parents[1] / PROFILES
    roots = [ElementTree.parse(folder / name).getroot() for name in (LARGE_IMAGES, WITHOUT_SHARED_MEMORY, THIS_MACHINE)]
    readers, *others = [
        {
            reader.get("profile_name"): reader.findtext("{*}historyMemoryPolicy")
            for reader in root.iterfind(".//{*}data_reader")
        }
        for root in roots
    ]
    assert others == [readers, readers]
    assert readers.pop("any_size") == "PREALLOCATED_WITH_REALLOC"
    chunks, report = ("/policy_node/action_chunk", "/executor_node/accepted_chunk"), "/executor_node/chunk_report"
    assert readers == dict.fromkeys((*chunks, report), "PREALLOCATED")


def end(process: subprocess.Popen) -> None:
    """End a process that may hang while its middleware shuts down."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


def round_trips(environment: dict[str, str]) -> dict[str, list]:
    """What CAMERA prints."""
    with subprocess.Popen([sys.executable, "-c", ECHO], env=environment) as echo:
        try:
            command = [sys.executable, "-c", CAMERA, str(IMAGES)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        finally:
            end(echo)
    return json.loads(done.stdout)


def test_images_make_the_round_trip_through_shared_memory() -> None:
    if shutil.disk_usage(SHARED_MEMORY).free < 4 * SEGMENT:
        pytest.skip(f"{SHARED_MEMORY} is too small for the profile; in a container use --shm-size=512m")
    user = {name: value for name, value in os.environ.items() if name not in PROFILE_VARIABLES}
    done = round_trips(ros_environment(base=user))
    assert done["same"] == [True] * IMAGES
    assert sum(size >= SEGMENT for size in done["sizes"]) >= 1, f"segments: {done['sizes']}"


def test_in_a_graph_of_our_own_they_do_without() -> None:
    done = round_trips(own_environment() | {"ROS_DOMAIN_ID": os.environ["ROS_DOMAIN_ID"]})
    assert done == {"same": [True] * IMAGES, "sizes": []}
