# SPDX-License-Identifier: Apache-2.0
"""The service by which a simulated robot is made to fail as hardware does, and what then is reported falsely."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from builtin_interfaces.msg import Time
from rclpy.publisher import Publisher
from sensor_msgs.msg import JointState

from qwen_vla_control.node_interface import Endpoint
from qwen_vla_msgs.srv import Misbehave
from qwen_vla_sim.controllers.simulated_robot import JointReading, SimulatedRobot
from qwen_vla_sim.node.locked_node import LockedNode
from qwen_vla_sim.node.messages import joint_state_message
from qwen_vla_sim.node.real_time import Schedule

MISBEHAVE = Endpoint("~/misbehave", Misbehave, "Have the robot fail as hardware does, or stop failing")
SECOND_RATE = 10.0  # [Hz] simulated; the default of joint_state_publisher
DEPTH = 10  # of the second publisher's queue

Request, Response = Misbehave.Request, Misbehave.Response


class Misbehavior(ABC):
    """What a simulated robot does wrong. Calls of its methods are serialized by the lock of the node."""

    def __init__(self, node: LockedNode, robot: SimulatedRobot) -> None:
        """Offer the service on `node`."""
        self._node, self._robot = node, robot
        self._second: list[Publisher] = []
        self._second_offset = 0.0
        self._schedule = Schedule(SECOND_RATE)
        node.create_service(MISBEHAVE.kind, MISBEHAVE.name, self._on_request)

    def publish_second(self, now_ns: int, stamp: Time) -> None:
        """Publish what the second publisher believes, where it is there and that is due."""
        if self._second and self._schedule.due(now_ns, False):
            self._tell_falsely(stamp)

    @abstractmethod
    def repair(self) -> None:
        """Everything works again."""
        self._set_second(False, 0.0)

    @abstractmethod
    def _do(self, request: Misbehave.Request) -> None:
        """Begin or end a fault; ValueError says what is wrong with the request."""
        match request.fault:
            case Request.REPAIR:
                self.repair()
            case Request.SECOND_PUBLISHER:
                self._set_second(request.on, request.amount)
            case other:
                raise ValueError(f"'{other}' is no fault of this robot; see qwen_vla_msgs/srv/Misbehave")

    @abstractmethod
    def _second_publishers(self) -> list[Publisher]:
        """Create the publishers of somebody who believes to know where the robot is."""

    @abstractmethod
    def _tell_falsely(self, stamp: Time) -> None:
        """Have these publish."""

    def _on_request(self, request: Misbehave.Request, response: Misbehave.Response) -> Misbehave.Response:
        try:
            with self._node.lock:
                self._do(request)
        except ValueError as error:
            response.success, response.message = False, str(error)
            return response
        switched = "" if request.fault == Request.REPAIR else f" {'on' if request.on else 'off'}"
        response.success, response.message = True, f"{request.fault}{switched}: {request.name or 'everything'}"
        self._node.get_logger().warning(f"misbehaves by request: {response.message}")
        return response

    def _set_second(self, on: bool, amount: float) -> None:
        for publisher in self._second:
            self._node.destroy_publisher(publisher)
        self._second = self._second_publishers() if on else []
        self._second_offset = amount


class JointMisbehavior(Misbehavior):
    """Of servos, encoders and controllers of joints."""

    def __init__(self, node: LockedNode, robot: SimulatedRobot) -> None:
        self._glitches: dict[str, float] = {}
        super().__init__(node, robot)

    def reading(self) -> JointReading:
        """What the joints report; a glitch is in it once."""
        reading = self._robot.joints()
        if not self._glitches:
            return reading
        glitches, self._glitches = self._glitches, {}
        pairs = zip(reading.names, reading.positions, strict=True)
        return replace(reading, positions=[position + glitches.get(name, 0.0) for name, position in pairs])

    def repair(self) -> None:
        super().repair()
        self._glitches = {}
        self._robot.hardware.repair()
        self._robot.set_limited(False)
        for controller in list(self._robot.inactive):
            self._robot.set_active(controller, True)

    def _do(self, request: Misbehave.Request) -> None:
        hardware, name, amount, on = self._robot.hardware, str(request.name), request.amount, request.on
        match request.fault:
            case Request.NO_TORQUE:
                hardware.set_torque(name, not on)
            case Request.MOVED:
                hardware.push(name, amount)
            case Request.NOT_FOLLOWING:
                hardware.set_following(name, not on)
            case Request.INACTIVE:
                self._robot.set_active(name, not on)
            case Request.LIMITER:
                self._robot.set_limited(on)
            case Request.ENCODER:
                hardware.set_offset(name, amount if on else 0.0)
            case Request.GLITCH:
                chosen = zip(self._robot.world.joint_names, hardware.columns(name), strict=True)
                self._glitches = {joint: amount for joint, hit in chosen if hit}
            case _:
                super()._do(request)

    def _second_publishers(self) -> list[Publisher]:
        sources = self._robot.world.embodiment.joint_states
        return [self._node.create_publisher(JointState, source.topic, DEPTH) for source in sources]

    def _tell_falsely(self, stamp: Time) -> None:
        reading, embodiment = self._robot.joints(), self._robot.world.embodiment
        pairs = zip(reading.names, reading.positions, strict=True)
        positions = [embodiment.home.get(name, position) + self._second_offset for name, position in pairs]
        false = replace(reading, positions=positions)
        for source, publisher in zip(embodiment.joint_states, self._second, strict=True):
            publisher.publish(joint_state_message(false, source.prefix, stamp, self._node.frame))
