# SPDX-License-Identifier: Apache-2.0
"""Topics and services of a controller_manager and its trajectory controllers, where their interfaces are installed.

The state of each trajectory controller (`<controller>/controller_state`), which controllers are active
(`controller_manager/activity`), and the service that switches them (`controller_manager/switch_controller`). The wheels
include neither control_msgs nor controller_manager_msgs; without them the simulator publishes none of this.
"""

from __future__ import annotations

from typing import Any

from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import State
from rclpy.publisher import Publisher

from qwen_vla_control.node_interface import Endpoint
from qwen_vla_rclpy.messages import time_message
from qwen_vla_rclpy.optional_interfaces import MissingInterface, interface
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_sim.controllers.joint_trajectory_controller import JointTrajectoryController
from qwen_vla_sim.controllers.simulated_robot import SimulatedRobot
from qwen_vla_sim.node.locked_node import LockedNode
from qwen_vla_sim.node.real_time import Schedule

STATE_TYPE = "control_msgs/msg/JointTrajectoryControllerState"
ACTIVITY_TYPE = "controller_manager_msgs/msg/ControllerManagerActivity"
CONTROLLER_TYPE = "controller_manager_msgs/msg/NamedLifecycleState"
SWITCH_TYPE = "controller_manager_msgs/srv/SwitchController"
CONTROLLER_STATE = Endpoint("<controller>/controller_state", STATE_TYPE, "Reference of each, with control_msgs")
ACTIVITY = Endpoint("controller_manager/activity", ACTIVITY_TYPE, "Which controllers are active, latched")
SWITCH = Endpoint("controller_manager/switch_controller", SWITCH_TYPE, "Activate and deactivate controllers")
STATE_RATE = 50.0  # [Hz] simulated; the controllers' default


class ControllerManager:
    """The controllers of a simulated robot as the graph sees them. Serialized by the lock of the node."""

    def __init__(self, node: LockedNode, robot: SimulatedRobot) -> None:
        """Offer what can be offered."""
        self._node, self._robot = node, robot
        self._schedule = Schedule(STATE_RATE)
        self._state, switch = _installed(STATE_TYPE), _installed(SWITCH_TYPE)
        self._activity_type, self._controller_type = _installed(ACTIVITY_TYPE), _installed(CONTROLLER_TYPE)
        self._states = {
            name: node.create_publisher(self._state, f"{name}/controller_state", 10)
            for name, interface in robot.interfaces.items()
            if self._state and isinstance(interface, JointTrajectoryController)
        }
        known = self._activity_type and self._controller_type
        self._activity = node.create_publisher(self._activity_type, ACTIVITY.name, LATCHED) if known else None
        if switch:
            node.create_service(switch, SWITCH.name, self._on_switch)
        self._told: frozenset[str] | None = None

    def publish(self, now_ns: int, stamp: Time) -> None:
        """Publish which controllers are active, when that has changed, and their states, when they are due."""
        if self._activity is not None and self._told != self._robot.inactive:
            self._publish_activity(self._activity)
        if not self._states or not self._schedule.due(now_ns, False):
            return
        reading = self._robot.joints()
        measured = dict(zip(reading.names, reading.positions, strict=True))
        for name, publisher in self._states.items():
            if name in self._robot.inactive:
                continue
            controller = self._robot.interfaces[name]
            if not isinstance(controller, JointTrajectoryController):
                continue
            message = self._state(joint_names=list(controller.joint_names))
            message.header.stamp = stamp
            desired = controller.desired_state
            message.reference.positions = controller.command.tolist()
            message.reference.velocities = [] if desired.velocities is None else list(map(float, desired.velocities))
            message.feedback.positions = [measured[joint] for joint in controller.joint_names]
            pairs = zip(message.reference.positions, message.feedback.positions, strict=True)
            message.error.positions = [reference - feedback for reference, feedback in pairs]
            message.output.positions = message.reference.positions
            publisher.publish(message)

    def _publish_activity(self, activity: Publisher) -> None:
        self._told = frozenset(self._robot.inactive)
        message = self._activity_type()
        message.header.stamp = time_message(self._robot.time_ns)
        for name in self._robot.interfaces:
            inactive = name in self._robot.inactive
            state = State(id=State.PRIMARY_STATE_INACTIVE if inactive else State.PRIMARY_STATE_ACTIVE)
            state.label = "inactive" if inactive else "active"
            message.controllers.append(self._controller_type(name=name, state=state))
        activity.publish(message)

    def _on_switch(self, request: Any, response: Any) -> Any:
        try:
            with self._node.lock:
                for name in request.deactivate_controllers:
                    self._robot.set_active(name, False)
                for name in request.activate_controllers:
                    self._robot.set_active(name, True)
        except ValueError as error:
            response.ok, response.message = False, str(error)
            return response
        response.ok = True
        return response


def _installed(name: str) -> Any:
    """A type by its name in ROS notation, None where its package is not installed."""
    try:
        return interface(name)
    except MissingInterface:
        return None
