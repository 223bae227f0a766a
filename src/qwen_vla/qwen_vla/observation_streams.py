"""The senses of one robot: its cameras, joint states and odometry, and how they become what a policy is given.

Takes in messages, chooses those of one observation and decodes these alone; live and, by the same code, from a bag.
Free of rclpy and torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodiment_descriptions import Camera, Embodiment
from embodiment_descriptions.commands import JointStates
from qwen_vla.camera_info import camera_info_problem
from qwen_vla.image_decoding import DecodingError, to_rgb
from qwen_vla.observation_buffer import (
    NANOSECONDS,
    Observation,
    Past,
    Rules,
    Stamped,
    Stream,
    Waiting,
    align,
    fault_of,
    first_fault,
    stamp_of,
)

# A camera's images are kept for as long as the slowest camera may be behind, but no more than these.
IMAGES_KEPT, BYTES_KEPT = 64, 256_000_000
STATES_KEPT, STATES_WINDOW = 4096, 2.0  # [s]
# Frames of the history are kept this many times as densely as they are shown.
HISTORY_OVERSAMPLING = 4


@dataclass(frozen=True)
class History:
    """How many frames of each camera are shown, the present one included, and at which rate [Hz]."""

    frames: int = 1
    rate: float = 1.0

    @property
    def past(self) -> Past | None:
        """What a stream has to keep for it."""
        if self.frames < 2:
            return None
        return Past(step=1 / (HISTORY_OVERSAMPLING * self.rate), span=self.frames / self.rate)


@dataclass(frozen=True)
class Needs:
    """What an observation must have beside images; what is not needed is taken along when it is there."""

    joint_states: bool = False
    odometry: bool = False


@dataclass(frozen=True)
class JointPositions:
    """What is kept of a sensor_msgs/JointState: the joints that are wanted of it, in its own names, and no others."""

    name: tuple[str, ...]
    position: tuple[float, ...]


class JointStream(Stream):
    """One topic of joint states, see `source`; `joints` are those that it must tell, by the URDF's names."""

    def __init__(self, source: JointStates, topic: str, joints: Sequence[str]) -> None:
        """Create an empty stream; `topic` is what messages to the user call it."""
        name = f"joint states '{source.prefix}'" if source.prefix else "joint states"
        super().__init__(name, topic, source.max_age_s, STATES_KEPT, noun="joint state", window=STATES_WINDOW)
        self.source, self.joints = source, tuple(joints)
        self._own_names = tuple(joint.removeprefix(source.prefix) for joint in self.joints)
        self._lacking: list[str] = []

    def take(self, message: Any, steady_ns: int) -> bool:
        """Store a sensor_msgs/JointState; False when it is not newer, or lacks a joint or its position."""
        known = self.positions(message)
        self._lacking = [joint for joint in self.joints if not math.isfinite(known.get(joint, math.nan))]
        if self._lacking:  # several nodes may share the topic, each with joints of its own
            return False
        kept = JointPositions(self._own_names, tuple(known[joint] for joint in self.joints))
        return self.push(stamp_of(message), kept, steady_ns)

    @property
    def advice(self) -> str:
        """What the user is told to look at when nothing comes."""
        return f"its messages lack a position of {', '.join(self._lacking)}" if self._lacking else self.way_out

    def positions(self, message: Any) -> dict[str, float]:
        """Position [m or rad] of every joint of a message, by the URDF's names."""
        return {self.source.prefix + name: value for name, value in zip(message.name, message.position, strict=False)}


class ObservationStreams:
    """The streams of one robot.

    Attributes:
        cameras: by camera tag, in their order.
        joint_states: one per topic.
        odometry: None for a robot that stays where it is.
        infos: the latest sensor_msgs/CameraInfo by camera tag.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        cameras: Sequence[Camera] | None = None,
        resolve: Callable[[str], str] = str,
        needs: Needs | None = None,
        history: History | None = None,
    ) -> None:
        """Create empty streams.

        Args:
            embodiment: the robot.
            cameras: those that are looked through; by default all.
            resolve: the name by which messages to the user call a topic.
            needs: what an observation must have beside images.
            history: of each camera; by default only the present image.
        """
        self.needs, self.history = needs or Needs(), history or History()
        cameras = tuple(embodiment.cameras if cameras is None else cameras)
        window = max((camera.max_age_s for camera in cameras), default=0.0)
        self.cameras = {
            camera.tag: Stream(
                f"camera '{camera.tag}'",
                resolve(camera.image_topic),
                camera.max_age_s,
                IMAGES_KEPT,
                noun="image",
                window=window,
                past=self.history.past,
                budget=BYTES_KEPT,
            )
            for camera in cameras
        }
        self._info_topics = {camera.tag: resolve(camera.info_topic) for camera in cameras}
        self.infos: dict[str, Any] = {}
        self.joint_states = _joint_streams(embodiment, resolve)
        self.odometry = None
        if odometry := embodiment.odometry:
            self.odometry = Stream(
                "odometry", resolve(odometry.topic), odometry.max_age_s, STATES_KEPT, window=STATES_WINDOW
            )

    @property
    def needed(self) -> list[Stream]:
        """The streams beside the cameras without which there is no observation."""
        joints = self.joint_states if self.needs.joint_states else []
        return [*joints, *([self.odometry] if self.needs.odometry and self.odometry else [])]

    # --- in ---------------------------------------------------------------------------------------------------------

    def take_image(self, tag: str, message: Any, steady_ns: int) -> bool:
        """Store a sensor_msgs/Image or CompressedImage; False when it is no newer than the newest."""
        return self.cameras[tag].push(stamp_of(message), message, steady_ns, content=message.data)

    def take_joint_state(self, index: int, message: Any, steady_ns: int) -> bool:
        """Store a sensor_msgs/JointState of a topic; False when it is no newer, or not of this robot's joints."""
        return self.joint_states[index].take(message, steady_ns)

    def take_odometry(self, message: Any, steady_ns: int) -> bool:
        """Store a nav_msgs/Odometry; False when it is no newer than the newest."""
        return self.odometry.push(stamp_of(message), message, steady_ns)

    def take_camera_info(self, tag: str, message: Any) -> None:
        """Store a sensor_msgs/CameraInfo."""
        self.infos[tag] = message

    # --- out --------------------------------------------------------------------------------------------------------

    def fault(self, stream: Stream, now_ns: int, steady_ns: int, rules: Rules) -> str:
        """Say why a stream must not be used, see `Stream.fault`."""
        return fault_of(stream, now_ns, steady_ns, rules)

    def camera_info_problem(self, tag: str) -> str:
        """Say what is wrong with a camera's CameraInfo; empty when it fits, or there is no image to compare with."""
        latest = self.cameras[tag].latest
        if latest is None:
            return ""
        return camera_info_problem(self.infos.get(tag), latest.message, self._info_topics[tag])

    def select(
        self,
        now_ns: int,
        steady_ns: int,
        not_before_ns: int = 0,
        rules: Rules | None = None,
        history_from_ns: int = 0,
    ) -> Observation | Waiting:
        """Choose the messages of one observation.

        Args:
            now_ns: ROS time.
            steady_ns: steady time.
            not_before_ns: every image must be younger than this ROS time (the robot moved until then).
            rules: by default those of Rules.
            history_from_ns: frames from before this ROS time are not shown (they belong to another task).
        """
        rules = rules or Rules()
        waiting = first_fault([*self.cameras.values(), *self.needed], now_ns, steady_ns, rules)
        if waiting is not None:
            return waiting
        if rules.require_camera_info:
            for tag, stream in self.cameras.items():
                if problem := self.camera_info_problem(tag):
                    return Waiting(stream.name, f"{stream.name}: {problem}", fault=True)
        chosen = align(list(self.cameras.values()) or self.needed, not_before_ns, rules)
        if isinstance(chosen, Waiting):
            return chosen
        stamp_ns = min(item.stamp_ns for item in chosen)
        for stream in self.needed:
            if _beside(stream, stamp_ns, rules.max_skew) is None:
                return Waiting(stream.name, _apart(stream, stamp_ns, rules.max_skew), fault=True)
        images = {
            tag: (*self._history(stream, item, history_from_ns), item.message)
            for (tag, stream), item in zip(self.cameras.items(), chosen if self.cameras else (), strict=True)
        }
        joints = tuple(_beside(stream, stamp_ns, rules.max_skew) for stream in self.joint_states)
        odometry = self.odometry and _beside(self.odometry, stamp_ns, rules.max_skew)
        return Observation(stamp_ns, images, joints, odometry)

    def _history(self, stream: Stream, present: Stamped, from_ns: int) -> list[Any]:
        """Messages before the present one, from the oldest; a frame that is missing is left out."""
        shown: dict[int, Any] = {}
        for count in range(self.history.frames - 1, 0, -1):
            wanted = present.stamp_ns - round(count * NANOSECONDS / self.history.rate)
            nearest = stream.nearest(wanted)
            apart = abs(nearest.stamp_ns - wanted) / NANOSECONDS
            if from_ns <= nearest.stamp_ns < present.stamp_ns and apart <= 1 / (2 * self.history.rate):
                shown[nearest.stamp_ns] = nearest.message
        return list(shown.values())

    def decode(self, observation: Observation) -> dict[str, np.ndarray]:
        """RGB uint8 by camera tag: H×W×3, with a history of several frames T×H×W×3, the oldest first.

        Raises:
            DecodingError: names camera and topic.
        """
        return {tag: self._decode(tag, messages) for tag, messages in observation.images.items()}

    def _decode(self, tag: str, messages: Sequence[Any]) -> np.ndarray:
        stream = self.cameras[tag]
        try:
            frames = [to_rgb(message) for message in messages]
        except DecodingError as error:
            raise DecodingError(f"{stream.name} on {stream.topic}: {error}") from error
        if self.history.frames < 2:
            return frames[0]
        sizes = {frame.shape for frame in frames}
        if len(sizes) > 1:
            raise DecodingError(f"{stream.name} on {stream.topic}: the size of the images has changed: {sorted(sizes)}")
        return np.stack(frames)

    def positions(self, observation: Observation) -> dict[str, float]:
        """Position [m or rad] of every joint at the observation, by the URDF's names; empty without joint states."""
        found: dict[str, float] = {}
        for stream, message in zip(self.joint_states, observation.joint_states, strict=True):
            if message is not None:
                found |= stream.positions(message)
        return found


def _joint_streams(embodiment: Embodiment, resolve: Callable[[str], str]) -> list[JointStream]:
    """One stream per topic; a joint belongs to the source with the longest prefix that its name has."""
    sources = embodiment.joint_states
    joints: list[list[str]] = [[] for _ in sources]
    for joint in embodiment.joint_names:
        fits = [index for index, source in enumerate(sources) if joint.startswith(source.prefix)]
        if fits:
            joints[max(fits, key=lambda index: len(sources[index].prefix))].append(joint)
    return [
        JointStream(source, resolve(source.topic), names)
        for source, names in zip(sources, joints, strict=True)
        if names  # what a mobile base tells of its wheels is of no use here
    ]


def _beside(stream: Stream, stamp_ns: int, max_skew: float) -> Any:
    """The message nearest to a stamp; None where that is farther away than `max_skew` [s]."""
    nearest = stream.nearest(stamp_ns)
    if nearest is None or abs(nearest.stamp_ns - stamp_ns) > max_skew * NANOSECONDS:
        return None
    return nearest.message


def _apart(stream: Stream, stamp_ns: int, limit: float) -> str:
    gap = abs(stream.nearest(stamp_ns).stamp_ns - stamp_ns) / NANOSECONDS
    return (
        f"{stream.name}: the {stream.noun} on {stream.topic} nearest to the images is {gap:.2f} s away from them "
        f"(limit {limit:.2f} s); are both stamped by the same clock?"
    )
