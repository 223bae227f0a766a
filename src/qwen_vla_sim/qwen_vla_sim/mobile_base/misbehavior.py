# SPDX-License-Identifier: Apache-2.0
"""How the simulated base fails on purpose: its wheels, its controller, and the odometry that then is false."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Time
from nav_msgs.msg import Odometry
from rclpy.publisher import Publisher

from qwen_vla_msgs.srv import Misbehave
from qwen_vla_sim.mobile_base.simulated_base import SimulatedBase
from qwen_vla_sim.node.locked_node import LockedNode
from qwen_vla_sim.node.messages import odometry_message
from qwen_vla_sim.node.misbehavior import DEPTH, Misbehavior, Request

FORWARD = np.array([1.0, 0.0, 0.0])  # along x of the odometry frame


class BaseMisbehavior(Misbehavior):
    """Amounts are in [m] along x of the odometry frame. Its controller is called as the topic that it takes."""

    _robot: SimulatedBase

    def __init__(self, node: LockedNode, robot: SimulatedBase) -> None:
        self._glitch = self._offset = 0.0
        super().__init__(node, robot)

    def odometry(self, stamp: Time) -> Odometry:
        """What the odometry reports; a glitch is in it once."""
        false, self._glitch = self._glitch + self._offset, 0.0
        return self._message(false, stamp)

    def repair(self) -> None:
        super().repair()
        self._glitch = self._offset = 0.0
        self._robot.wheels_follow = True
        for controller in list(self._robot.inactive):
            self._robot.set_active(controller, True)

    def _do(self, request: Misbehave.Request) -> None:
        match request.fault:
            case Request.NOT_FOLLOWING:
                self._robot.wheels_follow = not request.on
            case Request.INACTIVE:
                self._robot.set_active(str(request.name), not request.on)
            case Request.ENCODER:
                self._offset = request.amount if request.on else 0.0
            case Request.GLITCH:
                self._glitch = request.amount
            case _:
                super()._do(request)

    def _second_publishers(self) -> list[Publisher]:
        odometry = self._robot.world.embodiment.odometry
        return [] if odometry is None else [self._node.create_publisher(Odometry, odometry.topic, DEPTH)]

    def _tell_falsely(self, stamp: Time) -> None:
        for publisher in self._second:
            publisher.publish(self._message(self._second_offset, stamp))

    def _message(self, false: float, stamp: Time) -> Odometry:
        drive = self._robot.drive
        frames = drive.parameters.odom_frame_id, drive.parameters.base_frame_id
        return odometry_message(drive.pose + false * FORWARD, drive.twist, stamp, *frames)
