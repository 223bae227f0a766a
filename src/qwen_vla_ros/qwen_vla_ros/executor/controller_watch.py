"""What the controllers of ros2_control say about themselves: where they would start from, and whether they are active.

A JointTrajectoryController publishes its reference on ~/controller_state while it is active; the controller manager
tells on ~/activity which controllers are. Subscribers prove nothing: an inactive controller keeps its subscription and
drops what it hears. Both messages come with ros2_control; where their packages are not installed, nothing is known.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rclpy.qos import QoSProfile, qos_profile_sensor_data

from embodiment_descriptions import Embodiment
from embodiment_descriptions.commands import ForwardCommand, JointTrajectoryCommand
from qwen_vla_control.node_interface import Endpoint
from qwen_vla_rclpy.optional_interfaces import MissingInterface, interface
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_ros.ros.lifecycle import ManagedNode

STATE_TYPE = "control_msgs/msg/JointTrajectoryControllerState"
ACTIVITY_TYPE = "controller_manager_msgs/msg/ControllerManagerActivity"
CONTROLLER_STATE = Endpoint("<controller>/controller_state", STATE_TYPE, "Where a controller would start from")
ACTIVITY = Endpoint("<controller_manager>/activity", ACTIVITY_TYPE, "Which controllers are active")
MAX_SILENCE = 0.5  # [s] steady and ROS time, of an active controller; it publishes at 50 Hz


@dataclass
class Controller:
    """One controller, by what it was heard saying.

    Attributes:
        name: with its namespace, as the robot's YAML has it.
        joints: that it moves.
        reference: by joint [rad | m]; empty before it was heard.
        heard_ns: when that came [ns], by ROS time and by the steady clock.
        label: its lifecycle state by the controller manager; empty where that is silent.
    """

    name: str
    joints: tuple[str, ...]
    reference: dict[str, float] = field(default_factory=dict)
    heard_ns: tuple[int, int] = (0, 0)
    label: str = ""

    @property
    def manager(self) -> str:
        """Its controller manager."""
        return f"{self.name.rpartition('/')[0]}/controller_manager".lstrip("/")

    def silence(self, now_ns: int) -> float:
        """For how long it has said nothing, by the clock by which it is shorter [s]."""
        return min(now_ns - self.heard_ns[0], time.monotonic_ns() - self.heard_ns[1]) / 1e9

    def problem(self, now_ns: int) -> str:
        """Why it executes nothing; empty when it does, or when nothing is known."""
        advice = "activate it: ros2 control switch_controllers --activate"
        if self.label not in ("", "active"):
            return f"{self.name} is {self.label}; {advice} {self.name}"
        if self.reference and (silence := self.silence(now_ns)) > MAX_SILENCE:
            return f"{self.name} has published no controller_state for {silence:.1f} s; {advice} {self.name}"
        return ""


class ControllerWatch:
    """Listens to all controllers of a robot that take topics.

    Attributes:
        controllers: by name.
    """

    def __init__(self, node: ManagedNode, embodiment: Embodiment) -> None:
        """Subscribe to what is installed."""
        self._node = node
        self.controllers: dict[str, Controller] = {}
        self._subscriptions: list = []
        for command in embodiment.commands:
            if isinstance(command, JointTrajectoryCommand | ForwardCommand):
                name = command.endpoint.rpartition("/")[0]
                self.controllers[name] = Controller(name, command.commanded)
                if isinstance(command, JointTrajectoryCommand):
                    take = partial(self._on_state, self.controllers[name])
                    self._hear(STATE_TYPE, f"{name}/controller_state", take, qos_profile_sensor_data)
        for manager in {controller.manager for controller in self.controllers.values()}:
            self._hear(ACTIVITY_TYPE, f"{manager}/activity", partial(self._on_activity, manager), LATCHED)

    def problems(self) -> list[str]:
        """Why controllers execute nothing."""
        now = self._node.get_clock().now().nanoseconds
        return [problem for c in self.controllers.values() if (problem := c.problem(now))]

    def references(self) -> dict[str, tuple[float, str]]:
        """By joint: where its controller would start from [rad | m], and who says so; as far as it is known."""
        now = self._node.get_clock().now().nanoseconds
        return {
            joint: (position, f"{c.name}/controller_state")
            for c in self.controllers.values()
            if c.silence(now) <= MAX_SILENCE
            for joint, position in c.reference.items()
        }

    def destroy(self) -> None:
        """Leave the graph."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _hear(self, kind: str, topic: str, callback: Any, qos: QoSProfile) -> None:
        try:
            found = interface(kind)
        except MissingInterface as error:
            self._node.get_logger().info(f"nothing is known of {topic}: {error}")
            return
        self._subscriptions.append(self._node.create_subscription(found, topic, callback, qos))

    def _on_state(self, controller: Controller, message: Any) -> None:
        positions = message.reference.positions
        if len(positions) != len(message.joint_names) or set(message.joint_names) != set(controller.joints):
            return
        told = dict(zip(message.joint_names, positions, strict=True))
        if all(map(math.isfinite, told.values())):
            controller.reference = told
            controller.heard_ns = self._node.get_clock().now().nanoseconds, time.monotonic_ns()

    def _on_activity(self, manager: str, message: Any) -> None:
        told = {entry.name: entry.state.label for entry in message.controllers}
        for controller in self.controllers.values():
            if controller.manager == manager:
                controller.label = told.get(controller.name.rpartition("/")[2], controller.label)
