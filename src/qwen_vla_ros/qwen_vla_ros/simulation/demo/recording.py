# SPDX-License-Identifier: Apache-2.0
"""Stores the messages for a video of an episode; nothing is decoded or drawn while the robot works."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState

from embodiment_descriptions import Embodiment
from qwen_vla_control.observation.image_decoding import to_rgb
from qwen_vla_control.observation.robot_pose import RobotPose, RobotReader
from qwen_vla_control.observation.streams import NotObserved
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_ros.drawing.chunk_geometry import BASE
from qwen_vla_ros.simulation.stack import VISUALIZER, SimulatedStack
from qwen_vla_ros.simulation.task_client import TaskClient

FIXED_CAMERA = "ego"  # its pose is published by the simulator where it is not in the robot's description
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]


@dataclass(frozen=True)
class Moment:
    """One exposure of the robot's first camera and the state at that time.

    Attributes:
        seconds: simulated time since the reset.
        images: by camera tag, the first camera first.
        paths: predicted path of each arm, by its name, or of the base.
        pose: state of the robot; None when joint states or odometry do not provide it.
        activity: state of policy_node from its feedback.
        refusal: why the gate refused the latest chunk; empty if it accepted it.
    """

    seconds: float
    images: dict[str, Image | CompressedImage]
    paths: Mapping[str, PathMessage]
    pose: RobotPose | None
    activity: str
    refusal: str = ""

    @property
    def stamp_ns(self) -> int:
        """Time of the exposure [ns]."""
        return nanoseconds(next(iter(self.images.values())).header.stamp)


@dataclass
class Recording:
    """An episode as messages.

    Attributes:
        robot: its embodiment.
        moments: in order of time.
        infos: calibration of each camera, by its tag, for the whole episode.
        fixed_pose: of the camera mounted beside the robot, for the whole episode; None without one.
        suite: that has the scene; empty: it is not known.
        positions: of everything in the simulator, by the time of an exposure [ns].
    """

    robot: Embodiment
    moments: list[Moment] = field(default_factory=list)
    infos: dict[str, CameraInfo] = field(default_factory=dict)
    fixed_pose: PoseStamped | None = None
    suite: str = ""
    positions: dict[int, np.ndarray] = field(default_factory=dict)


class Recorder:
    """Subscribes to the robot's cameras and the predicted paths; stores messages from `begin` on."""

    def __init__(self, stack: SimulatedStack, tasks: TaskClient, robot: Embodiment) -> None:
        self._client, self._tasks, self._robot, self._suite = stack.client, tasks, robot, stack.world.suite
        self._recording: Recording | None = None
        self._images: dict[str, Image] = {}
        self._infos: dict[str, CameraInfo] = {}
        self._paths: dict[str, PathMessage] = {}
        self._fixed_pose: PoseStamped | None = None
        self._reader = RobotReader(robot)
        hear = self._client.hear
        for camera in robot.cameras:
            hear(Image, camera.topic, partial(self._on_image, camera.tag), qos_profile_sensor_data)
            hear(CameraInfo, camera.info_topic, partial(self._infos.__setitem__, camera.tag), qos_profile_sensor_data)
        for index, source in enumerate(self._reader.joints.sources):
            hear(JointState, source.topic, partial(self._on_joints, index), qos_profile_sensor_data)
        if self._reader.odometry is not None:
            hear(Odometry, self._reader.odometry.stream.topic, self._on_odometry, qos_profile_sensor_data)
        for name, topic in path_topics(robot).items():
            hear(PathMessage, topic, partial(self._on_path, name), 10)
        hear(JointState, f"{stack.simulator}/positions", self._on_positions, 10)
        hear(PoseStamped, f"{stack.simulator}/{FIXED_CAMERA}_camera_pose", self._on_pose, LATCHED)

    def begin(self) -> None:
        """Clear the prediction of the last episode and store everything from now on; call it after the reset."""
        with self._client.changed:
            self._recording, self._paths = Recording(self._robot, suite=self._suite), {}

    def end(self) -> Recording:
        """Stop, and return what was stored; its images are compressed now that there is time."""
        with self._client.changed:
            recording, self._recording = self._recording, None
        if recording is None:
            raise RuntimeError("end() without begin(): nothing was recorded")
        for moment in recording.moments:
            moment.images.update({tag: compressed(message) for tag, message in moment.images.items()})
        recording.infos, recording.fixed_pose = dict(self._infos), self._fixed_pose
        return recording

    def _on_joints(self, source: int, message: JointState) -> None:
        self._reader.joints.take(source, message, time.monotonic_ns())

    def _on_odometry(self, message: Odometry) -> None:
        if self._reader.odometry is not None:
            self._reader.odometry.take(message, time.monotonic_ns())

    def _on_image(self, tag: str, message: Image) -> None:
        self._images[tag] = message
        recording, task = self._recording, self._tasks.latest
        if recording is None or task is None or len(self._images) < len(self._robot.cameras):
            return
        if tag == self._robot.cameras[0].tag:
            recording.moments.append(self._moment(message, task))
        elif recording.moments:
            latest = recording.moments[-1].images
            if next(iter(latest.values())).header.stamp == message.header.stamp:  # another camera of the same exposure
                latest[tag] = message

    def _moment(self, first: Image, task) -> Moment:
        stamp = nanoseconds(first.header.stamp)
        # The judge publishes less often than the camera: extrapolate from its last message.
        seconds = task.sim_time + (stamp - nanoseconds(task.header.stamp)) / 1e9
        images: dict[str, Image | CompressedImage] = {
            camera.tag: self._images[camera.tag] for camera in self._robot.cameras
        }
        try:
            pose = self._reader.at(stamp)
        except NotObserved:
            pose = None
        return Moment(seconds, images, dict(self._paths), pose, str(self._tasks.activity), self._tasks.refusal)

    def _on_path(self, name: str, message: PathMessage) -> None:
        self._paths[name] = message

    def _on_positions(self, message: JointState) -> None:
        if self._recording is not None:
            self._recording.positions[nanoseconds(message.header.stamp)] = np.array(message.position)

    def _on_pose(self, message: PoseStamped) -> None:
        self._fixed_pose = message


def compressed(message: Image | CompressedImage) -> CompressedImage:
    """The same image in a tenth of the memory: minutes of four cameras would fill that of a small machine."""
    _, data = cv2.imencode(".jpg", to_rgb(message)[..., ::-1], QUALITY)
    return CompressedImage(header=message.header, format="jpeg", data=array("B", data.tobytes()))


def path_topics(robot: Embodiment) -> dict[str, str]:
    """Topics of the predicted path of each arm, or of the base."""
    if robot.control_mode.moves_base:
        return {BASE: f"{VISUALIZER}/predicted_path"}
    first, *others = (arm.name for arm in robot.arms)
    return {first: f"{VISUALIZER}/predicted_path"} | {name: f"{VISUALIZER}/predicted_path_{name}" for name in others}
