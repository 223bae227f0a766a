# SPDX-License-Identifier: Apache-2.0
"""The state on which a task on the WidowX's table, its judge and its expert depend: things, tip, and their history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_vla_sim.widowx.scene import Scene

LIFTED_ONCE = 0.015  # [m] above its initial position: has been in the gripper


@dataclass(frozen=True)
class Situation:
    """The current state of the table and its history in this scene; things (N) in the order of the scene.

    Attributes:
        tip: (3,) of the gripper in base_link [m].
        gripper: measured, 0 closed … 1 open.
        positions: (N, 3) origins in base_link [m].
        speeds: (N,) [m/s].
        touched: (N,) whether the robot touches them.
        lifted: (N,) whether they have been lifted so far.
        moved: (N,) distance from their initial positions [m].
        nearest: smallest distance of the tip from the target so far [m].
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
        """(3,) the tip's position when it holds the target [m]."""
        return self.positions[self.scene.target] + [0, 0, self.scene.named.design.grip]

    @property
    def lift(self) -> float:
        """Height of the target above its height at rest on the table [m]."""
        return float(self.positions[self.scene.target][2] - self.scene.named.design.rest)
