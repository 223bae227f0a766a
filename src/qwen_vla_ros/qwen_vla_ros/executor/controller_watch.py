# SPDX-License-Identifier: Apache-2.0
"""What the controllers of ros2_control publish: where they would start from, and whether they are active.

A JointTrajectoryController publishes its reference on ~/controller_state while it is active; the controller manager
publishes on ~/activity which controllers are. A subscription proves nothing: an inactive controller keeps it and
drops what it receives. Both messages come with ros2_control; where their packages are not installed, nothing is known.
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
    """One controller, as it was last heard.

    Attributes:
        name: with its namespace, as the robot's YAML has it.
        joints: those that it moves.
        reference: by joint [rad | m]; empty before the first state.
        heard_ns: when that was received [ns], in ROS time and on the steady clock.
        label: its lifecycle state according to the controller manager; empty where none publishes it.
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
        """Time since its last state [s], on the clock on which it is shorter."""
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
    """Subscribes to all controllers of a robot that are commanded by topics.

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
                    self._subscribe(STATE_TYPE, f"{name}/controller_state", take, qos_profile_sensor_data)
        for manager in {controller.manager for controller in self.controllers.values()}:
            self._subscribe(ACTIVITY_TYPE, f"{manager}/activity", partial(self._on_activity, manager), LATCHED)

    def problems(self) -> list[str]:
        """Why controllers execute nothing."""
        now = self._node.get_clock().now().nanoseconds
        return [problem for c in self.controllers.values() if (problem := c.problem(now))]

    def references(self) -> dict[str, tuple[float, str]]:
        """Where the controller of each joint would start from [rad | m] and the topic that says so, as far as known."""
        now = self._node.get_clock().now().nanoseconds
        return {
            joint: (position, f"{c.name}/controller_state")
            for c in self.controllers.values()
            if c.silence(now) <= MAX_SILENCE
            for joint, position in c.reference.items()
        }

    def destroy(self) -> None:
        """Destroy the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _subscribe(self, kind: str, topic: str, callback: Any, qos: QoSProfile) -> None:
        try:
            found = interface(kind)
        except MissingInterface as error:
            self._node.get_logger().info(f"{topic} is not watched: {error}")
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
