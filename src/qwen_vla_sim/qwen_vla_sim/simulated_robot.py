"""The arm with its two controllers: what the hardware and ros2_control are together, without ROS.

Set points are sampled at every physics step, as a servo interpolates between the commands of a slower controller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qwen_vla_sim.joint_trajectory_controller import (
    NANOSECONDS,
    JointState,
    JointTrajectory,
    JointTrajectoryController,
)
from qwen_vla_sim.world import WidowXWorld


@dataclass(frozen=True)
class JointReading:
    """What the joints report: positions [rad, m], velocities [rad/s, m/s], efforts [Nm, N], each (joints,)."""

    names: tuple[str, ...]
    positions: list[float]
    velocities: list[float]
    efforts: list[float]


class SimulatedRobot:
    """A WidowXWorld driven by `arm_controller` (six joints) and `gripper_controller` (left_finger).

    Not safe for use from several threads at once: the owner serialises the calls.
    """

    def __init__(
        self,
        world: WidowXWorld,
        *,
        interpolate_from_desired_state: bool = True,
        allow_nonzero_velocity_at_trajectory_end: bool = False,
    ) -> None:
        self.world = world
        self._measured_start = not interpolate_from_desired_state
        arm = world.embodiment.arms[0]
        groups = {"arm_controller": tuple(arm.joints), "gripper_controller": (arm.gripper.joint,)}
        self._indices = {
            name: np.array([world.joint_names.index(j) for j in joints]) for name, joints in groups.items()
        }
        start = world.joint_positions()
        self.controllers: Mapping[str, JointTrajectoryController] = {
            name: JointTrajectoryController(
                joints,
                start[self._indices[name]],
                interpolate_from_desired_state=interpolate_from_desired_state,
                allow_nonzero_velocity_at_trajectory_end=allow_nonzero_velocity_at_trajectory_end,
            )
            for name, joints in groups.items()
        }
        self._target = start.copy()
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
        """Hand a message to a controller; raises TrajectoryRejected, and then nothing has changed."""
        self.controllers[controller].accept(trajectory, self.time_ns)

    def advance(self, steps: int) -> None:
        """Run the controllers and the physics for `steps` physics steps."""
        for _ in range(steps):
            now_ns = self.time_ns
            for name, controller in self.controllers.items():
                measured = self._measured(name) if self._measured_start else None
                self._target[self._indices[name]] = controller.update(now_ns, measured)
            self.world.set_joint_target(self._target)
            self.world.step()

    def reset(self, seed: int) -> None:
        """Draw the scene of `seed` >= 0, put the arm at home; both controllers forget their messages and hold there."""
        if seed < 0:
            raise ValueError(f"seed {seed} is negative; give one from 0 on")
        self.world.reset(seed)
        home = self.world.joint_positions()
        self._target[:] = home
        for name, controller in self.controllers.items():
            controller.hold(home[self._indices[name]])
        self._reset_at = self.world.time

    def joints(self) -> JointReading:
        """All joints of the URDF that move: the world's own and right_finger, which mirrors left_finger.

        right_finger has no motor of its own, so its effort is 0.
        """
        world = self.world
        names = (*world.joint_names, "right_finger")
        left = world.joint_names.index("left_finger")
        positions, velocities = world.joint_positions().tolist(), world.joint_velocities().tolist()
        efforts = [*world.joint_efforts().tolist(), 0.0]
        return JointReading(names, [*positions, -positions[left]], [*velocities, -velocities[left]], efforts)

    def _measured(self, controller: str) -> JointState:
        indices = self._indices[controller]
        return JointState(self.world.joint_positions()[indices], self.world.joint_velocities()[indices])
