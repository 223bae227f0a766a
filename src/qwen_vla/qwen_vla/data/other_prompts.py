"""Samples whose prompt names another robot than the pictures show: there the robot is to stay where it is.

In every other sample prompt and pictures agree, so a model could tell robots apart by the pictures alone, and would
move one that it was told is another.
"""

from __future__ import annotations

import numpy as np

from embodiment_descriptions import ControlMode, known_robots, load_robot
from qwen_vla.processing import EmbodimentInfo


class OtherPrompts:
    """Draws prompts of the suite's other robots for a share of the samples of one robot."""

    def __init__(self, robot: str, share: float) -> None:
        self.share = share
        names = [name for name in known_robots() if name != robot] if share else []
        self._templates = [load_robot(name).prompt("{instruction}") for name in names]

    def draw(self, task: str, rng: np.random.Generator) -> str | None:
        """Another robot's prompt for the task, or None when it is to be the robot's own."""
        if not self._templates or rng.random() >= self.share:
            return None
        return self._templates[rng.integers(len(self._templates))].replace("{instruction}", task)


def stays(info: EmbodimentInfo) -> bool:
    """Whether zeros mean "stay" in the robot's channels, grippers aside."""
    return info.control_mode is not ControlMode.JOINT_POSITION or info.relative_actions


def still(chunk: np.ndarray, info: EmbodimentInfo) -> np.ndarray:
    """(steps, channels) the chunk of a robot that stays, physical units; grippers keep the chunk's first command."""
    row = np.zeros(len(info.channel_names))
    row[info.layout.grippers] = chunk[0, info.layout.grippers]
    return np.tile(row, (len(chunk), 1))
