"""Where the robot was at any recent time, from its streams of joint states and odometry. Free of rclpy and torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions import Embodiment
from embodiment_descriptions.urdf import parse_urdf
from qwen_vla.observation_buffer import Stream, stamp_of
from qwen_vla_ros.chunk_geometry import CannotDraw, RobotPose

KEPT = 1024  # messages per stream: five seconds and more at 200 Hz
MAX_GAP = 0.5  # [s]


class RobotHistory:
    """Messages may be those of rclpy or of a bag; what is asked for is the one nearest in time of every stream.

    Attributes:
        joint_topics: topics of the joint states, in the order of `push_joints`.
        odometry_topic: topic of the odometry, or "".
    """

    def __init__(self, embodiment: Embodiment) -> None:
        """Make room for the streams that the robot's YAML names."""
        self._sources, self._known = embodiment.joint_states, frozenset(parse_urdf(embodiment.urdf).joints)
        self._needs_joints = bool(embodiment.arms)
        self.joint_topics = tuple(source.topic for source in self._sources)
        self.odometry_topic = embodiment.odometry.topic if embodiment.odometry else ""
        self._joints = [Stream("joint states", topic, math.inf, KEPT) for topic in self.joint_topics]
        self._odometry = Stream("odometry", self.odometry_topic, math.inf, KEPT)

    def push_joints(self, source: int, message: Any, steady_ns: int = 0) -> None:
        """Store a sensor_msgs/JointState of one source, its joints that are the robot's, where they are finite."""
        prefix = self._sources[source].prefix
        named = ((prefix + name, value) for name, value in zip(message.name, message.position, strict=False))
        joints = {name: float(value) for name, value in named if name in self._known and math.isfinite(value)}
        self._joints[source].push(stamp_of(message), joints, steady_ns)

    def push_odometry(self, message: Any, steady_ns: int = 0) -> None:
        """Store a nav_msgs/Odometry."""
        p, q = message.pose.pose.position, message.pose.pose.orientation
        pose = np.eye(4)
        pose[:3, 3] = p.x, p.y, p.z
        if not np.isfinite(pose).all() or not 0.5 < q.x**2 + q.y**2 + q.z**2 + q.w**2 < 2.0:
            return
        pose[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
        self._odometry.push(stamp_of(message), (pose, message.header.frame_id), steady_ns)

    def latest(self) -> RobotPose | None:
        """Where the robot is by the newest messages; None before the first."""
        if not any(self._joints) and not self._odometry:
            return None
        joints: dict[str, float] = {}
        for stream in self._joints:
            joints |= stream.latest.message if stream.latest else {}
        base, frame = self._odometry.latest.message if self._odometry.latest else (None, "")
        return RobotPose(joints, base, frame)

    def at(self, stamp_ns: int, max_gap: float = MAX_GAP) -> RobotPose:
        """Where the robot was.

        Args:
            stamp_ns: ROS time [ns].
            max_gap: largest distance to a message [s].

        Raises:
            CannotDraw: a stream that matters has no message near that time; without arms, joints do not.
        """
        joints: dict[str, float] = {}
        for stream in self._joints if self._needs_joints else ():
            joints |= self._near(stream, stamp_ns, max_gap)
        base, frame = self._near(self._odometry, stamp_ns, max_gap) if self.odometry_topic else (None, "")
        return RobotPose(joints, base, frame)

    @staticmethod
    def _near(stream: Stream, stamp_ns: int, max_gap: float) -> Any:
        nearest = stream.nearest(stamp_ns)
        gap = math.inf if nearest is None else abs(nearest.stamp_ns - stamp_ns) / 1e9
        if gap > max_gap:
            raise CannotDraw(f"no message on {stream.topic} near its observation ({gap:.2f} s away)")
        return nearest.message
