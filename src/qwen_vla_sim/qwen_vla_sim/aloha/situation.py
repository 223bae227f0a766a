# SPDX-License-Identifier: Apache-2.0
"""The state on which a bimanual task and its expert depend: poses of things and hands, and contacts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_vla_sim.aloha.scene import Scene


@dataclass(frozen=True)
class Hand:
    """State of a hand.

    Attributes:
        pose: 4x4, base_link; x along the fingers, y across them; its origin between the finger pads.
        opening: 0 closed .. 1 open.
        touched: for each thing of the scene, the number of fingers (of two) that touch it.
    """

    pose: np.ndarray
    opening: float
    touched: tuple[int, ...]

    @property
    def position(self) -> np.ndarray:
        return self.pose[:3, 3]


@dataclass(frozen=True)
class Situation:
    """The state on which task and expert depend.

    Attributes:
        poses: (things, 4, 4) of the things, base_link.
        on_table: for each thing, whether it touches the table.
        left, right: the hands.
        pin: whether the named peg touches the pin in the socket.
    """

    scene: Scene
    poses: np.ndarray
    on_table: tuple[bool, ...]
    left: Hand
    right: Hand
    pin: bool

    @property
    def target(self) -> np.ndarray:
        """4x4 pose of the thing that the instruction names."""
        return self.poses[self.scene.target]
