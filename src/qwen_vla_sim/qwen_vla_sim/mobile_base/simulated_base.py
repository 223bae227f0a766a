# SPDX-License-Identifier: Apache-2.0
"""The mobile base with its diff-drive controller, in place of hardware and ros2_control. Free of ROS."""

from __future__ import annotations

from typing import Any

from embodiment_descriptions.commands import CommandInterface, make_part
from qwen_vla_sim.controllers.diff_drive import DiffDrive, DiffDriveParameters
from qwen_vla_sim.controllers.limit_monitor import VelocityMonitor
from qwen_vla_sim.controllers.simulated_robot import LISTENS, JointReading, SimulatedRobot
from qwen_vla_sim.mobile_base.world import MobileBaseWorld

TWIST_STAMPED = "geometry_msgs/msg/TwistStamped"


class SimulatedBase(SimulatedRobot):
    """A MobileBaseWorld driven by velocities. Not safe for use from several threads at once.

    velocity_type: of the messages that its controller takes, by its full name. velocities: has seen every
    command. wheels_follow: false, and the wheels stand still, whatever the controller wants.
    """

    world: MobileBaseWorld

    def __init__(
        self,
        world: MobileBaseWorld,
        parameters: DiffDriveParameters,
        velocity_type: str = TWIST_STAMPED,
        **options: bool,
    ) -> None:
        self.velocity_type = velocity_type
        super().__init__(world, **options)
        self.drive = DiffDrive(parameters)
        limits = world.embodiment.safety.base
        if limits is None:
            raise ValueError(f"embodiment '{world.embodiment.name}' has no `safety.base` in its YAML")
        self.velocity_limits, self.velocities = limits, VelocityMonitor(limits)
        self.wheels_follow = True

    def set_active(self, interface: str, active: bool) -> None:
        """Activate or deactivate the controller: it stops. ValueError says what it is called."""
        if interface not in self.stand_ins:
            raise ValueError(f"there is no controller '{interface}'; there are: {', '.join(self.stand_ins)}")
        (self.inactive.discard if active else self.inactive.add)(interface)
        self.drive.stop()

    def command_velocity(self, linear: float, angular: float, stamp_ns: int = 0) -> None:
        """Drive at `linear` [m/s] and `angular` [rad/s]; stamp 0 means now. Raises VelocityRejected."""
        self.drive.command(linear, angular, stamp_ns, self.time_ns)

    def advance(self, steps: int) -> None:
        """Run the controller and the physics for `steps` physics steps."""
        duration = self.world.timestep
        for _ in range(steps):
            before = self.world.wheel_positions()
            linear, angular = self.drive.update(self.time_ns, duration)
            if self.wheels_follow:
                self.world.drive(linear, angular, self.drive.wheel_speeds())
            else:
                self.world.drive(0.0, 0.0, (0.0, 0.0))
            self.world.step()
            left, right = self.world.wheel_positions() - before
            self.drive.measure(left, right, duration)

    def reset(self, seed: int) -> None:
        """Draw the scene of `seed` >= 0 and place the base at its start, at rest; the odometry starts there."""
        super().reset(seed)
        self.wheels_follow = True
        self.drive.reset()

    def joints(self) -> JointReading:
        """The wheels."""
        names = (*self.drive.parameters.left_wheel_names, *self.drive.parameters.right_wheel_names)
        positions, velocities = self.world.wheel_positions().tolist(), self.world.wheel_velocities().tolist()
        return JointReading(names, positions, velocities, [0.0] * len(names))

    def _of_base(self, command: CommandInterface) -> Any:
        return make_part(command, "simulated", LISTENS, command, self)
