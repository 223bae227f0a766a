"""A robot's joints with the interfaces that command them: what hardware and ros2_control are together, without ROS.

Set points are sampled at every physics step, as a servo interpolates between the commands of a slower controller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.commands import (
    BaseCommand,
    Command,
    ForwardCommand,
    JointTrajectoryCommand,
    XsGroupCommand,
    XsSingleCommand,
)
from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_sim.controllers.joint_trajectory_controller import JointState, JointTrajectory, JointTrajectoryController
from qwen_vla_sim.controllers.limit_monitor import LimitMonitor
from qwen_vla_sim.controllers.position_interfaces import GripperMotor, PositionInterface
from qwen_vla_sim.robot_world import RobotWorld

Interface = JointTrajectoryController | PositionInterface


@dataclass(frozen=True)
class JointReading:
    """What the joints report: positions [rad, m], velocities [rad/s, m/s], efforts [Nm, N], each (joints,)."""

    names: tuple[str, ...]
    positions: list[float]
    velocities: list[float]
    efforts: list[float]


class SimulatedRobot:
    """A world driven by the joint interfaces that the embodiment names in `commands`.

    `interfaces` has them by name: a trajectory controller by that of the controller, others by that of the topic.
    `limits` has recorded every set point.
    Not thread-safe: the owner serializes the calls.
    """

    def __init__(
        self,
        world: RobotWorld,
        *,
        interpolate_from_desired_state: bool = True,
        allow_nonzero_velocity_at_trajectory_end: bool = False,
    ) -> None:
        self.world = world
        self._measured_start = not interpolate_from_desired_state
        start = dict(zip(world.joint_names, world.joint_positions(), strict=True))
        self.interfaces: dict[str, Interface] = {
            interface_name(command): _interface(
                command,
                world.embodiment,
                start,
                interpolate_from_desired_state=interpolate_from_desired_state,
                allow_nonzero_velocity_at_trajectory_end=allow_nonzero_velocity_at_trajectory_end,
            )
            for command in joint_commands(world.embodiment)
        }
        self._indices = {
            name: np.array([world.joint_names.index(j) for j in interface.joint_names])
            for name, interface in self.interfaces.items()
        }
        self._motors = {
            command.joint[: command.joint.rfind("/") + 1] + command.name: self.interfaces[command.topic]
            for command in joint_commands(world.embodiment)
            if isinstance(command, XsSingleCommand)
        }
        self._target = world.joint_positions().copy()
        limits = [world.embodiment.limits[name] for name in world.joint_names]
        self.limits = LimitMonitor(
            tuple(world.joint_names),
            np.array([limit.lower for limit in limits]),
            np.array([limit.upper for limit in limits]),
            np.array([limit.velocity for limit in limits]),
            world.timestep,
        )
        self._reset_at = world.time

    @property
    def time_ns(self) -> int:
        """Simulated time [ns]; it never goes back, not at a reset either."""
        return round(self.world.time * NANOSECONDS)

    @property
    def episode_time(self) -> float:
        """Simulated time since the last reset [s]."""
        return self.world.time - self._reset_at

    def command(self, controller: str, trajectory: JointTrajectory) -> None:
        """Pass a message to a trajectory controller; after TrajectoryRejected, nothing has changed."""
        self.interfaces[controller].accept(trajectory, self.time_ns)

    def command_positions(self, interface: str, values: Sequence[float]) -> None:
        """Pass values to an interface that takes positions; after PositionsRejected, nothing has changed."""
        self.interfaces[interface].accept(values)

    def advance(self, steps: int) -> None:
        """Run the controllers and the physics for `steps` physics steps."""
        for _ in range(steps):
            now_ns = self.time_ns
            for name, interface in self.interfaces.items():
                measured = self._measured(name) if self._measured_start else None
                self._target[self._indices[name]] = interface.update(now_ns, measured)
            self.limits.record(self._target)
            self.world.set_joint_target(self._target)
            self.world.step()

    def reset(self, seed: int) -> None:
        """Draw the scene of `seed` >= 0, put the robot at home; all interfaces forget their commands and hold there."""
        if seed < 0:
            raise ValueError(f"seed {seed} is negative; give one from 0 on")
        self.world.reset(seed)
        home = self.world.joint_positions()
        self._target[:] = home
        self.limits.forget_position()
        for name, interface in self.interfaces.items():
            interface.hold(home[self._indices[name]])
        self._reset_at = self.world.time

    def joints(self) -> JointReading:
        """All joints of the URDF that move: the commanded ones and those that mimic them.

        Those that follow have no motor of their own, so their effort is 0. A gripper motor that is commanded by its
        angle is reported, too, as xs_sdk does.
        """
        world = self.world
        names = list(world.joint_names)
        positions, velocities = world.joint_positions().tolist(), world.joint_velocities().tolist()
        efforts = world.joint_efforts().tolist()
        for follower in world.followers:
            leader = names.index(follower.leader)
            names.append(follower.name)
            positions.append(follower.multiplier * positions[leader] + follower.offset)
            velocities.append(follower.multiplier * velocities[leader])
            efforts.append(0.0)
        for name, motor in self._motors.items():
            finger = names.index(motor.joint_names[0])
            names.append(name)
            positions.append(motor.angle(positions[finger]))
            velocities.append(motor.angle(velocities[finger]) - motor.angle(0.0))
            efforts.append(0.0)
        return JointReading(tuple(names), positions, velocities, efforts)

    def _measured(self, interface: str) -> JointState:
        indices = self._indices[interface]
        return JointState(self.world.joint_positions()[indices], self.world.joint_velocities()[indices])


def joint_commands(embodiment: Embodiment) -> list[Command]:
    """The interfaces that move joints rather than the base."""
    return [command for command in embodiment.commands if not isinstance(command, BaseCommand)]


def interface_name(command: Command) -> str:
    """The name of an interface: that of the controller, or of the topic."""
    return getattr(command, "topic", command.backend).removesuffix("/joint_trajectory")


def _interface(command: Command, embodiment: Embodiment, start: dict[str, float], **options: bool) -> Interface:
    """The simulated counterpart of an entry of `commands`."""
    joints = command.commanded
    positions = [start[name] for name in joints]
    speeds = [embodiment.limits[name].velocity for name in joints]
    if isinstance(command, JointTrajectoryCommand):
        return JointTrajectoryController(joints, positions, **options)
    if isinstance(command, ForwardCommand | XsGroupCommand):
        return PositionInterface(joints, positions, speeds)
    if isinstance(command, XsSingleCommand):
        gripper = next(arm.gripper for arm in embodiment.arms if arm.gripper and arm.gripper.joint == command.joint)
        angles = (command.calibration.closed, command.calibration.open)
        return GripperMotor(command.joint, positions[0], speeds[0], angles, (gripper.closed, gripper.open))
    raise ValueError(
        f"{embodiment.name} commands {', '.join(joints)} through {command.backend}, which the simulator does not "
        "offer; it offers joint_trajectory, forward_command, xs_group and xs_single"
    )
