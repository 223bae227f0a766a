"""The service by which a simulated robot is made to fail as hardware does, and the joint states that then are false."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from builtin_interfaces.msg import Time
from rclpy.node import Node
from sensor_msgs.msg import JointState

from qwen_vla_control.node_interface import Endpoint
from qwen_vla_msgs.srv import Misbehave
from qwen_vla_sim.controllers.simulated_robot import JointReading, SimulatedRobot
from qwen_vla_sim.node.messages import joint_state_message
from qwen_vla_sim.node.real_time import Schedule

MISBEHAVE = Endpoint("~/misbehave", Misbehave, "Have the robot fail as hardware does, or stop failing")
SECOND_RATE = 10.0  # [Hz] simulated; the default of joint_state_publisher
DEPTH = 10  # of the second publisher's queue

Request, Response = Misbehave.Request, Misbehave.Response


class Misbehavior:
    """What a simulated robot does wrong. Calls of its methods are serialized by the lock of the node."""

    def __init__(self, node: Node, robot: SimulatedRobot, frame: str, changed: Callable[[], None]) -> None:
        """Offer the service on `node`, whose joint states are in `frame`; `changed`: a controller is (in)active now."""
        self._node, self._robot, self._frame, self._changed = node, robot, frame, changed
        self._glitches: dict[str, float] = {}
        self._second: list[tuple[str, object]] = []
        self._second_offset = 0.0
        self._schedule = Schedule(SECOND_RATE)
        node.create_service(MISBEHAVE.kind, MISBEHAVE.name, self._on_request)

    def reading(self) -> JointReading:
        """What the joints report; a glitch is in it once."""
        reading = self._robot.joints()
        if not self._glitches:
            return reading
        glitches, self._glitches = self._glitches, {}
        pairs = zip(reading.names, reading.positions, strict=True)
        return replace(reading, positions=[position + glitches.get(name, 0.0) for name, position in pairs])

    def publish_second(self, now_ns: int, stamp: Time) -> None:
        """Publish what the second publisher believes, where it is there."""
        if not self._second or not self._schedule.due(now_ns, False):
            return
        reading, home = self._robot.joints(), self._robot.world.embodiment.home
        pairs = zip(reading.names, reading.positions, strict=True)
        false = replace(reading, positions=[home.get(name, position) + self._second_offset for name, position in pairs])
        for prefix, publisher in self._second:
            publisher.publish(joint_state_message(false, prefix, stamp, self._frame))

    def _on_request(self, request: Request, response: Response) -> Response:
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

    def _do(self, request: Request) -> None:
        hardware, name, amount, on = self._robot.hardware, request.name, request.amount, request.on
        match request.fault:
            case Request.REPAIR:
                self._repair()
            case Request.NO_TORQUE:
                hardware.set_torque(name, not on)
            case Request.MOVED:
                hardware.push(name, amount)
            case Request.NOT_FOLLOWING:
                hardware.set_following(name, not on)
            case Request.INACTIVE:
                self._robot.set_active(name, not on)
                self._changed()
            case Request.ENCODER:
                hardware.set_offset(name, amount if on else 0.0)
            case Request.GLITCH:
                columns = hardware.columns(name)
                chosen = zip(self._robot.world.joint_names, columns, strict=True)
                self._glitches = {joint: amount for joint, hit in chosen if hit}
            case Request.SECOND_PUBLISHER:
                self._set_second(on, amount)
            case other:
                raise ValueError(f"'{other}' is no fault; see qwen_vla_msgs/srv/Misbehave")

    def _repair(self) -> None:
        self._robot.hardware.repair()
        for controller in list(self._robot.inactive):
            self._robot.set_active(controller, True)
        self._set_second(False, 0.0)
        self._glitches = {}
        self._changed()

    def _set_second(self, on: bool, amount: float) -> None:
        for _, publisher in self._second:
            self._node.destroy_publisher(publisher)
        streams = self._robot.world.embodiment.joint_states if on else ()
        self._second = [(s.prefix, self._node.create_publisher(JointState, s.topic, DEPTH)) for s in streams]
        self._second_offset = amount
