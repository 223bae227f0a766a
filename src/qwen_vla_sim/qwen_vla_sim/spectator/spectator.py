# SPDX-License-Identifier: Apache-2.0
"""A third-person view of a simulated robot for pictures and videos, with light and shadows of its own.

No policy sees it: the cameras of the robot, and their light, stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mujoco
import numpy as np

from qwen_vla_sim.robot_world import RobotWorld
from qwen_vla_sim.spectator.viewpoint import Viewpoint

FOVY = 32.0  # vertical field of view [deg]: a long lens, so that lines stay straight
AMBIENT, FILL, KEY = 0.45, 0.25, 0.60  # brightness of light from everywhere, from the camera, and of the lamp
KEY_DIRECTION = np.array([0.35, -0.25, -1.0])  # of the lamp, in the camera's heading: forward, left, up
SHADOWED = 0.6  # half the width in which there are shadows, as a share of the distance
SHADOW_MAP, SAMPLES = 4096, 8  # texels along a side, and samples of a pixel


class Spectator:
    """Watches a world from its `viewpoint`; belongs to the thread that first renders.

    Attributes:
        height, width: of its images [px].
    """

    def __init__(self, world: RobotWorld, height: int, width: int) -> None:
        self.height, self.width = height, width
        self._world = world
        with _quality(world):
            self._renderer = mujoco.Renderer(world.model, height, width)
        self._option = mujoco.MjvOption()

    def image(self) -> np.ndarray:
        """(height, width, 3) uint8 RGB of the world as it is."""
        model, renderer = self._world.model, self._renderer
        with _lens(model):
            renderer.update_scene(self._world.data, camera=self._camera(), scene_option=self._option)
        self._world.dress(renderer.scene)
        _light(renderer.scene, self._world.viewpoint())
        return renderer.render()

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, 2), column and row, of points (N, 3) in the world [m]; NaN for those behind the camera."""
        view = self._world.viewpoint()
        forward, right, up = view.axes()
        local = np.asarray(points) - (np.array(view.target) - view.distance * forward)
        depth = local @ forward
        focal = self.height / (2 * np.tan(np.radians(FOVY) / 2))
        with np.errstate(divide="ignore", invalid="ignore"):
            seen = np.stack([local @ right, -(local @ up)], axis=1) / depth[:, None] * focal
        seen[depth <= 0] = np.nan
        return seen + [self.width / 2, self.height / 2]

    def close(self) -> None:
        """Free the rendering context."""
        self._renderer.close()

    def _camera(self) -> mujoco.MjvCamera:
        view, camera = self._world.viewpoint(), mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.lookat[:], camera.distance = view.target, view.distance
        camera.azimuth, camera.elevation = view.azimuth, view.elevation
        return camera


@contextmanager
def _quality(world: RobotWorld) -> Iterator[None]:
    """Shadows and smooth edges for the rendering context that is made inside; those of the robot's cameras stay."""
    quality, scale = world.model.vis.quality, world.model.vis.map
    before = quality.shadowsize, quality.offsamples, scale.shadowclip
    quality.shadowsize, quality.offsamples = SHADOW_MAP, SAMPLES
    scale.shadowclip = SHADOWED * world.viewpoint().distance / world.model.stat.extent
    try:
        yield
    finally:
        quality.shadowsize, quality.offsamples, scale.shadowclip = before


@contextmanager
def _lens(model: mujoco.MjModel) -> Iterator[None]:
    """The field of view of a free camera, which is an option of the model."""
    before = model.vis.global_.fovy
    model.vis.global_.fovy = FOVY
    try:
        yield
    finally:
        model.vis.global_.fovy = before


def _light(scene: mujoco.MjvScene, view: Viewpoint) -> None:
    """Replace the lights of a scene: a lamp that casts shadows, and weaker light from the camera and everywhere."""
    fill, lamp = scene.lights[0], scene.lights[1]
    forward, right, _ = view.axes()
    ahead = np.append(forward[:2] / np.linalg.norm(forward[:2]), 0.0)
    direction = KEY_DIRECTION @ np.stack([ahead, -right, [0.0, 0.0, 1.0]])
    lamp.dir[:] = direction / np.linalg.norm(direction)
    lamp.pos[:] = np.array(view.target) - view.distance * lamp.dir
    fill.dir[:], fill.pos[:] = forward, np.array(view.target) - view.distance * forward
    for light in (fill, lamp):
        light.type, light.texid = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, -1
        light.headlight, light.castshadow = light is fill, light is lamp
        light.ambient[:], light.specular[:] = 0.0, 0.0
    fill.ambient[:], fill.diffuse[:], lamp.diffuse[:] = AMBIENT, FILL, KEY
    scene.nlight = 2
    scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 1
