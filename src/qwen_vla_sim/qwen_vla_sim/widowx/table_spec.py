# SPDX-License-Identifier: Apache-2.0
"""The surroundings of the WidowX in its MuJoCo model: table, lamp, cameras, and the things of `things.py`."""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from qwen_vla_sim.robot_world import add_camera_to_link, look_at
from qwen_vla_sim.widowx.scene import Thing
from qwen_vla_sim.widowx.things import Part

CAMERAS = ("ego", "cam_wrist")
EGO_POSITION = np.array([0.72, 0.0, 0.52])  # fixed camera in base_link [m], opposite the arm, looking back and down
EGO_TARGET = np.array([0.26, 0.0, 0.05])
EGO_FOVY, WRIST_FOVY = 38.0, 75.0  # vertical field of view [deg]
THING_MASS = 0.05  # [kg]
HIDDEN, VISIBLE = 3, 0  # geom groups
PLANK = 0.11  # [m]
SHAPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
}


def body_name(thing: Thing) -> str:
    """Name of a thing's body, and of its free joint if it has one."""
    return f"{thing.kind}_{thing.slot}"


def add_table(spec: mujoco.MjSpec) -> None:
    """Add the table, its top at z = 0, and the lamp above it."""
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.6, 0.7, 0.02],
        pos=[0.3, 0, -0.02],
        rgba=[0.6, 0.6, 0.6, 1],
        contype=2,
        conaffinity=3,
    )
    spec.worldbody.add_light(name="lamp", pos=[0.3, 0, 1.5], dir=[0, 0, -1], diffuse=[0.7] * 3, castshadow=False)


def add_planks(spec: mujoco.MjSpec) -> None:
    """Add dark seams that make the table look planked; they have no contacts."""
    for i, y in enumerate(np.arange(-0.66, 0.67, PLANK)):
        spec.worldbody.add_geom(
            name=f"seam_{i}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[0.6, 0.002, 0.0003],
            pos=[0.3, y, 0.0],
            rgba=[0.15, 0.12, 0.10, 1],
            contype=0,
            conaffinity=0,
        )


def add_cameras(spec: mujoco.MjSpec) -> None:
    """Add CAMERAS: one beside the table, one at the gripper."""
    spec.worldbody.add_camera(name="ego", pos=EGO_POSITION, quat=look_at(EGO_POSITION, EGO_TARGET), fovy=EGO_FOVY)
    add_camera_to_link(spec, "cam_wrist", "wrist_camera_link", WRIST_FOVY)


def add_thing(spec: mujoco.MjSpec, thing: Thing, number: int) -> None:
    """Add a body with collision geoms and, last, visual geoms; with a free joint if it is movable."""
    name, design = body_name(thing), thing.design
    body = spec.worldbody.add_body(name=name, pos=[0.3, 0.1 * (number - 1), design.rest])
    if thing.movable:
        body.add_freejoint(name=name)
    volumes = np.array([np.prod(part.size) for part in design.collision])
    for i, part in enumerate(design.collision):
        body.add_geom(
            name=name if i == 0 else f"{name}_collision_{i}",
            mass=THING_MASS * volumes[i] / volumes.sum(),
            friction=[1.2, 0.02, 0.001],
            condim=4,
            contype=2,
            conaffinity=3,
            group=HIDDEN if design.visual else VISIBLE,
            **_shape(part),
        )
    for i, part in enumerate(design.visual):
        body.add_geom(name=f"{name}_visual_{i}", mass=0, contype=0, conaffinity=0, group=VISIBLE, **_shape(part))


def _shape(part: Part) -> dict:
    size = [*part.size, *([0.0] * (3 - len(part.size)))]
    shape = {"type": SHAPES[part.shape], "size": size}
    if any(part.at):
        shape["pos"] = part.at
    if any(part.turned):
        shape["quat"] = Rotation.from_euler("xyz", part.turned).as_quat(scalar_first=True)
    return shape
