"""The WidowX tabletop in MuJoCo: our URDF on a table with three cubes, seen by the cameras `ego` and `cam_wrist`.

Ground truth (cube poses, task state, image positions of things) is offered for judging, scripted experts and training
labels; the policy sees only images.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

os.environ.setdefault("MUJOCO_GL", "egl")

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions import load_robot, robot_description
from qwen_vla_sim.scene import COLOURS, CUBE_SIZE, CUBES_PER_SCENE, Scene, sample_scene

TIMESTEP = 0.002  # physics step [s]
CAMERAS = ("ego", "cam_wrist")
EGO_POSITION = np.array([0.72, 0.0, 0.52])  # fixed camera in base_link [m], opposite the arm, looking back and down
EGO_TARGET = np.array([0.26, 0.0, 0.05])
EGO_FOVY, WRIST_FOVY = 38.0, 75.0  # vertical field of view [deg]
LIFTED = 0.05  # [m] above its rest height: picked up
HELD = 0.035  # [m] gripper tip to cube centre: in the gripper
STIFFNESS_PER_EFFORT = 60.0  # position gain of an actuator relative to the joint's effort limit
DAMPING_RATIO = 0.08  # velocity gain relative to the position gain [s]
FINGER_STIFFNESS = 1000.0  # [N/m]: 5 N, the URDF's limit, at 5 mm of squeeze


@dataclass(frozen=True)
class TaskState:
    """What a judge sees. distance: tip to target cube [m]; lift: target cube above its rest height [m]."""

    instruction: str
    target: str
    success: bool
    grasped: bool
    distance: float
    lift: float


class WidowXWorld:
    """Simulated WidowX 250s with three cubes. Not thread-safe; a renderer belongs to the thread that first renders."""

    def __init__(self) -> None:
        self.embodiment = load_robot("widowx")
        self.joint_names: tuple[str, ...] = tuple(self.embodiment.joint_names)
        self.model = _build_spec(self.embodiment).compile()
        self.data = mujoco.MjData(self.model)
        self.timestep = self.model.opt.timestep
        joints = [self.model.joint(name) for name in self.joint_names]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._qvel = np.array([joint.dofadr[0] for joint in joints])
        self._actuators = np.array([self.model.actuator(name).id for name in self.joint_names])
        self._tip = self.model.body(self.embodiment.arms[0].tip_link).id
        self._cubes = [self.model.body(f"cube_{i}").id for i in range(CUBES_PER_SCENE)]
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._option = mujoco.MjvOption()
        self.scene: Scene
        self.reset(0)

    # ------------------------------------------------------------------ state
    @property
    def time(self) -> float:
        """Simulated time since the world was made [s]; it does not jump back at a reset."""
        return self.data.time

    @property
    def instruction(self) -> str:
        return self.scene.instruction

    def reset(self, seed: int) -> None:
        """Lay out the scene of `seed`, put the arm at its home position, settle."""
        now = self.data.time
        mujoco.mj_resetData(self.model, self.data)
        self.data.time = now
        self.scene = sample_scene(seed)
        self._lay_out(self.scene)
        home = np.array([self.embodiment.home[name] for name in self.joint_names])
        self.place_arm(home)

    def place_arm(self, joints: np.ndarray) -> None:
        """Put the arm at `joints` at once (rad, m; order of `joint_names`) and hold there: set-up of a scene only."""
        joints = np.asarray(joints, float)
        self.data.qpos[self._qpos] = joints
        right = self.model.joint("right_finger")
        self.data.qpos[right.qposadr[0]] = -joints[-1]
        self.data.qvel[:] = 0
        self.set_joint_target(joints)
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

    # ----------------------------------------------------------- ground truth
    def tip_pose(self) -> np.ndarray:
        """4×4 pose of the gripper tip in base_link."""
        pose = np.eye(4)
        pose[:3, :3] = self.data.xmat[self._tip].reshape(3, 3)
        pose[:3, 3] = self.data.xpos[self._tip]
        return pose

    def cube_positions(self) -> np.ndarray:
        """(3, 3) centres of the cubes in base_link [m], in the order of `scene.cubes`."""
        return self.data.xpos[self._cubes].copy()

    def task_state(self) -> TaskState:
        """Judge the scene's own instruction."""
        return self.judge(self.scene.target)

    def judge(self, cube: int) -> TaskState:
        """Judge as if cube number `cube` had been named."""
        position = self.data.xpos[self._cubes[cube]]
        distance = float(np.linalg.norm(position - self.data.xpos[self._tip]))
        lift = float(position[2] - CUBE_SIZE / 2)
        grasped = distance < HELD and lift > 0.01
        colour = self.scene.cubes[cube].colour
        return TaskState(self.scene.instruction, colour, grasped and lift > LIFTED, grasped, distance, lift)

    # ---------------------------------------------------------------- cameras
    def render(self, camera: str, height: int = 240, width: int = 320) -> np.ndarray:
        """H×W×3 uint8 RGB of a camera."""
        renderer = self._renderers.get((height, width))
        if renderer is None:
            renderer = self._renderers[height, width] = mujoco.Renderer(self.model, height, width)
        renderer.update_scene(self.data, camera=camera, scene_option=self._option)
        return renderer.render()

    def camera_intrinsics(self, camera: str, height: int = 240, width: int = 320) -> np.ndarray:
        """3×3 pinhole matrix [px]; MuJoCo's cameras have square pixels and a centred principal point."""
        focal = height / (2 * np.tan(np.radians(self.model.camera(camera).fovy[0]) / 2))
        return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])

    def project(self, camera: str, points: np.ndarray, aspect: float = 4 / 3) -> np.ndarray:
        """Image positions (N, 3) of points (N, 3) in base_link: u, v in 0..1 (outside: not in view), depth [m]."""
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

    # --------------------------------------------------------------- internal
    def _lay_out(self, scene: Scene) -> None:
        for i, cube in enumerate(scene.cubes):
            address = self.model.joint(f"cube_{i}").qposadr[0]
            quaternion = Rotation.from_euler("z", cube.yaw).as_quat(scalar_first=True)
            self.data.qpos[address : address + 7] = [cube.x, cube.y, CUBE_SIZE / 2, *quaternion]
            self.model.geom(f"cube_{i}").rgba[:3] = COLOURS[cube.colour]
        self.model.geom("table").rgba[:3] = scene.table_rgb
        self.model.light("lamp").pos[:] = scene.light_position
        self.model.light("lamp").diffuse[:] = scene.light_intensity
        camera = self.model.camera("ego")
        position = EGO_POSITION + scene.camera_offset
        camera.pos[:] = position
        camera.quat[:] = _look_at(position, EGO_TARGET + scene.camera_target_offset)


def _build_spec(embodiment) -> mujoco.MjSpec:
    """Our URDF plus what a simulator needs beyond it: actuators, finger coupling, table, cubes, light, cameras."""
    spec = mujoco.MjSpec.from_string(_urdf_for_mujoco())
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10  # keeps a squeezed cube from creeping out of the fingers
    spec.visual.quality.shadowsize = 0  # the shadow map is nine tenths of a software-rendered frame
    spec.visual.quality.offsamples = 0
    spec.visual.headlight.ambient = [0.35] * 3
    spec.visual.headlight.diffuse = [0.25] * 3
    spec.visual.headlight.specular = [0.0] * 3
    spec.visual.map.znear = 0.005
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0  # the servos carry the arm's own weight with integral action
        for geom in body.geoms:
            _prepare_robot_geom(geom)
    _add_actuators(spec, embodiment)
    _add_tabletop(spec)
    _add_cameras(spec)
    return spec


def _prepare_robot_geom(geom) -> None:
    """Collision shapes are hidden and meet the table and the cubes, not the arm's own neighbouring links."""
    if geom.contype:
        geom.group = 3
        geom.contype, geom.conaffinity = 1, 2
        geom.friction = [1.2, 0.02, 0.001]
        geom.condim = 4


def _urdf_for_mujoco() -> str:
    """The expanded URDF with MuJoCo's own import settings: keep fixed links and visual geometry."""
    settings = '<mujoco><compiler fusestatic="false" discardvisual="false" strippath="true"/></mujoco>'
    urdf = robot_description("widowx", hardware="mock")
    return urdf.replace("</robot>", settings + "</robot>")


def _add_actuators(spec: mujoco.MjSpec, embodiment) -> None:
    for name in embodiment.joint_names:
        limit = embodiment.limits[name]
        stiffness = FINGER_STIFFNESS if name == "left_finger" else STIFFNESS_PER_EFFORT * max(limit.effort, 4.0)
        damping = DAMPING_RATIO * stiffness
        joint = spec.joint(name)
        joint.armature = 0.5 if name == "left_finger" else damping * 0.02
        spec.add_actuator(
            name=name,
            target=name,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            gaintype=mujoco.mjtGain.mjGAIN_FIXED,
            biastype=mujoco.mjtBias.mjBIAS_AFFINE,
            gainprm=[stiffness] + [0] * 9,
            biasprm=[0, -stiffness, -damping] + [0] * 7,
            ctrlrange=[limit.lower, limit.upper],
            ctrllimited=True,
        )
    spec.joint("right_finger").armature = 0.5
    if not any(equality.name1 == "right_finger" for equality in spec.equalities):
        spec.add_equality(
            type=mujoco.mjtEq.mjEQ_JOINT,
            name1="right_finger",
            name2="left_finger",
            data=[0, -1] + [0] * 9,
            solref=[0.004, 1],
        )


def _add_tabletop(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[0.6, 0.7, 0.02],
        pos=[0.3, 0, -0.02],
        rgba=[0.6, 0.6, 0.6, 1],
        contype=2,
        conaffinity=3,
    )
    world.add_light(name="lamp", pos=[0.3, 0, 1.5], dir=[0, 0, -1], diffuse=[0.7] * 3, castshadow=False)
    for i in range(CUBES_PER_SCENE):
        body = world.add_body(name=f"cube_{i}", pos=[0.3, 0.1 * (i - 1), CUBE_SIZE / 2])
        body.add_freejoint(name=f"cube_{i}")
        body.add_geom(
            name=f"cube_{i}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[CUBE_SIZE / 2] * 3,
            mass=0.05,
            friction=[1.2, 0.02, 0.001],
            condim=4,
            contype=2,
            conaffinity=3,
        )


def _add_cameras(spec: mujoco.MjSpec) -> None:
    spec.worldbody.add_camera(name="ego", pos=EGO_POSITION, quat=_look_at(EGO_POSITION, EGO_TARGET), fovy=EGO_FOVY)
    # REP-103 camera link: x forward, y left, z up; MuJoCo's camera: −z forward, x right, y up.
    forward = np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0]], float)
    spec.body("wrist_camera_link").add_camera(
        name="cam_wrist", quat=Rotation.from_matrix(forward).as_quat(scalar_first=True), fovy=WRIST_FOVY
    )


def _look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Quaternion (w, x, y, z) of a MuJoCo camera at `position` that looks at `target` with the horizon level."""
    back = position - target
    back = back / np.linalg.norm(back)
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    return Rotation.from_matrix(np.stack([right, np.cross(back, right), back], axis=1)).as_quat(scalar_first=True)
