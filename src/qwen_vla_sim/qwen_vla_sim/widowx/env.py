# SPDX-License-Identifier: Apache-2.0
"""The WidowX tabletop as a gymnasium environment: joint targets in, camera images and joint positions out, at 5 Hz.

Within a step the targets are interpolated linearly, as the JointTrajectoryController does with positions only.
"""

from __future__ import annotations

import gymnasium
import numpy as np

from qwen_vla_sim.widowx.world import WidowXWorld
from qwen_vla_sim.world_env import WorldEnv

SETPOINT_PERIOD = 0.01  # [s] between interpolated set points: the controller's 100 Hz


class WidowXEnv(WorldEnv[WidowXWorld]):
    """Follow the instruction.

    Action: (7,) joint targets [rad; last: left_finger, m] reached at the end of the step (0.2 s).
    Observation: {"images": {tag: 240×320×3 uint8}, "joints": (7,) measured, "command": (7,) last command}; info:
    fields of TaskState, tip pose.
    Reward 1 on success. `render_size=None` leaves the cameras off (images are empty).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(self, world: WidowXWorld, render_size: tuple[int, int] | None, max_steps: int) -> None:
        super().__init__(world, render_size, max_steps)
        low, high = self._action_limits = self._joint_limits()
        self.action_space = gymnasium.spaces.Box(low, high)
        joints = gymnasium.spaces.Box(low - 0.1, high + 0.1)
        spaces = {"images": self._image_space(), "joints": joints, "command": joints}
        self.observation_space = gymnasium.spaces.Dict(spaces)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Scene of `seed`; options are the fields of a `Start`: other joints than home, or the target moved."""
        super().reset(seed=seed)
        self.world.reset(self._scene_seed(seed))
        options = options or {}
        if options.get("target"):
            self.world.move_target(*options["target"])
        if "joints" in options:
            place = self.world.put_into_gripper if options.get("holding") else self.world.place_arm
            place(options["joints"])
        self._command = self.world.joint_positions().copy()
        if options.get("holding"):
            self._command[-1] = self.world.closed_gripper
        self.steps = 0
        return self._observe(), self._info()

    def step(self, action: np.ndarray):
        command = np.clip(np.asarray(action, float), *self._action_limits)
        substeps = round(SETPOINT_PERIOD / self.world.timestep)
        count = round(self.period / SETPOINT_PERIOD)
        for i in range(1, count + 1):
            self.world.set_joint_target(self._command + (command - self._command) * (i / count))
            self.world.step(substeps)
        self._command = command
        return self._stepped()

    def _observe(self) -> dict:
        return {
            "images": self._images(),
            "joints": self.world.joint_positions().astype(np.float32),
            "command": self._command.astype(np.float32),
        }

    def _info(self) -> dict:
        return {**super()._info(), "tip_pose": self.world.tip_pose()}
