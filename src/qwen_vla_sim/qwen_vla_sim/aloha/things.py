# SPDX-License-Identifier: Apache-2.0
"""Cubes, pegs, the socket and the trays as bodies of a MuJoCo model, placed and colored for a scene.

The model has all of them; those that a scene does not use float out of view behind the cameras.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from qwen_vla_sim.aloha.scene import (
    CUBE,
    HANDLE,
    PEG,
    PIN,
    SOCKET,
    SOCKET_LENGTH,
    SOCKET_OUTSIDE,
    SOCKET_WALL,
    TRAY,
    Item,
)

BODIES = {"cube": ("cube_0", "cube_1"), "peg": ("peg_0", "peg_1"), "tray": ("tray_0", "tray_1")}
OUT_OF_SIGHT = np.array([-3.0, 0.0, 1.0])  # [m] behind all cameras
MASS = 0.05  # [kg] of each thing, as in gym-aloha
FRICTION = (1.2, 0.02, 0.001)
SOCKET_RGBA = (0.10, 0.70, 0.75, 1)
PIN_RGBA = (0.15, 0.15, 0.15, 1)

Size = tuple[float, float, float]


def add_things(spec: mujoco.MjSpec) -> None:
    """Add every body that a scene may use."""
    for name in BODIES["cube"]:
        _add_body(spec, name, [((0, 0, 0), (CUBE, CUBE, CUBE))])
    for name in BODIES["peg"]:
        _add_body(spec, name, [((0, 0, 0), PEG)])
    for name in BODIES["tray"]:
        _add_body(spec, name, _tray_parts())
    _add_body(spec, SOCKET, _socket_parts(), SOCKET_RGBA)
    pin = spec.body(SOCKET).geoms[-1]
    pin.name, pin.rgba = "pin", PIN_RGBA


def body_of(items: Sequence[Item], index: int) -> str:
    """Name of the body of the thing with index `index` in a scene."""
    item = items[index]
    return SOCKET if item.kind == SOCKET else BODIES[item.kind][index]


def rest_height(item: Item) -> float:
    """Height of the center of a thing on the table [m]."""
    heights = {"cube": CUBE, "peg": PEG[2], "tray": HANDLE[2], SOCKET: SOCKET_OUTSIDE}
    return heights[item.kind] / 2 * item.scale


class Things:
    """Places the things of a scene in a compiled model.

    Attributes:
        names: bodies of the current scene, item by item.
        all_names: bodies of everything that a scene may use.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self.names: tuple[str, ...] = ()
        self.all_names = [*(name for names in BODIES.values() for name in names), SOCKET]
        self._geoms = {name: _geoms_of(model, name) for name in self.all_names}
        self._sizes = {name: model.geom_size[geoms].copy() for name, geoms in self._geoms.items()}
        self._places = {name: model.geom_pos[geoms].copy() for name, geoms in self._geoms.items()}

    def lay_out(self, data: mujoco.MjData, items: Sequence[Item]) -> None:
        """Put the scene's things on the table, in their colors and sizes, and all others out of view."""
        self.names = tuple(body_of(items, i) for i in range(len(items)))
        for k, name in enumerate(self.all_names):
            self.model.body_gravcomp[self.model.body(name).id] = 1
            self.place(data, name, OUT_OF_SIGHT + [0, 0.5 * k, 0])
        for item, name in zip(items, self.names, strict=True):
            self.model.body_gravcomp[self.model.body(name).id] = 0
            self._resize(name, item.scale)
            if item.kind != SOCKET:
                self.model.geom_rgba[self._geoms[name], :3] = item.rgb
            self.place(data, name, np.array([item.x, item.y, rest_height(item)]))

    def place(self, data: mujoco.MjData, name: str, position: np.ndarray, quaternion=(1.0, 0, 0, 0)) -> None:
        """Place a body at rest; quaternion w x y z."""
        joint = self.model.joint(name)
        data.qpos[joint.qposadr[0] : joint.qposadr[0] + 7] = [*position, *quaternion]
        data.qvel[joint.dofadr[0] : joint.dofadr[0] + 6] = 0

    def _resize(self, name: str, scale: float) -> None:
        """Scale the shapes of a body; its mass stays."""
        geoms = self._geoms[name]
        self.model.geom_size[geoms] = self._sizes[name] * scale
        self.model.geom_pos[geoms] = self._places[name] * scale
        self.model.geom_rbound[geoms] = np.linalg.norm(self.model.geom_size[geoms], axis=1)
        self.model.geom_aabb[geoms, 3:] = self.model.geom_size[geoms]


def _geoms_of(model: mujoco.MjModel, body: str) -> np.ndarray:
    return np.flatnonzero(model.geom_bodyid == model.body(body).id)


def _socket_parts() -> list[tuple[Size, Size]]:
    """(center, size) of the walls of the tube and, last, of the pin."""
    wall, out = SOCKET_WALL, SOCKET_OUTSIDE
    off = (out - wall) / 2
    flat, upright = (out - 2 * wall, SOCKET_LENGTH, wall), (wall, SOCKET_LENGTH, out)
    walls = [((0, 0, -off), flat), ((0, 0, off), flat), ((off, 0, 0), upright), ((-off, 0, 0), upright)]
    return [*walls, ((0, 0, 0), PIN)]


def _tray_parts() -> list[tuple[Size, Size]]:
    """Plate with a rim, and the two handles."""
    width, length, thick = TRAY
    low = -(HANDLE[2] - thick) / 2
    rim, up = 0.008, 0.010
    edges = [
        ((side * (width - rim) / 2, 0, low + (thick + up) / 2), (rim, length, up))
        for side in (-1, 1)
    ]  # fmt: skip
    handles = [((0, side * (length + HANDLE[1]) / 2, 0), HANDLE) for side in (-1, 1)]
    return [((0, 0, low), TRAY), *edges, *handles]


def _add_body(spec: mujoco.MjSpec, name: str, parts: list[tuple[Size, Size]], rgba=(0.5, 0.5, 0.5, 1)) -> None:
    body = spec.worldbody.add_body(name=name, pos=OUT_OF_SIGHT, gravcomp=1.0)
    body.add_freejoint(name=name)
    for place, size in parts:
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, pos=place, size=np.array(size) / 2, mass=MASS / len(parts), rgba=rgba,
            friction=FRICTION, condim=4, contype=2, conaffinity=3,
        )  # fmt: skip
