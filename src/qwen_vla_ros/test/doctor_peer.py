# SPDX-License-Identifier: Apache-2.0
"""A robot for the doctor to examine: healthy by default, and every part of it can be made faulty."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, JointState
from spinning_peer import SpinningPeer
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from embodiment_descriptions import load_robot
from qwen_vla_rclpy.messages import time_message
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_ros.doctor.command import Doctor
from qwen_vla_ros.ros.environment import ros_environment
from qwen_vla_ros.simulation.child_processes import LAUNCHER

JOINT_RATE, CAMERA_RATE = 50.0, 20.0  # [Hz]
LISTEN = 1.2  # [s]; contains two heartbeats at 1.9 Hz, whenever listening starts
WIDOWX = load_robot("widowx")
ARM, GRIPPER = (command.topic for command in WIDOWX.commands)


class Part(SpinningPeer):
    """One node of a robot, in a thread and a context of its own."""

    def __init__(self, name: str, namespace: str = "", **parameters: object) -> None:
        self.namespace = namespace
        super().__init__(name, **parameters)

    def named(self, topic: str) -> str:
        return f"{self.namespace}/{topic}" if self.namespace else topic

    def describe(self, urdf: str = WIDOWX.urdf, qos: QoSProfile = LATCHED) -> None:
        self.node.create_publisher(String, self.named("robot_description"), qos).publish(String(data=urdf))

    def tell_joints(self, joints: dict[str, float], stamp=lambda now: now, topic: str = "joint_states") -> None:
        publisher = self.node.create_publisher(JointState, self.named(topic), 10)

        def publish() -> None:
            message = JointState(name=list(joints), position=list(joints.values()))
            message.header.stamp = time_message(stamp(time.time_ns()))
            publisher.publish(message)

        self.every(1 / JOINT_RATE, publish)

    def film(
        self, tag: str, stamp=lambda now: now, encoding: str = "rgb8", info=(128, 96), silent: bool = False
    ) -> None:
        """Publish noise of 128 x 96 pixels and a CameraInfo; `info` is the size stated there."""
        camera = next(c for c in WIDOWX.cameras if c.tag == tag)
        images = self.node.create_publisher(Image, self.named(camera.image_topic), qos_profile_sensor_data)
        infos = self.node.create_publisher(CameraInfo, self.named(camera.info_topic), qos_profile_sensor_data)
        noise = np.random.default_rng(0)
        channels = 1 if encoding == "mono8" else 3

        def publish() -> None:
            pixels = noise.integers(0, 256, 128 * 96 * channels, np.uint8).tobytes()
            image = Image(width=128, height=96, encoding=encoding, step=128 * channels, data=pixels)
            image.header.stamp = time_message(stamp(time.time_ns()))
            images.publish(image)
            infos.publish(CameraInfo(header=image.header, width=info[0], height=info[1], k=np.eye(3).reshape(-1)))

        if not silent:
            self.every(1 / CAMERA_RATE, publish)

    def execute(self, topic: str, kind: type = JointTrajectory, qos: QoSProfile | int = 10) -> None:
        self.node.create_subscription(kind, self.named(topic), lambda message: None, qos)

    def command(self, topic: str, kind: type = JointTrajectory, rate: float = 0.0) -> None:
        """Offer commands; publish empty ones where a rate is given."""
        publisher = self.node.create_publisher(kind, topic, 10)
        if rate:
            self.every(1 / rate, lambda: publisher.publish(kind()))


def be_healthy(robot: Part) -> None:
    """Provide everything that a WidowX must have."""
    robot.describe()
    robot.tell_joints(WIDOWX.home)
    for camera in WIDOWX.cameras:
        robot.film(camera.tag)
    robot.execute(ARM)
    robot.execute(GRIPPER)


# A computer whose clock is wrong: Python and the middleware (Fast DDS 3, 2) read the time of day from these functions.
SHIFTED_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(id, t);
  if (id == CLOCK_REALTIME) t->tv_sec += SHIFT;
  return result;
}
int gettimeofday(struct timeval *t, void *zone) {
  static int (*real)(struct timeval *, void *);
  if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
  int result = real(t, zone);
  t->tv_sec += SHIFT;
  return result;
}
"""
OTHER_COMPUTER = """
import threading
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
rclpy.init()
node = rclpy.create_node("other_computer", start_parameter_services=False)
publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
while not threading.Event().wait(0.05):  # a timer of rclpy would wait for the clock that is wrong
    publisher.publish(DiagnosticArray())
"""


def start_other_computer(folder: Path, shift: int) -> subprocess.Popen:
    """Start a node in a process whose clock is `shift` [s] ahead."""
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(SHIFTED_CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", f"-DSHIFT={shift}", "-o", library, source, "-ldl"], check=True)
    program = ["-I", "-S", LAUNCHER, str(os.getpid()), sys.executable, "-c", OTHER_COMPUTER]
    return subprocess.Popen([sys.executable, *program], env=ros_environment() | {"LD_PRELOAD": str(library)})


class Report:
    """The doctor's findings."""

    def __init__(self, code: int, findings: list[dict[str, str]]) -> None:
        self.code = code
        self.findings = [SimpleNamespace(**finding) for finding in findings]

    def at(self, level: str) -> list[SimpleNamespace]:
        """Findings of a level, without those about the machine on which the test runs."""
        return [f for f in self.findings if f.level == level and f.area != "This machine"]

    def find(self, area: str, subject: str) -> SimpleNamespace:
        found = [f for f in self.findings if (f.area, f.subject) == (area, subject)]
        assert found, f"nothing about {area}: {subject}; there is: {[(f.area, f.subject) for f in self.findings]}"
        return max(found, key=lambda f: ("ok", "warn", "fail").index(f.level))


def examine(folder: Path, **options: object) -> Report:
    """Run the command like a user."""
    file = folder / "doctor.json"
    code = Doctor(**{"robot": "widowx", "seconds": LISTEN, "json": file, **options}).run()
    return Report(code, json.loads(file.read_text())["findings"])
