# SPDX-License-Identifier: Apache-2.0
"""The streams of policy_node: subscriptions to cameras, joint states and odometry, and their diagnostics.

Callbacks only store messages, in the thread of the callbacks; `select` and `decode` are called from the inference
thread. The condition `changed` guards the streams and is notified after every message.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Odometry
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState

from embodiment_descriptions import Camera, Embodiment
from qwen_vla_control.node_interface import Endpoint
from qwen_vla_control.observation.camera_info import image_size, is_calibrated
from qwen_vla_control.observation.joint_source import JointSource
from qwen_vla_control.observation.odometry_reader import OdometryReader
from qwen_vla_control.observation.robot_streams import History, Needs, ObservationStreams
from qwen_vla_control.observation.streams import (
    MAX_IDENTICAL,
    MAX_LEAD,
    MAX_SILENCE,
    MAX_SKEW,
    Alignment,
    Observation,
    Rules,
    Stream,
    Waiting,
)
from qwen_vla_rclpy.guarded_node import ANY_SIZE, LARGEST
from qwen_vla_ros.ros.diagnostics import diagnostic_status
from qwen_vla_ros.ros.lifecycle import ManagedNode
from qwen_vla_ros.ros.matched_subscription import MatchedSubscription
from qwen_vla_ros.ros.parameters import Parameter

GRAPH_PERIOD = 0.5  # [s] steady, between two checks of the publishers
IMAGE_DEPTH, INFO_DEPTH, STATE_DEPTH = 5, 1, 50
CAMERA_INFO_CHOICES = ("off", "warn", "require")

PARAMETERS = (
    Parameter("max_camera_skew", MAX_SKEW, "Largest time between the messages of an observation [s]", 0.0, 10.0),
    Parameter("max_silence", MAX_SILENCE, "Silence of a stream or stop of ROS time that is a fault [s]", 0.1, 600.0),
    Parameter("max_stamp_lead", MAX_LEAD, "How far in the future a stamp may be [s]", 0.0, 10.0),
    Parameter(
        "max_identical",
        MAX_IDENTICAL,
        "How long a camera may send bitwise identical images before it counts as frozen [s]; 0: forever. "
        "Ignored under use_sim_time: simulated cameras have no noise",
        0.0,
        600.0,
    ),
    Parameter(
        "alignment",
        Alignment.DROP.value,
        "Messages aligned with the slowest camera: hold (the newest before), asof (the same, a large gap is a "
        "fault), drop (the nearest, a large gap drops the observation)",
        choices=tuple(Alignment),
    ),
    Parameter(
        "camera_info",
        "warn",
        "A missing or mismatched CameraInfo: off, warn (diagnostics), require (stops inference)",
        choices=CAMERA_INFO_CHOICES,
    ),
    Parameter(
        "image_transport",
        "",
        "raw or compressed for all cameras; empty: as in the robot's YAML",
        read_only=True,
        choices=("", "raw", "compressed"),
    ),
)

IMAGES = Endpoint("<cameras>", (Image, CompressedImage), "Camera images that the policy reads")
CAMERA_INFO = Endpoint("<camera_info>", CameraInfo, "Calibration of these cameras")
JOINT_STATES = Endpoint("<joint_states>", JointState, "Joint positions")
ODOMETRY = Endpoint("<odometry>", Odometry, "Of a base: its pose and velocity")


@dataclass
class SubscribedStream:
    """A stream and the subscription that feeds it; for a camera, its `tag` and CameraInfo."""

    stream: Stream | JointSource
    subscription: MatchedSubscription
    tag: str = ""
    info: MatchedSubscription | None = None


class ObservationSubscriptions:
    """Subscribes when created; its creator must call `destroy`.

    Attributes:
        streams: the streams that the subscriptions feed.
        subscribed: one per stream.
    """

    def __init__(
        self,
        node: ManagedNode,
        embodiment: Embodiment,
        changed: threading.Condition,
        camera_tags: Sequence[str] | None = None,
        needs: Needs | None = None,
        history: History | None = None,
    ) -> None:
        """Subscribe.

        Args:
            node: a node with `parameters` of PARAMETERS.
            embodiment: the robot.
            changed: guards the streams; notified after every message.
            camera_tags: cameras to subscribe to; by default all.
            needs: what an observation must contain besides images.
            history: of each camera.
        """
        self._node, self._changed = node, changed
        transport = node.parameters.image_transport
        chosen = [c for c in embodiment.cameras if camera_tags is None or c.tag in camera_tags]
        cameras = [c.model_copy(update={"transport": transport}) if transport else c for c in chosen]
        self.streams = ObservationStreams(embodiment, cameras, node.resolve_topic_name, needs, history)
        self.subscribed = [self._subscribe_camera(camera) for camera in cameras]
        sources = enumerate(self.streams.joints.sources)
        self.subscribed += [
            self._subscribe_joint_states(index, source)
            for index, source in sources
            if source in self.streams.joint_sources
        ]
        if self.streams.odometry is not None and embodiment.odometry is not None:
            self.subscribed.append(self._subscribe_odometry(self.streams.odometry, embodiment.odometry.topic))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(GRAPH_PERIOD, self._check_publishers, clock=steady)

    def _subscribe_camera(self, camera: Camera) -> SubscribedStream:
        raw = camera.model_copy(update={"transport": "raw"}).image_topic
        compressed = camera.model_copy(update={"transport": "compressed"}).image_topic
        kind, other, advice = (
            (CompressedImage, raw, "set its transport to raw")
            if camera.image_topic == compressed
            else (Image, compressed, "set its transport to compressed")
        )
        return SubscribedStream(
            self.streams.cameras[camera.tag],
            self._subscribe(
                kind,
                camera.image_topic,
                partial(self.streams.take_image, camera.tag),
                IMAGE_DEPTH,
                [(other, advice)],
                ANY_SIZE,
            ),
            camera.tag,
            MatchedSubscription(
                self._node, CAMERA_INFO.kind, camera.info_topic, partial(self._on_info, camera.tag), INFO_DEPTH
            ),
        )

    def _subscribe_joint_states(self, index: int, source: JointSource) -> SubscribedStream:
        take = partial(self.streams.joints.take, index)
        return SubscribedStream(source, self._subscribe(JOINT_STATES.kind, source.source.topic, take, STATE_DEPTH))

    def _subscribe_odometry(self, odometry: OdometryReader, topic: str) -> SubscribedStream:
        return SubscribedStream(odometry.stream, self._subscribe(ODOMETRY.kind, topic, odometry.take, STATE_DEPTH))

    def _subscribe(
        self,
        kind: type,
        topic: str,
        take: Callable[[Any, int], bool],
        depth: int,
        alternatives: Sequence[tuple[str, str]] = (),
        largest: int | None = LARGEST,
    ) -> MatchedSubscription:
        def store(message: Any) -> None:
            with self._changed:
                take(message, time.monotonic_ns())
                self._changed.notify_all()

        return MatchedSubscription(self._node, kind, topic, store, depth, alternatives, largest)

    def _on_info(self, tag: str, message: CameraInfo) -> None:
        with self._changed:
            self.streams.take_camera_info(tag, message)

    def _check_publishers(self) -> None:
        for source in self.subscribed:
            source.subscription.check()
            if source.info is not None:
                source.info.check()
            source.stream.remedy = source.subscription.remedy()

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_timer(self._timer)
        for source in self.subscribed:
            source.subscription.destroy()
            if source.info is not None:
                source.info.destroy()

    # For the inference thread -----------------------------------------------------------------------------------------

    def rules(self) -> Rules:
        """The current rules, from the parameters."""
        p = self._node.parameters
        simulated = self._node.get_parameter("use_sim_time").value
        return Rules(
            alignment=Alignment(p.alignment),
            max_skew=p.max_camera_skew,
            max_silence=p.max_silence,
            max_lead=p.max_stamp_lead,
            max_identical=math.inf if simulated or not p.max_identical else p.max_identical,
            require_camera_info=p.camera_info == "require",
        )

    def select(self, now_ns: int, not_before_ns: int = 0, history_from_ns: int = 0) -> Observation | Waiting:
        """Select the messages of one observation, with `changed` held. See ObservationStreams.select."""
        return self.streams.select(now_ns, time.monotonic_ns(), not_before_ns, self.rules(), history_from_ns)

    def decode(self, observation: Observation) -> dict[str, np.ndarray]:
        """Decode the images of an observation; see ObservationStreams.decode."""
        return self.streams.decode(observation)

    # Diagnostics ------------------------------------------------------------------------------------------------------

    def faults(self, now_ns: int) -> list[str]:
        """Why no observation is possible now; `changed` is held."""
        rules, steady_ns = self.rules(), time.monotonic_ns()
        faults = [
            self._fault(source, now_ns, steady_ns, rules) for source in self.subscribed if self._is_needed(source)
        ]
        return [fault for fault in faults if fault]

    def diagnostics(self, now_ns: int, hardware_id: str) -> list[DiagnosticStatus]:
        """One status per stream; `changed` is held."""
        rules, steady_ns = self.rules(), time.monotonic_ns()
        return [self._status(source, now_ns, steady_ns, rules, hardware_id) for source in self.subscribed]

    def _is_needed(self, source: SubscribedStream) -> bool:
        return bool(source.tag) or source.stream in self.streams.needed

    def _fault(self, source: SubscribedStream, now_ns: int, steady_ns: int, rules: Rules) -> str:
        """Why a stream prevents an observation."""
        fault = self.streams.fault(source.stream, now_ns, steady_ns, rules)
        if not fault and source.tag and rules.require_camera_info:
            problem = self.streams.camera_info_problem(source.tag)
            fault = problem and f"{source.stream.name}: {problem}"
        return fault

    def _status(
        self, source: SubscribedStream, now_ns: int, steady_ns: int, rules: Rules, hardware_id: str
    ) -> DiagnosticStatus:
        stream, problems = source.stream, {}
        if fault := self._fault(source, now_ns, steady_ns, rules):
            problems[fault] = DiagnosticStatus.ERROR if self._is_needed(source) else DiagnosticStatus.WARN
        values = {
            "topic": stream.topic,
            "type": source.subscription.kind,
            "quality of service": source.subscription.quality,
            "publishers": source.subscription.publishers,
            "rate [Hz]": stream.rate(),
            "age [s]": stream.age(now_ns),
            "silence [s]": stream.silence(steady_ns),
            "received": stream.received,
            "repeated stamps": stream.repeated,
            "late": stream.late,
        }
        if source.tag:
            values["same image [s]"] = self.streams.cameras[source.tag].identical()
            values |= self._image_values(source)
            problem = "" if self._node.parameters.camera_info == "off" else self.streams.camera_info_problem(source.tag)
            if problem and not fault:
                problems[problem] = DiagnosticStatus.WARN
        return diagnostic_status(f"{self._node.get_name()}: {stream.name}", hardware_id, problems, values)

    def _image_values(self, source: SubscribedStream) -> dict[str, object]:
        """Properties of the newest image and its CameraInfo."""
        info, values = self.streams.infos.get(source.tag), {}
        values["camera info"] = "none" if info is None else "calibrated" if is_calibrated(info) else "not calibrated"
        latest = self.streams.cameras[source.tag].latest
        if latest is not None:
            image = latest.message
            size = image_size(image)
            values["encoding"] = getattr(image, "format", None) or getattr(image, "encoding", "")
            values["size [px]"] = "unknown" if size is None else f"{size[0]} x {size[1]}"
            values["frame"] = image.header.frame_id
        return values
