"""What a task on the WidowX's table, its judge and its expert depend on: where things are, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_vla_sim.widowx.scene import Scene

LIFTED_ONCE = 0.015  # [m] above where it lay: has been in the gripper


@dataclass(frozen=True)
class Situation:
    """The table now, and since the scene began; things (N) in the order of the scene.

    Attributes:
        tip: (3,) of the gripper in base_link [m].
        gripper: measured, 0 closed … 1 open.
        positions: (N, 3) origins in base_link [m].
        speeds: (N,) [m/s].
        touched: (N,) by the robot, now.
        lifted: (N,) have been off the ground once.
        moved: (N,) distance from where they lay [m].
        nearest: least distance of the tip from the target so far [m].
    """

    scene: Scene
    tip: np.ndarray
    gripper: float
    positions: np.ndarray
    speeds: np.ndarray
    touched: np.ndarray
    lifted: np.ndarray
    moved: np.ndarray
    nearest: float

    @property
    def grip(self) -> np.ndarray:
        """(3,) where the tip is when it holds the target [m]."""
        return self.positions[self.scene.target] + [0, 0, self.scene.named.design.grip]

    @property
    def lift(self) -> float:
        """Of the target above its height at rest on the table [m]."""
        return float(self.positions[self.scene.target][2] - self.scene.named.design.rest)
