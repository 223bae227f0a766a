# SPDX-License-Identifier: Apache-2.0
"""trajectory_visualizer: shows in RViz what the policy predicts, and what the executor accepts and refuses.

Everything is drawn from the robot's state at the chunk's observation. A chunk that does not match the robot's schema
is not drawn; the executor's report on it is written above the robot. Markers expire on their own; a reset (the policy
counts from 1 again, the clock goes back, another robot, or ~/clear) removes them at once.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry, Path
from rclpy.clock import Clock, ClockType
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.subscription import Subscription
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from embodiment_descriptions import EmbodimentError, ResourceError
from qwen_vla_control.node_interface import Endpoint, NodeInterface, answer_options
from qwen_vla_control.observation.robot_pose import MAX_GAP, RobotPose, RobotReader
from qwen_vla_control.observation.streams import NotObserved
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_rclpy.guarded_node import GuardedNode
from qwen_vla_rclpy.optional_interfaces import MissingInterface, interface
from qwen_vla_rclpy.printable import printable
from qwen_vla_rclpy.qos import LATCHED, RELIABLE, reliable
from qwen_vla_ros.drawing.chunk_geometry import CannotDraw, ChunkGeometry, PredictedPath, offending_steps
from qwen_vla_ros.drawing.chunk_markers import (
    ACCEPTED,
    GHOST,
    PREDICTED,
    REFUSED,
    TEXT,
    Layer,
    clear_all,
    path_markers,
    pose_path,
    removed_markers,
    text_marker,
)
from qwen_vla_ros.drawing.ghost_robot import GhostRobot
from qwen_vla_ros.executor.policy_monitor import ChunkOrder
from qwen_vla_ros.ros.chunk_messages import LARGEST_CHUNK, LONGEST_INSTRUCTION, chunk_from_message
from qwen_vla_ros.ros.embodiment_source import read_embodiment
from qwen_vla_ros.ros.environment import adopt, without_shared_memory
from qwen_vla_ros.ros.lifecycle import DIAGNOSTICS, LARGEST_DESCRIPTION, ROBOT_DESCRIPTION
from qwen_vla_ros.ros.parameters import Parameter, Parameters
from qwen_vla_ros.ros.plain_node import run
from qwen_vla_ros.ros.publishers import publisher_of

CHUNKS_KEPT = 32  # until their report arrives
LIFETIME = 2.0  # in durations of the executed part; by then the next chunk has replaced it
MIN_LIFETIME = 1.0  # [s] to be readable
GHOST_PERIOD = 0.1  # [s]
CLOCK_RESET_NS = 1_000_000_000  # [ns] a chunk this much older than the last one is from before a clock reset
LONGEST_REASON = 120  # [characters]
NOWHERE = np.eye(4)[None]  # the path of a chunk that cannot be drawn

PARAMETERS = (
    Parameter(
        "embodiment_config",
        "",
        "The robot: path of its embodiment YAML, or its name; empty: the name in its URDF",
        read_only=True,
    ),
    Parameter("chunk_topic", "policy_node/action_chunk", "Predicted chunks (ActionChunk)", read_only=True),
    Parameter("accepted_topic", "executor_node/accepted_chunk", "Accepted chunks (ActionChunk)", read_only=True),
    Parameter("report_topic", "executor_node/chunk_report", "Reports on them (ChunkReport)", read_only=True),
    Parameter("max_anchor_gap", MAX_GAP, "Largest time between an observation and its joint state [s]", 0.0, 10.0),
    Parameter("ghost", True, "Publish the robot at the end of a chunk on ghost/joint_states and tf"),
)

MARKERS = Endpoint("~/predicted_trajectory", MarkerArray, "Markers for RViz")
PATH = Endpoint("~/predicted_path", Path, "Predicted path of the first arm, or of the base")
MORE_PATHS = Endpoint("~/predicted_path_<arm>", Path, "Predicted path of another arm")
GHOST_JOINTS = Endpoint(f"{GHOST}/joint_states", JointState, "Joint positions at the end of the chunk")
GHOST_TRANSFORMS = Endpoint("tf", "tf2_msgs/msg/TFMessage", "The same, as transforms of the ghost's links")
PREDICTED_CHUNK = Endpoint("{chunk_topic}", ActionChunk, "Predicted chunks")
ACCEPTED_CHUNK = Endpoint("{accepted_topic}", ActionChunk, "Accepted chunks")
CHUNK_REPORT = Endpoint("{report_topic}", ChunkReport, "Reports on them")
JOINT_STATES = Endpoint("<joint_states>", JointState, "Joint positions")
ODOMETRY = Endpoint("<odometry>", Odometry, "Of a base: its pose and velocity")
CLEAR = Endpoint("~/clear", Trigger, "Remove all markers")

INTERFACE = NodeInterface(
    package="qwen_vla_ros",
    name="trajectory_visualizer",
    docstring=__doc__,
    parameters=PARAMETERS,
    publishes=(MARKERS, PATH, MORE_PATHS, GHOST_JOINTS, GHOST_TRANSFORMS, DIAGNOSTICS),
    subscribes=(ROBOT_DESCRIPTION, PREDICTED_CHUNK, ACCEPTED_CHUNK, CHUNK_REPORT, JOINT_STATES, ODOMETRY),
    services=(CLEAR,),
)


class TrajectoryVisualizer(GuardedNode):
    """Anchors each chunk at the robot's state at its observation, and draws it."""

    def __init__(self) -> None:
        """Subscribe; drawing starts when the robot's description is available."""
        super().__init__(INTERFACE.name)
        self.parameters = Parameters(self, PARAMETERS)
        self._urdf = ""
        self._geometry: ChunkGeometry | None = None  # created together with the ghost
        self._ghost: GhostRobot | None = None
        self._streams: list = []
        self._chunks: OrderedDict[int, ActionChunk] = OrderedDict()
        self._early_refusals: dict[int, ChunkReport] = {}
        self._accepted: ActionChunk | None = None
        self._newest_ns, self._order = 0, ChunkOrder()
        self._markers = self.create_publisher(MARKERS.kind, MARKERS.name, RELIABLE)
        self._path = self.create_publisher(PATH.kind, PATH.name, RELIABLE)
        self._more_paths: dict[str, Publisher] = {}
        self._ghost_joints = self.create_publisher(GHOST_JOINTS.kind, GHOST_JOINTS.name, RELIABLE)
        self._transforms, self._transforms_kind = self._open_transforms()
        self._markers.publish(clear_all())
        self._listen_to(ROBOT_DESCRIPTION, self._on_description, LATCHED, largest=LARGEST_DESCRIPTION)
        self._listen_to(PREDICTED_CHUNK, self._on_predicted, RELIABLE, largest=LARGEST_CHUNK)
        self._listen_to(ACCEPTED_CHUNK, self._on_accepted, RELIABLE, largest=LARGEST_CHUNK)
        self._listen_to(CHUNK_REPORT, self._on_report, RELIABLE)
        self.create_service(CLEAR.kind, CLEAR.name, self._on_clear)
        self.create_timer(GHOST_PERIOD, self._show_ghost, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _listen_to(
        self, topic: Endpoint, callback: Callable, qos: QoSProfile, name: str | None = None, **options: Any
    ) -> Subscription:
        return self.create_subscription(topic.kind, name or topic.name_for(self.parameters), callback, qos, **options)

    def _open_transforms(self) -> tuple[Publisher | None, type | None]:
        try:
            kind = interface(GHOST_TRANSFORMS.kind)
        except MissingInterface as missing:
            self.get_logger().info(f"the ghost robot is published without transforms: {missing}")
            return None, None
        return self.create_publisher(kind, GHOST_TRANSFORMS.name, reliable(100)), kind

    # Robot ----------------------------------------------------------------------------------------------------------

    def _on_description(self, message: String) -> None:
        if message.data == self._urdf:
            return
        try:
            embodiment = read_embodiment(message.data, self.parameters.embodiment_config)
            self._geometry, self._ghost = ChunkGeometry(embodiment), GhostRobot(embodiment)
        except (EmbodimentError, ResourceError, ValueError) as error:
            self.get_logger().error(f"this robot cannot be drawn: {error}")
            return
        self._urdf = message.data
        self._forget()
        self._listen_to_the_robot(RobotReader(embodiment))
        for arm in embodiment.arms[1:]:
            if arm.name not in self._more_paths:
                topic = MORE_PATHS.name.replace("<arm>", arm.name)
                self._more_paths[arm.name] = self.create_publisher(MORE_PATHS.kind, topic, RELIABLE)

    def _listen_to_the_robot(self, reader: RobotReader) -> None:
        for subscription in self._streams:
            self.destroy_subscription(subscription)
        self._reader = reader
        self._streams = [
            self._listen_to(JOINT_STATES, partial(self._on_joints, reader, i), qos_profile_sensor_data, source.topic)
            for i, source in enumerate(reader.joints.sources)
        ]
        if reader.odometry is not None:
            store, topic = partial(self._on_odometry, reader), reader.odometry.stream.topic
            self._streams.append(self._listen_to(ODOMETRY, store, qos_profile_sensor_data, topic))

    @staticmethod
    def _on_joints(reader: RobotReader, source: int, message: JointState) -> None:
        reader.joints.take(source, message, time.monotonic_ns())

    @staticmethod
    def _on_odometry(reader: RobotReader, message: Odometry) -> None:
        if reader.odometry is not None:
            reader.odometry.take(message, time.monotonic_ns())

    # Chunks ---------------------------------------------------------------------------------------------------------

    def _on_predicted(self, message: ActionChunk, info: Mapping) -> None:
        self._notice_reset(message, publisher_of(info))
        self._chunks[message.chunk_id] = message
        while len(self._chunks) > CHUNKS_KEPT:
            self._chunks.popitem(last=False)
        refusal = self._early_refusals.pop(message.chunk_id, None)
        paths = self._predicted_paths(message, message.horizon)
        if refusal is not None:
            self._show_refusal(message, refusal, paths)
        elif paths:
            self._draw(message, paths, PREDICTED, f"predicted {message.horizon} steps")
        if paths:
            self._path.publish(pose_path(message.header, paths[0], message.period))
            for path in paths[1:]:
                self._more_paths[path.name].publish(pose_path(message.header, path, message.period))
            if self._geometry is not None and self._ghost is not None:
                self._ghost.follow(self._end(self._geometry, message), time.monotonic() + _lifetime(message))

    def _on_accepted(self, message: ActionChunk) -> None:
        self._accepted = message
        paths = self._predicted_paths(message, message.execution_horizon)
        if paths:
            self._draw(message, paths, ACCEPTED, f"accepted {message.execution_horizon} of {message.horizon} steps")

    def _on_report(self, report: ChunkReport) -> None:
        if report.verdict == ChunkReport.REFUSED:
            message = self._chunks.get(report.chunk_id)
            if message is None:
                self._early_refusals = {report.chunk_id: report}
            else:
                self._show_refusal(message, report, self._predicted_paths(message, message.horizon))
        elif report.verdict == ChunkReport.HELD and self._accepted and report.chunk_id == self._accepted.chunk_id:
            self._show_hold(self._accepted, report)

    def _show_refusal(self, message: ActionChunk, report: ChunkReport, paths: list[PredictedPath]) -> None:
        why = str(report.message)
        text, bad = f"REFUSED: {_short(why)}", offending_steps(printable(why), message.horizon)
        self._draw(message, paths, REFUSED, text, bad, alarm=True)
        self._markers.publish(MarkerArray(markers=removed_markers([path.name for path in paths], PREDICTED)))
        self._rest_ghost()

    def _show_hold(self, message: ActionChunk, report: ChunkReport) -> None:
        self._accepted = None
        paths = self._predicted_paths(message, message.execution_horizon)
        self._markers.publish(MarkerArray(markers=removed_markers([path.name for path in paths], ACCEPTED)))
        self._draw(message, paths, None, f"HELD: {_short(str(report.message))}", alarm=True)
        self._rest_ghost()

    def _draw(
        self,
        message: ActionChunk,
        paths: list[PredictedPath],
        layer: Layer | None,
        state: str,
        bad_steps: list[int] | tuple[()] = (),
        alarm: bool = False,
    ) -> None:
        """Publish paths and text; a chunk without a path has its text above the robot's base."""
        lifetime = _lifetime(message) if paths else MIN_LIFETIME
        instruction = printable(message.instruction, LONGEST_INSTRUCTION)
        text = f"{instruction}\nchunk {message.chunk_id}, {message.inference_ms:.0f} ms\n{state}"
        markers: list[Marker] = []
        if layer is not None:
            for path in paths:
                markers += path_markers(message.header, path, layer, lifetime, bad_steps)
        if self._geometry is not None:
            place = paths[0] if paths else PredictedPath(TEXT, self._geometry.base_frame, NOWHERE)
            markers.append(text_marker(message.header, place, text, lifetime, alarm))
        self._markers.publish(MarkerArray(markers=markers))

    def _predicted_paths(self, message: ActionChunk, steps: int) -> list[PredictedPath]:
        """The predicted paths of a chunk; empty, with the reason in the log, when it cannot be drawn."""
        try:
            if self._geometry is None:
                raise CannotDraw("no robot_description received yet")
            start = self._reader.at(nanoseconds(message.header.stamp), self.parameters.max_anchor_gap)
            return self._geometry.paths(chunk_from_message(message), start, steps)
        except (CannotDraw, NotObserved) as why:
            self.get_logger().warning(f"chunk {message.chunk_id} is not drawn: {why}", throttle_duration_sec=5.0)
            return []

    def _end(self, geometry: ChunkGeometry, message: ActionChunk) -> RobotPose:
        start = self._reader.at(nanoseconds(message.header.stamp), self.parameters.max_anchor_gap)
        return geometry.poses(chunk_from_message(message), start)[-1]

    # Reset ----------------------------------------------------------------------------------------------------------

    def _notice_reset(self, message: ActionChunk, publisher: bytes) -> None:
        """Clear everything when the policy counts from 1 again, or the clock went back."""
        stamp = nanoseconds(message.header.stamp)
        if message.chunk_id < self._order.last(publisher) or stamp < self._newest_ns - CLOCK_RESET_NS:
            self._forget()
        self._newest_ns = stamp
        self._order.take(publisher, message.chunk_id)

    def _on_clear(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._forget()
        response.success, response.message = True, "all markers removed"
        return response

    def _forget(self) -> None:
        self._chunks.clear()
        self._early_refusals.clear()
        self._accepted = None
        self._newest_ns = 0
        self._order.forget()
        self._markers.publish(clear_all())
        self._rest_ghost()

    # Ghost ----------------------------------------------------------------------------------------------------------

    def _rest_ghost(self) -> None:
        if self._ghost is not None:
            self._ghost.rest()

    def _show_ghost(self) -> None:
        """Show the robot at the end of the last chunk; at its current state when there is none."""
        ghost = self._ghost if self.parameters.ghost else None
        measured = self._reader.latest() if ghost is not None else None
        if ghost is None or measured is None:
            return
        pose = ghost.pose(measured, time.monotonic())
        header = Header(stamp=self.get_clock().now().to_msg())
        self._ghost_joints.publish(
            JointState(header=header, name=list(pose.joints), position=list(pose.joints.values()))
        )
        if self._transforms is not None and self._transforms_kind is not None:
            self._transforms.publish(self._transforms_kind(transforms=ghost.transforms(pose, header.stamp)))


def _lifetime(message: ActionChunk) -> float:
    return max(MIN_LIFETIME, LIFETIME * message.execution_horizon * message.period)


def _short(text: str) -> str:
    return printable(text, LONGEST_REASON)


def main(args: list[str] | None = None) -> None:
    """Run trajectory_visualizer as a process."""
    answer_options(INTERFACE, args)
    adopt(without_shared_memory())
    run(TrajectoryVisualizer, args)
