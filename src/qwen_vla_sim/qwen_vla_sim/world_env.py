# SPDX-License-Identifier: Apache-2.0
"""What the gymnasium environments of all robots share: a world with a task, its cameras, and when an episode ends."""

from __future__ import annotations

from typing import Generic, TypeVar

import gymnasium
import numpy as np

from qwen_vla_sim.robot_world import RobotWorld
from qwen_vla_sim.spectator.spectator import Spectator

World = TypeVar("World", bound=RobotWorld)


class WorldEnv(gymnasium.Env[dict, np.ndarray], Generic[World]):
    """A world in control steps; the environment of a robot defines actions and observations.

    Attributes:
        steps: control steps since the reset.
        period: duration of a control step [s].
        render_size: (height, width) of the images; while None, the cameras are off and images are empty.
    """

    def __init__(self, world: World, render_size: tuple[int, int] | None, max_steps: int) -> None:
        self.world, self.render_size, self.max_steps = world, render_size, max_steps
        self.period = world.embodiment.period
        self.steps = 0

    def render(self) -> np.ndarray:
        return self.world.render("ego", *(self.render_size or (240, 320)))

    def close(self) -> None:
        self.world.close()

    def show(self, positions: np.ndarray) -> None:
        """Put everything where it is by MuJoCo's `qpos` (nq,), for pictures of a recorded episode of the same scene."""
        self.world.show(positions)

    def spectator(self, height: int, width: int) -> Spectator:
        """A spectator of the world, whose images have that size [px]; close it before the environment."""
        return Spectator(self.world, height, width)

    def _image_space(self) -> gymnasium.spaces.Dict:
        """The space of the images by camera, with the initial render size."""
        image = gymnasium.spaces.Box(0, 255, (*(self.render_size or (0, 0)), 3), np.uint8)
        return gymnasium.spaces.Dict(dict.fromkeys(self.world.cameras if self.render_size else (), image))

    def _joint_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper limits (joints,) [rad | m] in the order of the world."""
        limits = [self.world.embodiment.limits[name] for name in self.world.joint_names]
        lower, upper = [limit.lower for limit in limits], [limit.upper for limit in limits]
        return np.array(lower, np.float32), np.array(upper, np.float32)

    def _scene_seed(self, seed: int | None) -> int:
        """The given seed, or one that follows from the previous one."""
        return int(self.np_random.integers(2**31)) if seed is None else seed

    def _images(self) -> dict[str, np.ndarray]:
        """The current images of all cameras; empty if they are off."""
        return (
            {tag: self.world.render(tag, *self.render_size) for tag in self.world.cameras} if self.render_size else {}
        )

    def _stepped(self) -> tuple[dict, float, bool, bool, dict]:
        """Count an executed control step and return the result of `step`."""
        self.steps += 1
        info = self._info()
        return self._observe(), float(info["success"]), info["success"], self.steps >= self.max_steps, info

    def _observe(self) -> dict:
        raise NotImplementedError

    def _info(self) -> dict:
        return dict(vars(self.world.task_state()))
