# SPDX-License-Identifier: Apache-2.0
"""A robot of the suite in MuJoCo: its URDF with servos, coupled fingers and cameras. Subclasses add surroundings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions import Embodiment
from qwen_vla_sim.spectator.viewpoint import Viewpoint, add_ground
from qwen_vla_sim.task import TaskState

TIMESTEP = 0.002  # physics step [s]
STIFFNESS_PER_EFFORT = 60.0  # position gain of an actuator relative to the joint's effort limit
DAMPING_RATIO = 0.08  # velocity gain relative to the position gain [s]
FINGER_STIFFNESS = 1000.0  # [N/m]: 5 N, the URDF's limit, at 5 mm of squeeze
FINGER_ARMATURE = 0.5  # [kg] the motor behind a light finger
# REP-103 camera link: x forward, y left, z up; MuJoCo's camera: −z forward, x right, y up.
CAMERA_LINK_TO_MUJOCO = np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0]], float)


@dataclass(frozen=True)
class Follower:
    """A joint that mimics another: position = multiplier · position of `leader` + offset."""

    name: str
    leader: str
    multiplier: float
    offset: float


class RobotWorld:
    """Simulated robot. Not thread-safe; a renderer belongs to the thread that first renders.

    Attributes:
        joint_names: commanded joints, in the order of the embodiment.
        followers: joints that mimic one of those.
        cameras: names of the cameras, which are the embodiment's tags.
        camera_frames: optical frame of each camera.
    """

    def __init__(self, embodiment: Embodiment, spec: mujoco.MjSpec, camera_frames: Mapping[str, str]) -> None:
        self.embodiment = embodiment
        self.camera_frames = dict(camera_frames)
        self.cameras = tuple(camera_frames)
        self.joint_names: tuple[str, ...] = tuple(embodiment.joint_names)
        self.followers = followers(embodiment.urdf)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.timestep = self.model.opt.timestep
        joints = [self.model.joint(name) for name in self.joint_names]
        self._qpos = np.array([joint.qposadr[0] for joint in joints], int)
        self._qvel = np.array([joint.dofadr[0] for joint in joints], int)
        self._actuators = np.array([self.model.actuator(name).id for name in self.joint_names], int)
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._option = mujoco.MjvOption()

    # ------------------------------------------------------------------ state
    @property
    def time(self) -> float:
        """Simulated time since the world was created [s]; a reset does not set it back."""
        return self.data.time

    @property
    def instruction(self) -> str:
        """The instruction of the scene; empty in a world without tasks."""
        return ""

    def task_state(self) -> TaskState | None:
        """The judge's assessment of the task; None in a world without tasks."""
        return None

    def reset(self, seed: int) -> None:
        """Lay out the scene of `seed` and put the robot in its home pose; time continues."""
        now = self.data.time
        mujoco.mj_resetData(self.model, self.data)
        self.data.time = now
        self.lay_out(seed)
        self.place_arm(np.array([self.embodiment.home[name] for name in self.joint_names]))

    def lay_out(self, seed: int) -> None:
        """Lay out what the seed determines in the surroundings; nothing here."""

    def place_arm(self, joints: np.ndarray) -> None:
        """Set the joints to `joints` (rad, m; order of `joint_names`) at once and hold there; for setup only."""
        joints = np.asarray(joints, float)
        self.data.qpos[self._qpos] = joints
        for follower in self.followers:
            leader = joints[self.joint_names.index(follower.leader)]
            self.data.qpos[self.model.joint(follower.name).qposadr[0]] = follower.multiplier * leader + follower.offset
        self.data.qvel[:] = 0
        self.set_joint_target(joints)
        mujoco.mj_forward(self.model, self.data)

    def show(self, positions: np.ndarray) -> None:
        """Put everything where it is by `qpos` (nq,), at rest; for pictures of what happened elsewhere."""
        self.data.qpos[:] = positions
        self.data.qvel[:] = 0
        mujoco.mj_forward(self.model, self.data)

    def set_joint_target(self, joints: np.ndarray) -> None:
        """Actuator set points (rad, m; order of `joint_names`), clipped to the joints' limits by the actuators."""
        self.data.ctrl[self._actuators] = joints

    def step(self, n: int = 1) -> None:
        """Advance by n physics steps."""
        mujoco.mj_step(self.model, self.data, n)

    def joint_positions(self) -> np.ndarray:
        return self.data.qpos[self._qpos]

    def joint_velocities(self) -> np.ndarray:
        return self.data.qvel[self._qvel]

    def joint_efforts(self) -> np.ndarray:
        return self.data.actuator_force[self._actuators]

    def link_pose(self, link: str) -> np.ndarray:
        """4×4 pose of a link in the frame of the world."""
        body = self.model.body(link).id
        pose = np.eye(4)
        pose[:3, :3] = self.data.xmat[body].reshape(3, 3)
        pose[:3, 3] = self.data.xpos[body]
        return pose

    # ---------------------------------------------------------------- cameras
    def viewpoint(self) -> Viewpoint:
        """From where a spectator sees what the robot does, in the scene as it is laid out."""
        return Viewpoint((0.2, 0.0, 0.15), 1.6, 130.0, -30.0)

    def dress(self, scene: mujoco.MjvScene) -> None:
        """Add to a spectator's scene what the world lacks, and take away what hides the robot; here: add a floor."""
        add_ground(scene, 0.0)

    def render(self, camera: str, height: int = 240, width: int = 320) -> np.ndarray:
        """H×W×3 uint8 RGB of a camera."""
        renderer = self._renderers.get((height, width))
        if renderer is None:
            renderer = self._renderers[height, width] = mujoco.Renderer(self.model, height, width)
        renderer.update_scene(self.data, camera=camera, scene_option=self._option)
        return renderer.render()

    def camera_intrinsics(self, camera: str, height: int = 240, width: int = 320) -> np.ndarray:
        """3×3 pinhole matrix [px]; MuJoCo's cameras have square pixels and a centered principal point."""
        focal = height / (2 * np.tan(np.radians(self.model.camera(camera).fovy[0]) / 2))
        return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])

    def project(self, camera: str, points: np.ndarray, aspect: float = 4 / 3) -> np.ndarray:
        """Image positions (N, 3) of points (N, 3) in the world: u, v in 0..1 (outside: not in view), depth [m]."""
        cam = self.model.camera(camera).id
        local = (np.asarray(points) - self.data.cam_xpos[cam]) @ self.data.cam_xmat[cam].reshape(3, 3)
        depth = -local[:, 2]  # MuJoCo cameras look along −z, y up
        scale = 2 * np.tan(np.radians(self.model.cam_fovy[cam]) / 2) * np.maximum(depth, 1e-6)
        return np.stack([0.5 + local[:, 0] / scale / aspect, 0.5 - local[:, 1] / scale, depth], axis=1)

    def close(self) -> None:
        """Free the rendering contexts; MuJoCo returns garbage frames when this is left to the garbage collector."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()


def robot_spec(embodiment: Embodiment) -> mujoco.MjSpec:
    """The URDF with what a simulator needs in addition: servos for the commanded joints and coupled fingers."""
    # MuJoCo's import settings: keep fixed links, to which cameras are attached, and visual geometry.
    settings = '<mujoco><compiler fusestatic="false" discardvisual="false" strippath="true"/></mujoco>'
    spec = mujoco.MjSpec.from_string(embodiment.urdf.replace("</robot>", settings + "</robot>"))
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10  # keeps a grasped object from slipping out of the fingers
    spec.visual.quality.shadowsize = 0  # the shadow map is nine tenths of a software-rendered frame
    spec.visual.quality.offsamples = 0
    spec.visual.headlight.ambient = [0.35] * 3
    spec.visual.headlight.diffuse = [0.25] * 3
    spec.visual.headlight.specular = [0.0] * 3
    spec.visual.map.znear = 0.005
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0  # stands for the servos' integral action, which carries the arm's weight
        for geom in body.geoms:
            _prepare_robot_geom(geom)
    _add_servos(spec, embodiment)
    _couple_followers(spec, embodiment)
    return spec


def followers(urdf: str) -> tuple[Follower, ...]:
    """The mimic joints of a URDF."""
    found = []
    for joint in ElementTree.fromstring(urdf).iter("joint"):
        mimic = joint.find("mimic")
        if mimic is not None:
            multiplier, offset = float(mimic.get("multiplier", "1")), float(mimic.get("offset", "0"))
            found.append(Follower(joint.get("name", ""), mimic.get("joint", ""), multiplier, offset))
    return tuple(found)


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Quaternion (w, x, y, z) of a MuJoCo camera at `position` that looks at `target` with a level horizon."""
    back = position - target
    back = back / np.linalg.norm(back)
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    return Rotation.from_matrix(np.stack([right, np.cross(back, right), back], axis=1)).as_quat(scalar_first=True)


def add_camera_to_link(spec: mujoco.MjSpec, camera: str, link: str, fovy: float) -> None:
    """Add a camera that looks along x of a link, with z up; `fovy` is its vertical field of view [deg]."""
    quaternion = Rotation.from_matrix(CAMERA_LINK_TO_MUJOCO).as_quat(scalar_first=True)
    spec.body(link).add_camera(name=camera, quat=quaternion, fovy=fovy)


def _prepare_robot_geom(geom) -> None:
    """Hide collision shapes and let them collide with the robot's surroundings, not with its own links."""
    if geom.contype:
        geom.group = 3
        geom.contype, geom.conaffinity = 1, 2
        geom.friction = [1.2, 0.02, 0.001]
        geom.condim = 4


def _add_servos(spec: mujoco.MjSpec, embodiment: Embodiment) -> None:
    grippers = {arm.gripper.joint for arm in embodiment.arms if arm.gripper}
    for name in embodiment.joint_names:
        limit = embodiment.limits[name]
        finger = name in grippers
        stiffness = FINGER_STIFFNESS if finger else STIFFNESS_PER_EFFORT * max(limit.effort, 4.0)
        damping = DAMPING_RATIO * stiffness
        spec.joint(name).armature = FINGER_ARMATURE if finger else damping * 0.02
        servo = spec.add_actuator(
            name=name,
            target=name,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            ctrlrange=[limit.lower, limit.upper],
            ctrllimited=True,
        )
        servo.set_to_position(stiffness, damping)


def _couple_followers(spec: mujoco.MjSpec, embodiment: Embodiment) -> None:
    """Add a stiff constraint for each mimic joint for which MuJoCo has not created one from the URDF."""
    coupled = {equality.name1 for equality in spec.equalities}
    for follower in followers(embodiment.urdf):
        spec.joint(follower.name).armature = FINGER_ARMATURE
        if follower.name not in coupled:
            spec.add_equality(
                type=mujoco.mjtEq.mjEQ_JOINT,
                name1=follower.name,
                name2=follower.leader,
                data=[follower.offset, follower.multiplier] + [0] * 9,
                solref=[0.004, 1],
            )
