# SPDX-License-Identifier: Apache-2.0
"""Short runs of the suite's robots as real bags: robot, cameras, three chunks, of which the last is refused."""

from __future__ import annotations

import array
import os
from pathlib import Path

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_rclpy.messages import time_message
from qwen_vla_ros.drawing.view.bag import message_types
from qwen_vla_ros.ros.environment import ros_environment

S = 10**9
START = 1_700_000_000 * S
SECONDS, RATE, IMAGE_RATE = 3.0, 20.0, 5.0
ACCEPTED, REFUSED = (1, 2), 3  # numbers of the chunks
REASON = "joint 'x' at step 4: motion 0.9 over the limit 0.5"


def events(embodiment: Embodiment) -> list[tuple[int, str, object]]:
    """(time [ns], topic, message) in order."""
    found: list[tuple[int, str, object]] = [(START, "robot_description", String(data=embodiment.urdf))]
    for k in range(int(SECONDS * RATE)):
        time = START + round(k * S / RATE)
        found.append((time, embodiment.joint_states[0].topic, _joints(embodiment, time, 0.1 * k / RATE)))
        if embodiment.odometry:
            found.append((time, embodiment.odometry.topic, _odometry(time, 0.2 * k / RATE)))
    for k in range(int(SECONDS * IMAGE_RATE)):
        time = START + round(k * S / IMAGE_RATE)
        found += [(time, camera.topic, _image(time, 10 * k)) for camera in embodiment.cameras]
    for number in (*ACCEPTED, REFUSED):
        time = START + round((number - 0.5) * S)
        chunk = _chunk(embodiment, number, time)
        found.append((time + S // 10, "policy_node/action_chunk", chunk))
        if number in ACCEPTED:
            found.append((time + S // 8, "executor_node/accepted_chunk", chunk))
        found.append((time + S // 7, "executor_node/chunk_report", _report(chunk, time + S // 7)))
    return sorted(found, key=lambda event: event[0])


def record(
    folder: Path, robot: str, namespace: str = "", without: tuple[str, ...] = (), storage=StoragePlugin.MCAP
) -> Path:
    """Write a bag with the bytes as sent over ROS; topics in `without` are omitted."""
    os.environ.update(ros_environment())
    store, path, known = message_types(), folder / f"{robot}_bag", {}
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for time, topic, message in events(load_robot(robot)):
            if topic in without:
                continue
            if topic not in known:
                name = "/".join(("", *filter(None, (namespace, topic))))
                known[topic] = writer.add_connection(name, _type(message), typestore=store)
            writer.write(known[topic], time, serialize_message(message))
    return path


def _type(message) -> str:
    module, name = type(message).__module__, type(message).__name__
    return f"{module.split('.')[0]}/msg/{name}"


def _joints(embodiment: Embodiment, time: int, moved: float) -> JointState:
    arm_joints = {name for arm in embodiment.arms for name in arm.joints}
    home = {name: q + (moved if name in arm_joints else 0.0) for name, q in embodiment.home.items()}
    message = JointState(name=list(home), position=list(home.values()))
    message.header.stamp = time_message(time)
    return message


def _odometry(time: int, x: float) -> Odometry:
    message = Odometry(child_frame_id="base_footprint")
    message.header.stamp, message.header.frame_id = time_message(time), "odom"
    message.pose.pose.position.x, message.pose.pose.orientation.w = x, 1.0
    return message


def _image(time: int, brightness: int) -> Image:
    pixels = np.full((24, 32, 3), brightness, np.uint8)
    message = Image(height=24, width=32, encoding="rgb8", step=96, data=array.array("B", pixels.tobytes()))
    message.header.stamp = time_message(time)
    return message


def _chunk(embodiment: Embodiment, number: int, time: int) -> ActionChunk:
    horizon = embodiment.chunk_size
    ramp = np.arange(1, horizon + 1)[:, None] / horizon
    if embodiment.control_mode == "eef_delta":
        rows = ramp * [0.05, 0.02, 0, 0, 0, 0, 1]
    elif embodiment.control_mode == "joint_position":
        home = [embodiment.home.get(name, 0.5) for name in embodiment.channel_names]  # grippers half open
        rows = home + ramp * 0.2
    else:
        rows = ramp * [1.0, 0.3, 0.6]
    message = ActionChunk(
        chunk_id=number,
        embodiment=embodiment.name,
        control_mode=embodiment.control_mode,
        channel_names=list(embodiment.channel_names),
        instruction="pick up the red cube",
        horizon=horizon,
        execution_horizon=horizon // 2,
        period=embodiment.period,
        data=array.array("f", np.asarray(rows, np.float32).tobytes()),
        inference_ms=80.0 + number,
    )
    message.header.stamp, message.header.frame_id = time_message(time), embodiment.base_frame
    return message


def _report(chunk: ActionChunk, time: int) -> ChunkReport:
    refused = chunk.chunk_id == REFUSED
    report = ChunkReport(chunk_id=chunk.chunk_id, verdict=ChunkReport.REFUSED if refused else ChunkReport.ACCEPTED)
    report.header.stamp = time_message(time)
    report.message, report.decision_ms, report.observation_age_s = REASON if refused else "", 3.0, 0.14
    return report
