"""trajectory_visualizer: shows in RViz what the policy predicts and what the executor accepts of it."""

from __future__ import annotations

import time

import numpy as np
import rclpy
from nav_msgs.msg import Path
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from embodiment_descriptions import EmbodimentError, ResourceError, pose_from_delta
from qwen_vla.observation_buffer import Stream
from qwen_vla_msgs.msg import ActionChunk
from qwen_vla_ros.chunk_decision import ChunkDecision, joint_vector
from qwen_vla_ros.chunk_markers import ACCEPTED, PREDICTED, Layer, chunk_markers, clear_all, pose_path
from qwen_vla_ros.chunk_messages import chunk_from_message, nanoseconds
from qwen_vla_ros.chunk_to_joints import POSE_CHANNELS
from qwen_vla_ros.embodiment_source import read_embodiment
from qwen_vla_ros.gate import Chunk, Refused, check_form
from qwen_vla_ros.image_memory import release_image_memory
from qwen_vla_ros.lifecycle import LATCHED
from qwen_vla_ros.parameters import Parameter, Parameters

JOINT_STATES_KEPT = 1024
LIFETIME = 2.0  # in durations of the executed part; then the next chunk has long replaced it
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)

PARAMETERS = (
    Parameter("embodiment_config", "", "YAML file of the robot; empty: that of the suite", read_only=True),
    Parameter("chunk_topic", "policy_node/action_chunk", "Predicted chunks (ActionChunk)", read_only=True),
    Parameter("accepted_topic", "executor_node/accepted_chunk", "Accepted chunks (ActionChunk)", read_only=True),
    Parameter("max_anchor_gap", 0.5, "Largest distance from the observation to its joint state [s]", 0.0, 10.0),
)


class TrajectoryVisualizer(Node):
    """Anchors each chunk at the end effector's pose at the time of its observation and draws it."""

    def __init__(self) -> None:
        """Listen; drawing begins when the robot's description is there."""
        super().__init__("trajectory_visualizer")
        self.parameters = Parameters(self, PARAMETERS)
        self._decision: ChunkDecision | None = None
        self._joint_states = Stream("joint states", "joint_states", float("inf"), JOINT_STATES_KEPT)
        self._markers = self.create_publisher(MarkerArray, "~/predicted_trajectory", RELIABLE)
        self._path = self.create_publisher(Path, "~/predicted_path", RELIABLE)
        self._markers.publish(clear_all())
        p = self.parameters
        self.create_subscription(String, "robot_description", self._on_description, LATCHED)
        self.create_subscription(JointState, "joint_states", self._on_joint_state, qos_profile_sensor_data)
        self.create_subscription(ActionChunk, p.chunk_topic, self._on_predicted, RELIABLE)
        self.create_subscription(ActionChunk, p.accepted_topic, self._on_accepted, RELIABLE)

    def _on_description(self, message: String) -> None:
        try:
            self._embodiment = read_embodiment(message.data, self.parameters.embodiment_config)
            self._decision = ChunkDecision(self._embodiment)
        except (EmbodimentError, ResourceError, ValueError) as error:
            self.get_logger().error(f"nothing can be drawn for this robot: {error}")

    def _on_joint_state(self, message: JointState) -> None:
        if self._decision is None:
            return
        try:
            positions = joint_vector(message.name, message.position, self._decision.joints)
        except Refused:  # of other joints; the executor says so where it matters
            return
        self._joint_states.push(nanoseconds(message.header.stamp), positions, time.monotonic_ns())

    def _on_predicted(self, message: ActionChunk) -> None:
        chunk = chunk_from_message(message)
        ways = self._ways(chunk, chunk.horizon)
        if ways is not None:
            self._publish(message, ways, PREDICTED)
            self._path.publish(pose_path(message.header, ways[0], chunk.period))

    def _on_accepted(self, message: ActionChunk) -> None:
        chunk = chunk_from_message(message)
        ways = self._ways(chunk, chunk.execution_horizon)
        if ways is not None:
            self._publish(message, ways, ACCEPTED)

    def _ways(self, chunk: Chunk, steps: int) -> np.ndarray | None:
        """Poses (arms, steps + 1, 4, 4) in the base frame; None, with the reason in the log, when unknown."""
        why = self._obstacle(chunk)
        if why:
            self.get_logger().warning(f"chunk {chunk.chunk_id} is not drawn: {why}", throttle_duration_sec=5.0)
            return None
        anchor = self._joint_states.nearest(chunk.stamp_ns).message
        starts = self._decision.poses(anchor)[:, 0]
        rows, ways, channel = chunk.rows[:steps].astype(float), [], 0
        for arm, start in zip(self._embodiment.arms, starts, strict=True):
            poses = pose_from_delta(start, rows[:, channel : channel + POSE_CHANNELS])
            ways.append(np.concatenate([start[None], poses]))
            channel += POSE_CHANNELS + (arm.gripper is not None)
        return np.stack(ways)

    def _obstacle(self, chunk: Chunk) -> str:
        """Why a chunk cannot be drawn; empty when it can."""
        if self._decision is None:
            return "no robot description yet"
        violations = check_form(chunk, self._decision.form)
        if violations:
            return "; ".join(v.message for v in violations)
        nearest = self._joint_states.nearest(chunk.stamp_ns)
        gap = float("inf") if nearest is None else abs(nearest.stamp_ns - chunk.stamp_ns) / 1e9
        return f"no joint state near it ({gap:.2f} s)" if gap > self.parameters.max_anchor_gap else ""

    def _publish(self, message: ActionChunk, ways: np.ndarray, layer: Layer) -> None:
        text = f"{message.instruction}\n{layer.name}: chunk {message.chunk_id}, {message.inference_ms:.0f} ms"
        lifetime = LIFETIME * message.execution_horizon * message.period
        markers = [
            marker
            for arm, poses in zip(self._embodiment.arms, ways, strict=True)
            for marker in chunk_markers(message.header, arm.name, poses, layer, text, lifetime)
        ]
        self._markers.publish(MarkerArray(markers=markers))


def main(args: list[str] | None = None) -> None:
    """Run trajectory_visualizer as a process."""
    release_image_memory()
    rclpy.init(args=args)
    node = TrajectoryVisualizer()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass  # asked to end
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
