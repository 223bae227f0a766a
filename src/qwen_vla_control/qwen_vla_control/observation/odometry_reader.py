# SPDX-License-Identifier: Apache-2.0
"""Where the base is: the one reader of nav_msgs/Odometry, live and from a bag. Free of ROS and torch.

A pose with a number that is not finite or too large, or with an invalid quaternion, is ignored. At a given time, the
base has the pose of the nearest message, if that is near enough. The clock rule is that of streams.Stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.poses import pose_matrix
from qwen_vla_control.observation.streams import MAX_LEAD, NotObserved, Stream, too_far_apart
from qwen_vla_control.reasons import Reason
from qwen_vla_control.stamps import stamp_of

KEPT = 4096  # messages
FARTHEST = 1e4  # [m] a position beyond is a fault, like one that is not finite
LEAST_NORM, LARGEST_NORM = 0.9, 1.1  # of a quaternion, squared; others were never filled in, or are corrupt


@dataclass(frozen=True)
class BasePose:
    """Where the base is, or was.

    Attributes:
        stamp_ns: when [ns, ROS time].
        frame: the odometry frame.
        matrix: (4, 4) pose of the base in `frame` [m].
    """

    stamp_ns: int
    frame: str
    matrix: np.ndarray

    @property
    def vector(self) -> np.ndarray:
        """The pose in the plane of `frame` (3,): x [m], y [m], heading [rad] within -pi .. pi."""
        heading = math.atan2(self.matrix[1, 0], self.matrix[0, 0])
        return np.array([*self.matrix[:2, 3], heading])


class _PoseStream(Stream):
    """A stream that knows why nothing new was stored."""

    defect = ""

    @property
    def advice(self) -> str:
        return self.defect or self.remedy


class OdometryReader:
    """Receives odometry and returns where the base is, and was.

    Attributes:
        stream: of the valid messages.
        missing, lost: reasons for an unknown pose, and for one that stopped during a motion.
    """

    missing, lost = Reason.NO_ODOMETRY, Reason.ODOMETRY_LOST

    def __init__(self, embodiment: Embodiment, resolve: Callable[[str], str] = str) -> None:
        """Create an empty reader; ValueError for a robot without odometry.

        Args:
            embodiment: the robot.
            resolve: the name of a topic in messages to the user.
        """
        odometry = embodiment.odometry
        if odometry is None:
            raise ValueError(f"embodiment '{embodiment.name}' has no `odometry` in its YAML")
        self.stream = _PoseStream("odometry", resolve(odometry.topic), odometry.max_age_s, KEPT)

    def push(self, stamp_ns: int, frame: str, pose: Any, steady_ns: int) -> bool:
        """Store a geometry_msgs/Pose in a frame; False when it is invalid, or no newer than the newest."""
        p, q = pose.position, pose.orientation
        position, quaternion = np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w])
        if not (np.abs(position) <= FARTHEST).all() or not LEAST_NORM < quaternion @ quaternion < LARGEST_NORM:
            pose = f"({p.x:g}, {p.y:g}, {p.z:g}) with the quaternion ({q.x:g}, {q.y:g}, {q.z:g}, {q.w:g})"
            self.stream.defect = f"its pose {pose} is not a valid pose"
            return False
        self.stream.defect = ""
        return self.stream.push(stamp_ns, BasePose(stamp_ns, frame, pose_matrix(position, quaternion)), steady_ns)

    def take(self, message: Any, steady_ns: int) -> bool:
        """Store a nav_msgs/Odometry, from rclpy or a bag; see `push`."""
        return self.push(stamp_of(message), message.header.frame_id, message.pose.pose, steady_ns)

    @property
    def frame(self) -> str:
        """Frame of the newest pose; "" before the first."""
        pose = self.latest()
        return pose.frame if pose else ""

    def latest(self) -> BasePose | None:
        """The newest pose, None before the first."""
        return self.stream.latest.message if self.stream.latest else None

    def near(self, stamp_ns: int, max_gap: float) -> BasePose | None:
        """The pose nearest to a ROS time, None where that is farther away than `max_gap` [s]."""
        nearest = self.stream.nearest(stamp_ns)
        return nearest.message if nearest and self.stream.gap(stamp_ns) <= max_gap else None

    def at(self, stamp_ns: int, max_gap: float) -> BasePose:
        """The pose nearest to a ROS time.

        Raises:
            NotObserved: there is none within `max_gap` [s]; NO_ODOMETRY.
        """
        pose, stream = self.near(stamp_ns, max_gap), self.stream
        if pose is None:
            text = too_far_apart(stream.name, stream.noun, stream.topic, stream.gap(stamp_ns), max_gap)
            raise NotObserved(self.missing, stream.name, text)
        return pose

    def age(self, now_ns: int) -> float:
        """Age of the newest pose [s, ROS time]; infinite without one."""
        return self.stream.age(now_ns)

    def fault(self, now_ns: int, steady_ns: int) -> str:
        """Why the pose is unknown at a ROS time and a steady time; empty when it is known."""
        return self.stream.fault(now_ns, steady_ns, self.stream.max_age, self.stream.max_age, MAX_LEAD)
