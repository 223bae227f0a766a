# SPDX-License-Identifier: Apache-2.0
"""ALOHA in MuJoCo: two arms at a table with the things of a bimanual task, and station and wrist cameras.

Ground truth (poses, finger contacts, image positions) is for judging, the scripted expert and labels; a policy gets
only images.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import cached_property

import mujoco
import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_sim.aloha.hands import PINCH, SIDES, Hands
from qwen_vla_sim.aloha.scene import MARGIN, Scene
from qwen_vla_sim.aloha.situation import Hand, Situation
from qwen_vla_sim.aloha.things import Things, add_things
from qwen_vla_sim.robot_world import RobotWorld, add_camera_to_link, robot_spec
from qwen_vla_sim.spectator.viewpoint import Viewpoint, add_ground
from qwen_vla_sim.task import TaskState

CAMERA_LINKS = {
    "ego": "cam_high",
    "cam_low": "cam_low",
    "cam_left_wrist": "cam_left_wrist",
    "cam_right_wrist": "cam_right_wrist",
}
CAMERAS = tuple(CAMERA_LINKS)
FOVY = 58.0  # vertical field of view of a D405 [deg]
EGO_FOVY = 42.0  # [deg] of the high camera, cropped to the table: its full 58 show mostly floor
FLOOR = -0.75  # [m] below the table top
BESIDE = 0.035  # [m] a ray that hits something at most this far before a point counts as reaching it
ARMATURE_PER_EFFORT = 0.015  # [s²] the motor alone could accelerate at 67 rad/s², so the wrist keeps up with the arm
TABLE, ARM, LEFT_ARM = 2, 1, 4  # bits of MuJoCo's contact types


class AlohaWorld(RobotWorld):
    """Simulated ALOHA; the world frame is base_link, in the center of the table top.

    Args:
        scenes: maps a seed to its scene.
    """

    def __init__(self, embodiment: Embodiment, scenes: Callable[[int], Scene]) -> None:
        spec = robot_spec(embodiment)
        for arm in embodiment.arms:
            for name in arm.joints:
                spec.joint(name).armature = ARMATURE_PER_EFFORT * embodiment.limits[name].effort
        _add_surroundings(spec)
        add_things(spec)
        # Its bounding boxes of whole bodies are computed once; things change their sizes from scene to scene.
        spec.option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)
        for tag, name in CAMERA_LINKS.items():
            add_camera_to_link(spec, tag, f"{name}_link", EGO_FOVY if tag == "ego" else FOVY)
        frames = {tag: f"{name}_optical_frame" for tag, name in CAMERA_LINKS.items()}
        super().__init__(embodiment, spec, frames)
        self._scenes = scenes
        self.things = Things(self.model)
        self._fingers = [
            [self.model.body(f"follower_{side}/{finger}_finger_link").id for finger in SIDES] for side in SIDES
        ]
        self._table = self.model.body("base_link").id
        self._pin = self.model.geom("pin").id
        self.scene: Scene
        self.reset(0)

    @property
    def instruction(self) -> str:
        return self.scene.instruction

    def lay_out(self, seed: int) -> None:
        """Put the things of the scene of `seed` on the table and give the room its colors."""
        self.scene = scene = self._scenes(seed)
        self.things.lay_out(self.data, scene.items)
        self._bodies = np.array([self.model.body(name).id for name in self.things.names])
        self._drifts = scene.drift != (0.0, 0.0)
        room = scene.room
        for name, color in (("wall_x", room.wall), ("wall_left", room.wall), ("wall_right", room.wall)):
            self.model.geom(name).rgba[:3] = color
        self.model.geom("floor").rgba[:3] = room.floor
        self.model.geom("table").rgba[:3] = room.table
        self.model.light("lamp").pos[:] = room.lamp
        self.model.light("lamp").diffuse[:] = room.light

    def step(self, n: int = 1) -> None:
        if self._drifts:
            self._drift(n * self.timestep)
        super().step(n)

    def hold_thing(self, index: int, side: str, relative: np.ndarray) -> None:
        """Put the thing with index `index` between the fingers of a hand; for setup only.

        Args:
            index, side: of the thing and of the hand.
            relative: 4x4 pose of the thing relative to the hand (see `Hand.pose`).
        """
        pose = self._hand(SIDES.index(side)).pose @ relative
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, pose[:3, :3].reshape(-1))
        self.things.place(self.data, self.things.names[index], pose[:3, 3], quaternion)
        mujoco.mj_forward(self.model, self.data)

    def viewpoint(self) -> Viewpoint:
        """Opposite the operator, where no post of the station is in the way."""
        return Viewpoint((0.0, 0.0, 0.08), 1.8, 180.0, -34.0)

    def dress(self, scene: mujoco.MjvScene) -> None:
        """Take away the wall in front of the spectator; let the floor go on."""
        add_ground(scene, FLOOR - 0.01)
        wall = self.model.geom("wall_x").id
        for geom in scene.geoms[: scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.objid == wall:
                geom.rgba[3] = 0.0

    @cached_property
    def hands(self) -> Hands:
        """Kinematics of both hands."""
        bases = {side: self.link_pose(arm.base_link) for side, arm in zip(SIDES, self.embodiment.arms, strict=True)}
        return Hands(self.embodiment, bases)

    # ----------------------------------------------------------- ground truth
    def situation(self) -> Situation:
        """The current state on which task and expert depend."""
        count = len(self._bodies)
        poses = np.tile(np.eye(4), (count, 1, 1))
        poses[:, :3, :3] = self.data.xmat[self._bodies].reshape(count, 3, 3)
        poses[:, :3, 3] = self.data.xpos[self._bodies]
        geoms = self.data.contact.geom
        bodies = self.model.geom_bodyid[geoms] if len(geoms) else np.empty((0, 2), int)
        pairs = {(int(a), int(b)) for a, b in bodies} | {(int(b), int(a)) for a, b in bodies}
        left, right = (self._hand(side, pairs) for side in range(2))
        return Situation(
            self.scene,
            poses,
            tuple((int(body), self._table) in pairs for body in self._bodies),
            left,
            right,
            self._touches_pin(geoms, bodies),
        )

    def task_state(self) -> TaskState:
        return self.scene.task.judge(self.situation())

    def points(self) -> np.ndarray:
        """(things + 2, 3) centers of the things, then the points between the fingers of the left and right hand [m]."""
        hands = [self._hand(side).position for side in range(2)]
        return np.concatenate([self.data.xpos[self._bodies], hands])

    def visible_points(self, camera: str) -> np.ndarray:
        """(things + 2, 3) u, v in 0..1 and depth [m] of `points`; the depth of an occluded point is negative."""
        points = self.points()
        projected = self.project(camera, points)
        number = self.model.camera(camera).id
        origin, housing = self.data.cam_xpos[number], int(self.model.cam_bodyid[number])
        shapes = np.array([1, 1, 1, 0, 0, 0], np.uint8)  # the visual groups; collision shapes are in group 3
        hit = np.zeros(1, np.int32)
        for k, point in enumerate(points):
            away = np.linalg.norm(point - origin)
            seen = mujoco.mj_ray(self.model, self.data, origin, (point - origin) / away, shapes, 1, housing, hit)
            own = k < len(self._bodies) and self.model.geom_bodyid[hit[0]] == self._bodies[k]
            if 0 <= seen < away - BESIDE and not own:
                projected[k, 2] = -abs(projected[k, 2])
        return projected

    # --------------------------------------------------------------- internal
    def _hand(self, side: int, pairs: AbstractSet[tuple[int, int]] = frozenset()) -> Hand:
        arm = self.embodiment.arms[side]
        pose = self.link_pose(arm.tip_link)
        pose[:3, 3] += PINCH * pose[:3, 0]
        if arm.gripper is None:
            raise ValueError(f"arm {arm.name!r} has no gripper; the tasks need one")
        finger = self.data.qpos[self.model.joint(arm.gripper.joint).qposadr[0]]
        touched = tuple(sum((f, int(body)) in pairs for f in self._fingers[side]) for body in self._bodies)
        return Hand(pose, self.embodiment.gripper_from_joint(float(finger), arm=side), touched)

    def _touches_pin(self, geoms: np.ndarray, bodies: np.ndarray) -> bool:
        target = self._bodies[self.scene.target]
        return bool(((geoms == self._pin).any(axis=1) & (bodies == target).any(axis=1)).any()) if len(geoms) else False

    def _drift(self, seconds: float) -> None:
        """Move the target along its drift until a hand touches it, at most to the edge of its region and margin."""
        state = self.situation()
        if state.left.touched[self.scene.target] or state.right.touched[self.scene.target]:
            self._drifts = False
            return
        joint = self.model.joint(self.things.names[self.scene.target])
        place = self.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 2]
        low, high = np.array(self.scene.region)
        place[:] = np.clip(place + np.array(self.scene.drift) * seconds, low - MARGIN, high + MARGIN)


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    """Add floor, walls and light; the table is part of the robot's description and supports the things on it."""
    world = spec.worldbody
    for geom in spec.body("base_link").geoms:
        if geom.contype:  # the table top: it collides with arms and things
            geom.contype, geom.conaffinity = TABLE, TABLE | ARM
        else:
            geom.name = "table"
            geom.material = ""
    for body in spec.bodies:
        for geom in body.geoms:
            if body.name.startswith("follower_left/") and geom.contype:  # the arms collide with each other
                geom.contype |= LEFT_ARM
            elif body.name.startswith("follower_right/") and geom.contype:
                geom.conaffinity |= LEFT_ARM
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3, 3, 0.1], pos=[0, 0, FLOOR], rgba=[0.45, 0.42, 0.40, 1],
        contype=TABLE, conaffinity=TABLE | ARM,
    )  # fmt: skip
    for name, place, size in (
        ("wall_x", (1.4, 0, 0.5), (0.05, 1.6, 1.3)),
        ("wall_left", (0, 1.6, 0.5), (1.4, 0.05, 1.3)),
        ("wall_right", (0, -1.6, 0.5), (1.4, 0.05, 1.3)),
    ):
        world.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_BOX, pos=place, size=size, contype=0, conaffinity=0)
    world.add_light(name="lamp", pos=[0.1, 0, 1.5], dir=[0, 0, -1], diffuse=[0.7] * 3, castshadow=False)
