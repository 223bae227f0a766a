# SPDX-License-Identifier: Apache-2.0
"""A robot's joints with the interfaces that command them: what hardware and ros2_control are together, without ROS.

Set points are sampled at every physics step, as a servo interpolates between the commands of a slower controller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embodiment_descriptions.commands import CommandInterface, make_part
from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_sim.controllers.command_limiter import CommandLimiter
from qwen_vla_sim.controllers.hardware import Hardware
from qwen_vla_sim.controllers.joint_trajectory_controller import JointState
from qwen_vla_sim.controllers.limit_monitor import LimitMonitor
from qwen_vla_sim.controllers.stand_ins import Controller, StandIn
from qwen_vla_sim.robot_world import RobotWorld

LIMITS = ("lower", "upper", "velocity")
LISTENS = ("topic", "message_type", "streams", "take")  # what every stand-in has, also that of a base


@dataclass(frozen=True)
class JointReading:
    """What the joints report: positions [rad, m], velocities [rad/s, m/s], efforts [Nm, N], each (joints,)."""

    names: tuple[str, ...]
    positions: list[float]
    velocities: list[float]
    efforts: list[float]


class SimulatedRobot:
    """A world driven through the interfaces that the embodiment names in `commands`.

    `stand_ins` holds what listens there by name: a trajectory controller by that of the controller, others by that of
    the topic; `interfaces` the controllers of those that move joints. `limiter` is between them and `hardware`,
    switched off: no description of ours has it limit positions. `hardware` may fail. `limits` has seen every set point
    that reached the servos. `inactive` are the interfaces whose controller is not active: it ignores messages, and its
    set points do not change.
    Not safe for use from several threads at once: the owner serializes the calls.
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
        parameters = {
            "interpolate_from_desired_state": interpolate_from_desired_state,
            "allow_nonzero_velocity_at_trajectory_end": allow_nonzero_velocity_at_trajectory_end,
            "period_ns": round(world.timestep * NANOSECONDS),
        }
        commands = world.embodiment.commands
        of_joints = {interface_name(c): self._of_joints(c, parameters) for c in commands if not c.moves_base}
        of_base = [self._of_base(command) for command in commands if command.moves_base]
        self.stand_ins = of_joints | {stand_in.topic: stand_in for stand_in in of_base}
        self.interfaces: dict[str, Controller] = {name: one.controller for name, one in of_joints.items()}
        self._indices = {
            name: np.array([world.joint_names.index(j) for j in interface.joint_names])
            for name, interface in self.interfaces.items()
        }
        self._motors = {name: motor for one in of_joints.values() for name, motor in one.motors.items()}
        self._target = world.joint_positions().copy()
        self.hardware = Hardware(tuple(world.joint_names), self._target, world.timestep)
        self.inactive: set[str] = set()
        found = [world.embodiment.limits[name] for name in world.joint_names]
        lower, upper, speed = (np.array([getattr(limit, side) for limit in found]) for side in LIMITS)
        self.limiter = CommandLimiter(lower, upper, speed, world.timestep)
        self.limits = LimitMonitor(tuple(world.joint_names), lower, upper, speed, world.timestep)
        self._reset_at = world.time

    @property
    def time_ns(self) -> int:
        """Simulated time [ns]; it never goes back, not at a reset either."""
        return round(self.world.time * NANOSECONDS)

    @property
    def episode_time(self) -> float:
        """Simulated time since the last reset [s]."""
        return self.world.time - self._reset_at

    def command(self, interface: str, message: Any) -> None:
        """Hand a message to an interface; raises CommandRejected, and then nothing has changed."""
        if interface not in self.inactive:
            self.stand_ins[interface].take(message, self.time_ns)

    def advance(self, steps: int) -> None:
        """Run the controllers and the physics for `steps` physics steps."""
        for _ in range(steps):
            now_ns = self.time_ns
            for name, interface in self.interfaces.items():
                if name in self.inactive:
                    continue
                measured = self._measured(name) if self._measured_start else None
                self._target[self._indices[name]] = interface.update(now_ns, measured)
            goals = self.hardware.goals(self.limiter.limited(self._target))
            self.limits.record(goals, self.hardware.limp, self.hardware.catching_up)
            self.world.set_joint_target(goals)
            self.world.step()
        if self.limiter.on:
            self._end_controllers_of_joints_outside()

    def set_limited(self, on: bool) -> None:
        """Have a limiter between controllers and servos, or none."""
        self.limiter.switch(self._target if on else None)

    def _end_controllers_of_joints_outside(self) -> None:
        outside = self.limiter.outside(self.world.joint_positions() + self.hardware.offsets)
        self.inactive |= {name for name, indices in self._indices.items() if outside[indices].any()}

    def set_active(self, interface: str, active: bool) -> None:
        """Activate or deactivate a controller; it begins where the joints are measured.

        ValueError lists the controllers that there are.
        """
        if interface not in self.interfaces:
            raise ValueError(f"there is no controller '{interface}'; there are: {', '.join(self.interfaces)}")
        if not active:
            self.inactive.add(interface)
        elif interface in self.inactive:
            self.inactive.remove(interface)
            self.interfaces[interface].hold(self._measured(interface).positions)
            offsets = np.where(self.hardware.limp, 0.0, self.hardware.offsets)
            self.limits.continue_from(self.world.joint_positions(), offsets, self._indices[interface])

    def reset(self, seed: int) -> None:
        """Draw the scene of `seed` >= 0, put the robot at home, repaired; all interfaces hold there."""
        if seed < 0:
            raise ValueError(f"seed {seed} is negative; give one from 0 on")
        self.world.reset(seed)
        home = self.world.joint_positions()
        self._target[:] = home
        self.hardware.reset(home)
        self.inactive.clear()
        self.limiter.switch(None)
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
        positions = (world.joint_positions() + self.hardware.offsets).tolist()
        velocities = world.joint_velocities().tolist()
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

    def _of_joints(self, command: CommandInterface, parameters: dict[str, int]) -> StandIn:
        start = dict(zip(self.world.joint_names, self.world.joint_positions(), strict=True))
        positions = [start[name] for name in command.commanded]
        offered = (*LISTENS, "controller", "motors")
        return make_part(command, "simulated", offered, command, self.world.embodiment, positions, **parameters)

    def _of_base(self, command: CommandInterface) -> Any:
        raise ValueError(f"command interface {command.backend!r} drives a base, and this simulator has none")

    def _measured(self, interface: str) -> JointState:
        indices = self._indices[interface]
        positions = self.world.joint_positions() + self.hardware.offsets
        return JointState(positions[indices], self.world.joint_velocities()[indices])


def interface_name(command: CommandInterface) -> str:
    """What an interface of joints is called here: the controller's name, or the topic."""
    return command.endpoint.removesuffix("/joint_trajectory")
