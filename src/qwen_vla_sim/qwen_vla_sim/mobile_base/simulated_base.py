"""The mobile base with its diff-drive controller, in place of hardware and ros2_control. Free of ROS."""

from __future__ import annotations

from typing import Any

from embodiment_descriptions.commands import CommandInterface, make_part
from qwen_vla_sim.controllers.diff_drive import DiffDrive, DiffDriveParameters
from qwen_vla_sim.controllers.simulated_robot import LISTENS, JointReading, SimulatedRobot
from qwen_vla_sim.mobile_base.world import MobileBaseWorld

TWIST_STAMPED = "geometry_msgs/msg/TwistStamped"


class SimulatedBase(SimulatedRobot):
    """A MobileBaseWorld driven by velocities. Not safe for use from several threads at once.

    velocity_type: of the messages that its controller takes, by its full name.
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

    def command_velocity(self, linear: float, angular: float, stamp_ns: int = 0) -> None:
        """Drive at `linear` [m/s] and `angular` [rad/s]; stamp 0 means now. Raises VelocityRejected."""
        self.drive.command(linear, angular, stamp_ns, self.time_ns)

    def advance(self, steps: int) -> None:
        """Run the controller and the physics for `steps` physics steps."""
        duration = self.world.timestep
        for _ in range(steps):
            before = self.world.wheel_positions()
            linear, angular = self.drive.update(self.time_ns, duration)
            self.world.drive(linear, angular, self.drive.wheel_speeds())
            self.world.step()
            self.drive.measure(*(self.world.wheel_positions() - before), duration)

    def reset(self, seed: int) -> None:
        """Draw the scene of `seed` >= 0 and place the base at its start, at rest; the odometry starts there."""
        super().reset(seed)
        self.drive.reset()

    def joints(self) -> JointReading:
        """The wheels."""
        names = (*self.drive.parameters.left_wheel_names, *self.drive.parameters.right_wheel_names)
        positions, velocities = self.world.wheel_positions().tolist(), self.world.wheel_velocities().tolist()
        return JointReading(names, positions, velocities, [0.0] * len(names))

    def _of_base(self, command: CommandInterface) -> Any:
        return make_part(command, "simulated", LISTENS, command, self)
