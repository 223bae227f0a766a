# SPDX-License-Identifier: Apache-2.0
"""Room and hall as a spectator sees them from above: walls cut low, and nothing beyond the outer walls."""

from __future__ import annotations

import mujoco
import numpy as np

from qwen_vla_sim.mobile_base.scene import WALL, Scene, in_hall, space
from qwen_vla_sim.spectator.viewpoint import Viewpoint

CUT = 0.35  # [m] height at which walls and door frame are cut
AZIMUTH, ELEVATION = 25.0, -48.0  # [deg] of a spectator
NEAREST, MARGIN = 3.2, 1.3  # [m] least distance of a spectator; seen around start and goal
SPREAD = 1.7  # distance of a spectator per meter that it has to see


def view_of(scene: Scene) -> Viewpoint:
    """The view of a scene in which its start, its goal, and the door on the way are."""
    places = [np.array(scene.start[:2])]
    if scene.target is None or in_hall(scene.things[scene.target]) != (scene.start[0] > 0):
        places.append(np.array([0.0, scene.door]))
    if scene.target is not None:
        places.append(np.array([scene.things[scene.target].x, scene.things[scene.target].y]))
    low, high = np.min(places, axis=0), np.max(places, axis=0)
    x, y = (low + high) / 2
    distance = max(NEAREST, SPREAD * (float(np.max(high - low)) + MARGIN))
    return Viewpoint((float(x), float(y), 0.1), distance, AZIMUTH, ELEVATION)


def cut_walls(drawn: mujoco.MjvScene, model: mujoco.MjModel, scene: Scene) -> None:
    """Trim the boxes of walls and floors in a rendered scene."""
    for geom in drawn.geoms[: drawn.ngeom]:
        if geom.objtype != mujoco.mjtObj.mjOBJ_GEOM:
            continue
        name = model.geom(geom.objid).name
        part = name.partition(" ")[0]
        if part in ("room", "hall", "left", "right", "lintel"):
            _trim(geom, *_bounds(scene, part))


def _bounds(scene: Scene, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner (3,) [m] of what is drawn of a part: the room, the hall, or the frame of the door."""
    if part not in ("room", "hall"):
        return np.array([-1.0, -np.inf, 0.0]), np.array([1.0, np.inf, CUT + 0.05])
    low, high = space(scene, part == "hall")
    low, high = low - WALL, high + WALL
    if part == "hall":
        low[0] = 0.0
    else:
        high[0] = 0.0
    return np.append(low, -np.inf), np.append(high, CUT)


def _trim(geom: mujoco.MjvGeom, low: np.ndarray, high: np.ndarray) -> None:
    """Cut an axis-aligned box to its part between two corners; nothing of it is left if it is outside."""
    center, half = np.array(geom.pos, float), np.array(geom.size, float)
    low, high = np.maximum(center - half, low), np.minimum(center + half, high)
    geom.pos[:], geom.size[:] = (low + high) / 2, np.maximum((high - low) / 2, 0.0)
