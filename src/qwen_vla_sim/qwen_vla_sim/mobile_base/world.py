"""The mobile base in MuJoCo: a room with walls and pillars to be seen and bumped into, no task yet.

The base glides on two sliding joints and a hinge, driven at the speed that its wheels have; the wheels turn beside it.
Pushed against a wall it stands while the wheels go on, so that the odometry is wrong there, as it is in a real room.
"""

from __future__ import annotations

import mujoco
import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_sim.robot_world import RobotWorld, add_camera_to_link, robot_spec

ROOT = "base_footprint"
PLANAR = {"base_x": ("slide", [1, 0, 0]), "base_y": ("slide", [0, 1, 0]), "base_heading": ("hinge", [0, 0, 1])}
WHEELS = ("wheel_left_joint", "wheel_right_joint")
FOVY = 48.7  # vertical field of view of the camera [deg]: 62.2 wide at 4:3
HALF_ROOM = 2.5  # [m]
WALL_HEIGHT = 0.8  # [m]
PILLARS = {"red": (0.85, 0.10, 0.10), "green": (0.10, 0.65, 0.15), "blue": (0.10, 0.25, 0.90)}
PILLAR_SIZE = (0.12, 0.5)  # radius, height [m]
PILLAR_DISTANCE = (1.0, 2.0)  # from the start of the base [m]
DRIVE_GAIN = {"slide": 400.0, "hinge": 20.0}  # [N per m/s], [Nm per rad/s]: some 10 ms to reach a speed
DRIVE_FORCE = {"slide": 40.0, "hinge": 6.0}  # [N], [Nm]: what the wheels can push before they slip
WHEEL_GAIN = 5.0  # [Nm per rad/s]


class MobileBaseWorld(RobotWorld):
    """Simulated base; the frame of the world is where the base starts."""

    def __init__(self, embodiment: Embodiment) -> None:
        spec = robot_spec(embodiment)
        _let_it_drive(spec)
        _add_room(spec)
        add_camera_to_link(spec, "ego", "camera_link", FOVY)
        super().__init__(embodiment, spec, {"ego": "camera_optical_frame"})
        self._planar = np.array([self.model.joint(name).qposadr[0] for name in PLANAR])
        self._drives = np.array([self.model.actuator(name).id for name in PLANAR])
        self._wheels = np.array([self.model.joint(name).qposadr[0] for name in WHEELS])
        self._wheel_speeds = np.array([self.model.joint(name).dofadr[0] for name in WHEELS])
        self._wheel_drives = np.array([self.model.actuator(name).id for name in WHEELS])
        self.reset(0)

    def lay_out(self, seed: int) -> None:
        """Put the pillars somewhere around the start, not in front of the base's nose."""
        rng = np.random.default_rng(seed)
        for i, colour in enumerate(PILLARS):
            angle = 2 * np.pi * (i + rng.uniform(0.2, 0.8)) / len(PILLARS)
            place = rng.uniform(*PILLAR_DISTANCE) * np.array([np.cos(angle), np.sin(angle)])
            self.model.geom(f"{colour} pillar").pos[:2] = place

    @property
    def pose(self) -> np.ndarray:
        """Where the base really is: x [m], y [m], heading [rad]."""
        return self.data.qpos[self._planar]

    def drive(self, linear: float, angular: float, wheels: tuple[float, float]) -> None:
        """Go on at `linear` [m/s] and `angular` [rad/s], and turn the wheels, left and right, at `wheels` [rad/s]."""
        heading = self.data.qpos[self._planar[2]]
        self.data.ctrl[self._drives] = [linear * np.cos(heading), linear * np.sin(heading), angular]
        self.data.ctrl[self._wheel_drives] = wheels

    def wheel_positions(self) -> np.ndarray:
        """Left and right wheel [rad]; they count on from the start."""
        return self.data.qpos[self._wheels]

    def wheel_velocities(self) -> np.ndarray:
        """Left and right wheel [rad/s]."""
        return self.data.qvel[self._wheel_speeds]


def _let_it_drive(spec: mujoco.MjSpec) -> None:
    """Planar joints and their drives for the base, drives for the wheels; what touches the floor needs no contact."""
    base = spec.body(ROOT)
    for name, (kind, axis) in PLANAR.items():
        hinge = kind == "hinge"
        joint = mujoco.mjtJoint.mjJNT_HINGE if hinge else mujoco.mjtJoint.mjJNT_SLIDE
        base.add_joint(name=name, type=joint, axis=axis)
        _add_speed_drive(spec, name, DRIVE_GAIN[kind], DRIVE_FORCE[kind])
    for name in WHEELS:
        _add_speed_drive(spec, name, WHEEL_GAIN, None)
    for body in spec.bodies:
        if body.name.startswith(("wheel", "caster")):
            for geom in body.geoms:
                geom.contype = geom.conaffinity = 0


def _add_speed_drive(spec: mujoco.MjSpec, joint: str, gain: float, force: float | None) -> None:
    spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        gainprm=[gain] + [0] * 9,
        biasprm=[0, 0, -gain] + [0] * 7,
        forcelimited=force is not None,
        forcerange=[-(force or 0), force or 0],
    )


def _add_room(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    solid = {"contype": 2, "conaffinity": 1}
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[HALF_ROOM, HALF_ROOM, 0.1], rgba=[0.55, 0.50, 0.45, 1],
        contype=0, conaffinity=0,
    )  # fmt: skip
    for name, (x, y) in {"front": (1, 0), "back": (-1, 0), "left": (0, 1), "right": (0, -1)}.items():
        half = [0.05 if x else HALF_ROOM, 0.05 if y else HALF_ROOM, WALL_HEIGHT / 2]
        place = [x * (HALF_ROOM + 0.05), y * (HALF_ROOM + 0.05), WALL_HEIGHT / 2]
        world.add_geom(
            name=f"{name} wall", type=mujoco.mjtGeom.mjGEOM_BOX, size=half, pos=place, rgba=[0.8, 0.8, 0.75, 1], **solid
        )
    radius, height = PILLAR_SIZE
    for colour, rgb in PILLARS.items():
        world.add_geom(
            name=f"{colour} pillar", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[radius, height / 2, 0],
            pos=[PILLAR_DISTANCE[1], 0, height / 2], rgba=[*rgb, 1], **solid,
        )  # fmt: skip
    world.add_light(name="lamp", pos=[0, 0, 2.5], dir=[0, 0, -1], diffuse=[0.7] * 3, castshadow=False)
