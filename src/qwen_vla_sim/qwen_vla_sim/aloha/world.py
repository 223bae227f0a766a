"""ALOHA in MuJoCo: two arms at their table, seen by the cameras of the station and of the wrists. There is no task yet:
the cubes on the table are there to be seen and pushed.
"""

from __future__ import annotations

import mujoco
import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_sim.robot_world import RobotWorld, add_camera_to_link, robot_spec

CAMERA_LINKS = {
    "ego": "cam_high",
    "cam_low": "cam_low",
    "cam_left_wrist": "cam_left_wrist",
    "cam_right_wrist": "cam_right_wrist",
}
FOVY = 58.0  # vertical field of view of a D405 [deg]
CUBES = {"red": (0.85, 0.10, 0.10), "blue": (0.10, 0.25, 0.90)}
CUBE_SIZE = 0.04  # [m]
REGION = np.array([[-0.10, -0.15], [0.15, 0.15]])  # x, y on the table between the arms [m]; low and high
FLOOR = -0.75  # [m] below the table top


class AlohaWorld(RobotWorld):
    """Simulated ALOHA; the frame of the world is base_link, in the middle of the table top."""

    def __init__(self, embodiment: Embodiment) -> None:
        spec = robot_spec(embodiment)
        _add_surroundings(spec)
        for tag, name in CAMERA_LINKS.items():
            add_camera_to_link(spec, tag, f"{name}_link", FOVY)
        frames = {tag: f"{name}_optical_frame" for tag, name in CAMERA_LINKS.items()}
        super().__init__(embodiment, spec, frames)
        self.reset(0)

    def lay_out(self, seed: int) -> None:
        """Put the cubes somewhere between the arms."""
        rng = np.random.default_rng(seed)
        for colour in CUBES:
            address = self.model.joint(f"{colour} cube").qposadr[0]
            self.data.qpos[address : address + 7] = [*rng.uniform(*REGION), CUBE_SIZE / 2, 1, 0, 0, 0]


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    """Floor, light and cubes; the table is part of the robot's description and carries what lies on it."""
    world = spec.worldbody
    for geom in spec.body("base_link").geoms:
        if geom.contype:  # the table top: it meets arms and cubes alike
            geom.contype, geom.conaffinity = 2, 3
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3, 3, 0.1], pos=[0, 0, FLOOR], rgba=[0.45, 0.42, 0.40, 1],
        contype=2, conaffinity=3,
    )  # fmt: skip
    world.add_light(name="lamp", pos=[0.3, 0, 1.5], dir=[0, 0, -1], diffuse=[0.7] * 3, castshadow=False)
    for colour, rgb in CUBES.items():
        body = world.add_body(name=f"{colour} cube", pos=[0, 0, CUBE_SIZE / 2])
        body.add_freejoint(name=f"{colour} cube")
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, size=[CUBE_SIZE / 2] * 3, mass=0.05, rgba=[*rgb, 1],
            friction=[1.2, 0.02, 0.001], condim=4, contype=2, conaffinity=3,
        )  # fmt: skip
