# SPDX-License-Identifier: Apache-2.0
"""Room and hall as a gymnasium environment: waypoints in, camera image and odometry out, at 2 Hz.

Waypoints are executed as by the executor's base backend: a smooth path through them, followed by odometry, and
velocities for the diff-drive controller with its limits.
"""

from __future__ import annotations

import gymnasium
import numpy as np

from embodiment_descriptions import resource_path
from qwen_vla_control.motion.base_follower import BaseFollower
from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_sim.controllers.diff_drive import DiffDriveParameters
from qwen_vla_sim.mobile_base.simulated_base import SimulatedBase
from qwen_vla_sim.mobile_base.world import MobileBaseWorld
from qwen_vla_sim.world_env import WorldEnv

CONTROLLERS = "config/controllers/mobile_base.yaml"
ODOMETRY = "odom"  # frame of the observed poses
COMMAND_PERIOD = 0.02  # [s] between two velocity commands: the executor's rate


class MobileBaseEnv(WorldEnv[MobileBaseWorld]):
    """Drive where the instruction says, and stop there.

    Action: (6,) a waypoint in the odometry frame, x y [m] theta [rad], to be reached at the end of the step (0.5 s),
    and the velocity there [m/s, m/s, rad/s]. After a waypoint at rest the next path starts at the measured pose,
    otherwise at the last waypoint.
    Observation: {"images": {"ego": 240×320×3 uint8}, "pose": (3,) from odometry, which starts at 0}; info: fields of
    TaskState, true_pose in the frame of the scene.
    Reward 1 on success. `render_size=None` leaves the camera off (images are empty).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(self, world: MobileBaseWorld, render_size: tuple[int, int] | None, max_steps: int) -> None:
        super().__init__(world, render_size, max_steps)
        parameters = DiffDriveParameters.from_controllers_file(resource_path(CONTROLLERS))
        self._robot = SimulatedBase(self.world, parameters)
        self._limits = self._robot.velocity_limits
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (6,))
        self.observation_space = gymnasium.spaces.Dict(
            {
                "images": self._image_space(),
                "pose": gymnasium.spaces.Box(-np.inf, np.inf, (3,)),
            }
        )
        self.reset(seed=0)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Scene of `seed`; options {"pose": (x, y, heading)} starts the base at another pose of the scene."""
        super().reset(seed=seed)
        self._robot.reset(self._scene_seed(seed))
        if options and "pose" in options:
            self.world.place(np.asarray(options["pose"], float))
        self._follower = BaseFollower(self._limits, omnidirectional=False)
        self._waypoint: np.ndarray | None = None
        self.steps = 0
        return self._observe(), self._info()

    def step(self, action: np.ndarray):
        waypoint = np.asarray(action, float)
        start = np.append(self._robot.drive.pose, np.zeros(3)) if self._waypoint is None else self._waypoint
        knots = np.stack([start, waypoint])
        self._follow(BasePath(ODOMETRY, self.period, knots[:, :3], knots[:, 3:]))
        self._waypoint = waypoint if waypoint[3:].any() else None
        return self._stepped()

    def _follow(self, path: BasePath) -> None:
        start, physics = self._robot.time_ns, round(COMMAND_PERIOD / self.world.timestep)
        for _ in range(round(path.duration / COMMAND_PERIOD)):
            now = self._robot.time_ns
            linear, _, angular = self._follower.velocity(path, start, now, self._robot.drive.pose)
            self._robot.command_velocity(linear, angular)
            self._robot.advance(physics)

    def _observe(self) -> dict:
        return {"images": self._images(), "pose": self._robot.drive.pose.astype(np.float32)}

    def _info(self) -> dict:
        return {**super()._info(), "true_pose": self.world.pose.copy()}
