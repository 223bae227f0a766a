# SPDX-License-Identifier: Apache-2.0
"""From messages to a scene: robot, images, chunks and reports, in one world frame. Free of rclpy and rerun.

Messages may be from rclpy or from a bag. The world is the odometry frame of a mobile robot, otherwise the root link.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions import Camera, Embodiment
from qwen_vla_control.observation.image_decoding import DecodingError, to_rgb
from qwen_vla_control.observation.robot_pose import RobotPose, RobotReader
from qwen_vla_control.observation.streams import NotObserved
from qwen_vla_control.stamps import stamp_of
from qwen_vla_rclpy.printable import printable
from qwen_vla_ros.drawing.chunk_geometry import BASE, CannotDraw, ChunkGeometry, PredictedPath, offending_steps
from qwen_vla_ros.drawing.chunk_markers import ACCEPTED, PREDICTED, REFUSED, Layer
from qwen_vla_ros.drawing.robot_shapes import RobotShapes
from qwen_vla_ros.ros.chunk_messages import LONGEST_INSTRUCTION, chunk_from_message

CHUNK_TOPIC, ACCEPTED_TOPIC = "policy_node/action_chunk", "executor_node/accepted_chunk"
REPORT_TOPIC = "executor_node/chunk_report"
CHUNK, REPORT = "qwen_vla_msgs/msg/ActionChunk", "qwen_vla_msgs/msg/ChunkReport"
IMAGE_TYPES = {"raw": "sensor_msgs/msg/Image", "compressed": "sensor_msgs/msg/CompressedImage"}
VERDICTS = {1: "ACCEPTED", 2: "REFUSED", 3: "COMPLETED", 4: "HELD"}
CHUNKS_KEPT = 64
CLOCK_RESET_NS = 1_000_000_000
PLANE = ("x", "y", "theta")  # the "joints" of a base


@dataclass(frozen=True)
class Feed:
    """A topic that the scene subscribes to. `take` expects a message of the ROS type `type`."""

    topic: str
    type: str
    take: Callable[[Any], None]
    reliable: bool = False


@dataclass(frozen=True)
class ShownPath:
    """A predicted path in the world: (steps + 1, 3) points [m], and their colors (steps + 1, 4), 0..1."""

    name: str
    points: np.ndarray
    colors: np.ndarray


@dataclass(frozen=True)
class ShownChunk:
    """A chunk as drawn.

    Attributes:
        layer: predicted, accepted or refused.
        paths: empty when it cannot be drawn; `note` says why.
        times: (n,) [ns, ROS time] of the curves.
        curves: (n,) positions by group (arm or BASE) and joint [rad | m].
        end: (4, 4) poses of all links in the world at the end of the chunk, as far as it can be followed.
    """

    layer: Layer
    chunk_id: int
    instruction: str
    inference_ms: float
    steps: int
    horizon: int
    paths: tuple[ShownPath, ...]
    times: np.ndarray
    curves: Mapping[tuple[str, str], np.ndarray]
    end: Mapping[str, np.ndarray]
    note: str = ""


@dataclass(frozen=True)
class ShownReport:
    """A ChunkReport as text and numbers; numbers may be NaN."""

    verdict: str
    chunk_id: int
    message: str
    decision_ms: float
    observation_age_s: float


class Canvas(Protocol):
    """Something on which a scene can be drawn; times are ROS time [ns]."""

    def robot(self, time: int, links: Mapping[str, np.ndarray], joints: Mapping[tuple[str, str], float]) -> None: ...

    def image(self, time: int, tag: str, rgb: np.ndarray) -> None: ...

    def chunk(self, time: int, chunk: ShownChunk) -> None: ...

    def remove(self, time: int, layer: Layer) -> None: ...

    def report(self, time: int, report: ShownReport) -> None: ...


class Scene:
    """Follows a robot and draws it.

    Attributes:
        feeds: the topics to subscribe to, relative to the robot's namespace.
        shapes: appearance of the robot.
        chunks: number of predicted chunks received.
    """

    def __init__(
        self, embodiment: Embodiment, canvas: Canvas, image_rate: float = 5.0, robot_rate: float = 20.0
    ) -> None:
        """Prepare the kinematics; rates [Hz, ROS time] limit how much is drawn."""
        self.embodiment, self.shapes, self.chunks = embodiment, RobotShapes(embodiment.urdf), 0
        self._canvas = canvas
        self._geometry, self._reader = ChunkGeometry(embodiment), RobotReader(embodiment)
        self._image_period, self._robot_period = 1e9 / image_rate, 1e9 / robot_rate
        self._now = 0
        self._due: dict[str, float] = {}
        self._heard: OrderedDict[int, Any] = OrderedDict()
        self._refused: dict[int, Any] = {}
        self._accepted_id = 0
        self.feeds = tuple(self._feeds())

    def _feeds(self):
        for index, source in enumerate(self._reader.joints.sources):
            yield Feed(source.topic, "sensor_msgs/msg/JointState", partial(self._on_joints, index))
        if self._reader.odometry is not None:
            yield Feed(self._reader.odometry.stream.topic, "nav_msgs/msg/Odometry", self._on_odometry)
        for camera in self.embodiment.cameras:
            yield Feed(camera.image_topic, IMAGE_TYPES[camera.transport], partial(self._on_image, camera))
        yield Feed(CHUNK_TOPIC, CHUNK, self._on_predicted, reliable=True)
        yield Feed(ACCEPTED_TOPIC, CHUNK, self._on_accepted, reliable=True)
        yield Feed(REPORT_TOPIC, REPORT, self._on_report, reliable=True)

    # Robot and cameras ----------------------------------------------------------------------------------------------

    def _on_joints(self, source: int, message: Any) -> None:
        self._advance(message)
        self._reader.joints.take(source, message, 0)
        self._draw_robot()

    def _on_odometry(self, message: Any) -> None:
        self._advance(message)
        if self._reader.odometry is not None:
            self._reader.odometry.take(message, 0)
        self._draw_robot()

    def _draw_robot(self) -> None:
        pose = self._reader.latest()
        if pose is not None and self._is_due("robot", self._robot_period):
            self._canvas.robot(self._now, self.links(pose), self._named(pose))

    def _on_image(self, camera: Camera, message: Any) -> None:
        self._advance(message)
        if self._is_due(camera.tag, self._image_period):
            try:
                self._canvas.image(self._now, camera.tag, to_rgb(message))
            except DecodingError as error:
                why = printable(f"camera {camera.tag}: {error}")
                self._canvas.report(self._now, ShownReport("WARNING", 0, why, math.nan, math.nan))

    # Chunks ---------------------------------------------------------------------------------------------------------

    def _on_predicted(self, message: Any) -> None:
        self.chunks += 1
        self._heard[message.chunk_id] = message
        while len(self._heard) > CHUNKS_KEPT:
            self._heard.popitem(last=False)
        report = self._refused.pop(message.chunk_id, None)
        if report is not None:
            self._show(message, REFUSED, message.horizon, printable(report.message))
        else:
            self._show(message, PREDICTED, message.horizon)

    def _on_accepted(self, message: Any) -> None:
        self._accepted_id = message.chunk_id
        self._canvas.remove(self._now, REFUSED)
        self._show(message, ACCEPTED, message.execution_horizon)

    def _on_report(self, message: Any) -> None:
        shown = ShownReport(
            VERDICTS.get(message.verdict, str(message.verdict)),
            message.chunk_id,
            printable(message.message),
            message.decision_ms,
            message.observation_age_s,
        )
        self._canvas.report(self._now, shown)
        if shown.verdict == "REFUSED":
            self._canvas.remove(self._now, PREDICTED)
            if message.chunk_id in self._heard:
                chunk = self._heard[message.chunk_id]
                self._show(chunk, REFUSED, chunk.horizon, shown.message)
            else:
                self._refused = {message.chunk_id: message}
        elif shown.verdict in ("HELD", "COMPLETED") and message.chunk_id == self._accepted_id:
            self._canvas.remove(self._now, ACCEPTED)

    def _show(self, message: Any, layer: Layer, steps: int, why: str = "") -> None:
        instruction = printable(message.instruction, LONGEST_INSTRUCTION)
        facts = (layer, message.chunk_id, instruction, float(message.inference_ms), int(steps), message.horizon)
        try:
            chunk = chunk_from_message(message)
            start = self._reader.at(chunk.stamp_ns)
            paths = self._geometry.paths(chunk, start, steps)
            poses = self._geometry.poses(chunk, start, steps)
        except (CannotDraw, NotObserved) as error:
            note = why or str(error)
            self._canvas.chunk(self._now, ShownChunk(*facts, (), np.empty(0, np.int64), {}, {}, note))
            return
        bad = offending_steps(why, chunk.horizon)
        shown = [self._shown(path, start, layer.colors(len(path.poses), bad)) for path in paths]
        times = chunk.stamp_ns + np.round(np.arange(len(poses)) * chunk.period * 1e9).astype(np.int64)
        named = [self._named(pose) for pose in poses]
        curves = {key: np.array([row[key] for row in named]) for key in named[0]}
        self._canvas.chunk(self._now, ShownChunk(*facts, tuple(shown), times, curves, self.links(poses[-1]), why))

    def _shown(self, path: PredictedPath, start: RobotPose, colors: np.ndarray) -> ShownPath:
        in_world = np.eye(4) if path.name == BASE and start.base is not None else self.links(start)[path.frame]
        return ShownPath(path.name, (in_world @ path.poses)[:, :3, 3], colors)

    # World ----------------------------------------------------------------------------------------------------------

    def links(self, pose: RobotPose) -> dict[str, np.ndarray]:
        """(4, 4) poses of all links in the world."""
        links = self.shapes.link_poses(pose.joints)
        if pose.base is None or self.embodiment.base is None:
            return links
        root = pose.base @ np.linalg.inv(links[self.embodiment.base.link])
        return {link: root @ placement for link, placement in links.items()}

    def _named(self, pose: RobotPose) -> dict[tuple[str, str], float]:
        """Positions of the joints that a policy moves, by group and name; of a base, its pose in the plane."""
        found = {}
        for arm in self.embodiment.arms:
            for name in (*arm.joints, *([arm.gripper.joint] if arm.gripper else ()), *arm.hand):
                found[arm.name, name] = pose.joints.get(name, math.nan)
        for name in self.embodiment.waist:
            found["waist", name] = pose.joints.get(name, math.nan)
        if pose.base is not None:
            theta = Rotation.from_matrix(pose.base[:3, :3]).as_euler("xyz")[2]
            found |= {(BASE, name): float(v) for name, v in zip(PLANE, (*pose.base[:2, 3], theta), strict=True)}
        return found

    def _advance(self, message: Any) -> None:
        stamp = stamp_of(message)
        if stamp < self._now - CLOCK_RESET_NS:  # a simulator or a bag restarts
            self._due.clear()
            self._now = stamp
            for layer in (PREDICTED, ACCEPTED, REFUSED):
                self._canvas.remove(stamp, layer)
        self._now = max(self._now, stamp)

    def _is_due(self, what: str, period: float) -> bool:
        if self._now < self._due.get(what, -math.inf):
            return False
        self._due[what] = self._now + period
        return True
