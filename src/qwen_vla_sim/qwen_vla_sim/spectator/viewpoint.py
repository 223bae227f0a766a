# SPDX-License-Identifier: Apache-2.0
"""Where a spectator of a simulated robot stands, and the floor that it sees below a robot that has none."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

GROUND_RGBA = (0.80, 0.82, 0.85, 1.0)
GROUND_EXTENT = 30.0  # [m] half a side


@dataclass(frozen=True)
class Viewpoint:
    """Where a spectator stands: it looks at `target` [m, world] from `distance` [m].

    Attributes:
        azimuth: its heading [deg] about z; 0 looks along x.
        elevation: the pitch of its gaze [deg]; negative looks down.
    """

    target: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float

    def axes(self) -> np.ndarray:
        """(3, 3) unit vectors in rows: forward, right and up in the image."""
        a, e = np.radians([self.azimuth, self.elevation])
        forward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
        right = np.array([np.sin(a), -np.cos(a), 0.0])
        return np.stack([forward, right, np.cross(right, forward)])


def add_ground(scene: mujoco.MjvScene, height: float) -> None:
    """Add a light floor at `height` [m] to a rendered scene; it has no physics."""
    ground = scene.geoms[scene.ngeom]
    size, position = np.array([GROUND_EXTENT, GROUND_EXTENT, 0.01]), np.array([0.0, 0.0, height])
    kind, upright = mujoco.mjtGeom.mjGEOM_PLANE, np.eye(3).reshape(-1)
    mujoco.mjv_initGeom(ground, kind, size, position, upright, np.array(GROUND_RGBA, np.float32))
    scene.ngeom += 1
