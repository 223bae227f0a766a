"""Where the tips of the arms were at an observation, from the joint states around it. Free of ROS and torch.

Chunks of end-effector deltas are relative to that pose; whoever continues an older one must know both.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment, Kinematics
from qwen_vla.observation_buffer import Stream, stamp_of

JOINT_STATES_KEPT = 1024  # several seconds at the rate of any controller manager
MAX_GAP = 0.1  # [s] from the observation to the joint states nearest to it


class TipPoses:
    """Takes in joint states and says where the tips were.

    Attributes:
        topics: of the joint states, as the robot's YAML names them.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        """Prepare the kinematics of every arm."""
        self._arms = embodiment.arms
        self._kinematics = [Kinematics(embodiment, arm=i) for i in range(len(self._arms))]
        self._prefixes = [source.prefix for source in embodiment.joint_states]
        self.topics = tuple(source.topic for source in embodiment.joint_states)
        self._joints = frozenset(name for arm in self._arms for name in arm.joints)
        self._streams = [Stream("joint states", topic, MAX_GAP, JOINT_STATES_KEPT) for topic in self.topics]

    def push(self, source: int, message: Any, steady_ns: int) -> None:
        """Store what a sensor_msgs/JointState of the topic number `source` says of the arms."""
        prefix = self._prefixes[source]
        named = ((prefix + name, value) for name, value in zip(message.name, message.position, strict=False))
        positions = {name: value for name, value in named if name in self._joints and math.isfinite(value)}
        self._streams[source].push(stamp_of(message), positions, steady_ns)

    def at(self, stamp_ns: int) -> dict[str, np.ndarray]:
        """Pose (4, 4) of each tip in the base link of its arm, by the prefix of the arm's channels ("" for one arm).

        Raises:
            ValueError: joints are unknown at that ROS time [ns].
        """
        positions: dict[str, float] = {}
        for stream in self._streams:
            nearest = stream.nearest(stamp_ns)
            gap = float("inf") if nearest is None else abs(nearest.stamp_ns - stamp_ns) / 1e9
            if gap > MAX_GAP:
                what = "none has come" if nearest is None else f"the nearest is {gap:.2f} s away (limit {MAX_GAP} s)"
                raise ValueError(f"no joint states of {stream.topic} at the observation: {what}")
            positions.update(nearest.message)
        poses = {}
        for arm, kinematics in zip(self._arms, self._kinematics, strict=True):
            missing = [name for name in arm.joints if name not in positions]
            if missing:
                raise ValueError(f"joint states of {', '.join(self.topics)} lack {', '.join(missing)}")
            prefix = f"{arm.name}_" if len(self._arms) > 1 else ""
            poses[prefix] = kinematics.forward(np.array([positions[name] for name in arm.joints]))
        return poses
