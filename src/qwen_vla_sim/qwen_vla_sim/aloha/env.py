# SPDX-License-Identifier: Apache-2.0
"""The bimanual tasks as a gymnasium environment: joint targets in, camera images and joint positions out, at 50 Hz.

No policy needs fifty images a second of four cameras: cameras take one every fifth step, as the real ones do; in
between, an observation has the last one, the same array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from qwen_vla_sim.aloha.world import AlohaWorld
from qwen_vla_sim.world_env import WorldEnv

IMAGE_STEPS = 5  # control steps from one image to the next


class AlohaEnv(WorldEnv[AlohaWorld]):
    """Follow the instruction with both arms.

    Action: (14,) joint targets in the order of the embodiment's `joint_names` [rad; the last two, left fingers, m],
    reached at the end of the step (0.02 s).
    Observation: {"images": {tag: H x W x 3 uint8}, "joints": (14,) measured, "command": (14,) last command}.
    Reward 1 on success. `render_size` None leaves the cameras off (images are empty).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}

    def __init__(self, world: AlohaWorld, render_size: tuple[int, int] | None, max_steps: int) -> None:
        super().__init__(world, render_size, max_steps)
        self.fresh = False
        low, high = self._action_limits = self._joint_limits()
        self.action_space = gymnasium.spaces.Box(low, high)
        joints = gymnasium.spaces.Box(low - 0.1, high + 0.1)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "images": self._image_space(),
                "joints": joints,
                "command": joints,
            }
        )

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[dict, dict]:
        """Scene of `seed`; options {"joints": (14,)} starts the arms in another pose than home."""
        super().reset(seed=seed)
        self.world.reset(self._scene_seed(seed))
        if options and "joints" in options:
            self.world.place_arm(options["joints"])
        return self.begin(self.world.joint_positions().copy())

    def begin(self, command: np.ndarray) -> tuple[dict, dict]:
        """Start the episode with the world as it is and `command` (14,) as the last command."""
        self._command = np.asarray(command, float)
        self.steps = 0
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        command = np.clip(np.asarray(action, float), *self._action_limits)
        halves = round(self.period / self.world.timestep / 2)
        for target in ((self._command + command) / 2, command):
            self.world.set_joint_target(target)
            self.world.step(halves)
        self._command = command
        return self._stepped()

    def _observe(self) -> dict:
        self.fresh = self.steps % IMAGE_STEPS == 0
        if self.fresh:
            self._last_images = self._images()
        return {
            "images": self._last_images,
            "joints": self.world.joint_positions().astype(np.float32),
            "command": self._command.astype(np.float32),
        }
