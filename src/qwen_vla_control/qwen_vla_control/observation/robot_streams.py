# SPDX-License-Identifier: Apache-2.0
"""The streams of one robot: its cameras, joint states and odometry, and how they become a policy's observation.

Receives messages, selects those of one observation and decodes only these; live and, by the same code, from a bag.
Free of rclpy and torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodiment_descriptions import Camera, Embodiment
from qwen_vla_control.observation.camera_info import camera_info_problem
from qwen_vla_control.observation.image_decoding import DecodingError, to_rgb
from qwen_vla_control.observation.joint_reader import JointReader
from qwen_vla_control.observation.joint_source import JointSource
from qwen_vla_control.observation.odometry_reader import BasePose, OdometryReader
from qwen_vla_control.observation.streams import (
    NotObserved,
    Observation,
    Past,
    Rules,
    Stamped,
    Stream,
    Waiting,
    align,
    fault_of,
    first_fault,
)
from qwen_vla_control.stamps import NANOSECONDS, stamp_of

# A camera's images are kept for as long as the slowest camera may lag behind, but no more than these.
IMAGES_KEPT, BYTES_KEPT = 64, 256_000_000
# Frames of the history are kept this many times as densely as they are used.
HISTORY_OVERSAMPLING = 4


@dataclass(frozen=True)
class History:
    """How many frames of each camera an observation has, the current one included, and at which rate [Hz]."""

    frames: int = 1
    rate: float = 1.0

    @property
    def past(self) -> Past | None:
        """What a stream must keep for it."""
        if self.frames < 2:
            return None
        return Past(step=1 / (HISTORY_OVERSAMPLING * self.rate), span=self.frames / self.rate)


@dataclass(frozen=True)
class Needs:
    """What an observation must have besides images; what is not needed is included when available."""

    joint_states: bool = False
    odometry: bool = False


class ObservationStreams:
    """The streams of one robot.

    Attributes:
        cameras: by camera tag, in their order.
        joints: the reader of the joint states.
        odometry: the reader of the odometry; None for a fixed robot.
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
            cameras: those to use; by default all.
            resolve: the name of a topic in messages to the user.
            needs: what an observation must have besides images.
            history: of each camera; by default only the current image.
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
        self.joints = JointReader(embodiment, resolve=resolve)
        self.odometry = OdometryReader(embodiment, resolve) if embodiment.odometry else None

    @property
    def joint_sources(self) -> list[JointSource]:
        """The topics that report required joints; the wheels of a mobile base are not among them."""
        return [source for source in self.joints.sources if source.joints]

    @property
    def needed(self) -> list[Stream | JointSource]:
        """What is needed besides the cameras: topics of joint states, and the odometry."""
        joints = self.joint_sources if self.needs.joint_states else []
        return [*joints, *self._needed_odometry]

    @property
    def _needed_odometry(self) -> list[Stream]:
        return [self.odometry.stream] if self.needs.odometry and self.odometry is not None else []

    @property
    def _anchors(self) -> list[Stream]:
        """The streams from which an observation takes its stamp."""
        if self.cameras:
            return list(self.cameras.values())
        joints = self.joints.streams() if self.needs.joint_states else []
        return [*joints, *self._needed_odometry]

    # --- in ---------------------------------------------------------------------------------------------------------

    def take_image(self, tag: str, message: Any, steady_ns: int) -> bool:
        """Store a sensor_msgs/Image or CompressedImage; False when it is no newer than the newest."""
        return self.cameras[tag].push(stamp_of(message), message, steady_ns, content=message.data)

    def take_camera_info(self, tag: str, message: Any) -> None:
        """Store a sensor_msgs/CameraInfo."""
        self.infos[tag] = message

    # --- out --------------------------------------------------------------------------------------------------------

    def fault(self, stream: Stream | JointSource, now_ns: int, steady_ns: int, rules: Rules) -> str:
        """Why a stream must not be used, see `Stream.fault`."""
        return fault_of(stream, now_ns, steady_ns, rules)

    def camera_info_problem(self, tag: str) -> str:
        """What is wrong with a camera's CameraInfo; empty when it matches, or there is no image to compare with."""
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
        """Select the messages of one observation.

        Args:
            now_ns: ROS time.
            steady_ns: steady time.
            not_before_ns: every image must be newer than this ROS time (the robot moved until then).
            rules: by default those of Rules.
            history_from_ns: frames from before this ROS time are left out (they belong to another task).
        """
        rules = rules or Rules()
        waiting = first_fault([*self.cameras.values(), *self.needed], now_ns, steady_ns, rules)
        if waiting is not None:
            return waiting
        if rules.require_camera_info:
            for tag, stream in self.cameras.items():
                if problem := self.camera_info_problem(tag):
                    return Waiting(stream.name, f"{stream.name}: {problem}", fault=True)
        chosen = align(self._anchors, not_before_ns, rules)
        if isinstance(chosen, Waiting):
            return chosen
        stamp_ns = min(item.stamp_ns for item in chosen)
        try:
            joints, base = self._beside(stamp_ns, rules.max_skew)
        except NotObserved as error:
            return Waiting(error.stream, str(error), fault=True)
        images = {
            tag: (*self._history(stream, item, history_from_ns), item.message)
            for (tag, stream), item in zip(self.cameras.items(), chosen if self.cameras else (), strict=True)
        }
        return Observation(stamp_ns, images, joints, base)

    def _beside(self, stamp_ns: int, max_gap: float) -> tuple[dict[str, float], BasePose | None]:
        """Joints and base near a stamp; NotObserved when a needed one is unknown then."""
        joints = self.joints.at if self.needs.joint_states else self.joints.near
        base = self.odometry and (self.odometry.at if self.needs.odometry else self.odometry.near)(stamp_ns, max_gap)
        return joints(stamp_ns, max_gap).known, base

    def _history(self, stream: Stream, present: Stamped, from_ns: int) -> list[Any]:
        """Messages before the current one, oldest first, evenly spaced: none from before a missing frame."""
        frames, latest_ns = [], present.stamp_ns
        for count in range(1, self.history.frames):
            wanted = present.stamp_ns - round(count * NANOSECONDS / self.history.rate)
            nearest = stream.nearest(wanted)
            if nearest is None:
                continue
            apart = abs(nearest.stamp_ns - wanted) / NANOSECONDS
            if not from_ns <= nearest.stamp_ns < latest_ns or apart > 1 / (2 * self.history.rate):
                break
            frames.append(nearest.message)
            latest_ns = nearest.stamp_ns
        return frames[::-1]

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
            raise DecodingError(f"{stream.name} on {stream.topic}: the image size has changed: {sorted(sizes)}")
        return np.stack(frames)
