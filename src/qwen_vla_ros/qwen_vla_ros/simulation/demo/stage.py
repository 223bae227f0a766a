# SPDX-License-Identifier: Apache-2.0
"""The scene of a recorded episode, set up again in the simulator so that a spectator can look at it."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from qwen_vla.suites import load_suite
from qwen_vla_ros.drawing.chunk_geometry import planar_pose
from qwen_vla_ros.simulation.demo.geometry import Situation
from qwen_vla_ros.simulation.demo.paths import PREDICTED, REFUSED, draw_line
from qwen_vla_ros.simulation.demo.recording import Moment, Recording


class Stage:
    """Draws the moments of one episode as a spectator sees them."""

    def __init__(self, recording: Recording, seed: int, height: int, width: int) -> None:
        """Set up the scene of `seed`; images have that size [px]."""
        self._positions = recording.positions
        self._env = load_suite(recording.suite).make_env(cameras=False)
        _, info = self._env.reset(seed=seed)
        # Odometry begins where the base starts; an arm's paths are in the frame of the world.
        self._origin = planar_pose(*info["true_pose"]) if recording.robot.base else np.eye(4)
        self._spectator = self._env.spectator(height, width)

    def draw(self, moment: Moment, situation: Situation) -> np.ndarray:
        """(height, width, 3) uint8 RGB with the paths of the latest chunk; what is not known is as it was before."""
        positions = self._positions.get(moment.stamp_ns)
        if positions is not None:
            self._env.show(positions)
        image = self._spectator.image().copy()
        for points in situation.paths.values():
            inside = points @ self._origin[:3, :3].T + self._origin[:3, 3]
            draw_line(image, self._spectator.project(inside), REFUSED if moment.refusal else PREDICTED)
        return image

    def close(self) -> None:
        """Free what it renders with."""
        with closing(self._env), closing(self._spectator):
            pass
