# SPDX-License-Identifier: Apache-2.0
"""Samples whose prompt names a different robot than the one in the images: there the robot must hold still.

In all other samples prompt and images match, so a model could identify robots by the images alone, and would move a
robot even if the prompt names another.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from embodiment_descriptions import ControlMode, known_robots, load_robot
from qwen_vla.model.checkpoint.embodiment_info import EmbodimentInfo


class MismatchedPrompts:
    """Draws prompts of the suite's other robots for a share of the samples of one robot."""

    def __init__(self, robot: str, share: float) -> None:
        self.share = share
        names = [name for name in known_robots() if name != robot] if share else []
        self._templates = [load_robot(name).prompt("{instruction}") for name in names]

    @property
    def robots(self) -> int:
        """Number of other robots that a prompt may name."""
        return len(self._templates)

    def of(self, tasks: Iterable[str]) -> list[str]:
        """All prompts for these tasks: those of the first task, one per robot, and so on."""
        return [template.replace("{instruction}", task) for task in tasks for template in self._templates]

    def draw(self, task: str, rng: np.random.Generator) -> str | None:
        """Another robot's prompt for the task, or None for the robot's own."""
        if not self._templates or rng.random() >= self.share:
            return None
        return self._templates[rng.integers(len(self._templates))].replace("{instruction}", task)


def zeros_hold(info: EmbodimentInfo) -> bool:
    """Whether zeros mean "hold" in the robot's channels, except grippers."""
    return info.control_mode is not ControlMode.JOINT_POSITION or info.relative_actions


def hold_chunk(chunk: np.ndarray, info: EmbodimentInfo) -> np.ndarray:
    """(steps, channels) the chunk that holds the robot, physical units; grippers keep the chunk's first command."""
    row = np.zeros(len(info.channel_names))
    row[info.layout.grippers] = chunk[0, info.layout.grippers]
    return np.tile(row, (len(chunk), 1))
