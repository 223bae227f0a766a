"""The WidowX tabletop in MuJoCo: the arm on a table with three cubes, seen by the cameras `ego` and `cam_wrist`.

Ground truth (cube poses, task state, image positions of things) is offered for judging, scripted experts and training
labels; the policy sees only images.
"""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla_sim.robot_world import RobotWorld, add_camera_to_link, look_at, robot_spec
from qwen_vla_sim.task import TaskState
from qwen_vla_sim.widowx.scene import COLOURS, CUBE_SIZE, CUBES_PER_SCENE, Scene, sample_scene

CAMERAS = ("ego", "cam_wrist")
EGO_POSITION = np.array([0.72, 0.0, 0.52])  # fixed camera in base_link [m], opposite the arm, looking back and down
EGO_TARGET = np.array([0.26, 0.0, 0.05])
EGO_FOVY, WRIST_FOVY = 38.0, 75.0  # vertical field of view [deg]
LIFTED = 0.05  # [m] above its rest height: picked up
HELD = 0.035  # [m] gripper tip to cube centre: in the gripper


class WidowXWorld(RobotWorld):
    """Simulated WidowX 250s with three cubes; the frame of the world is base_link."""

    def __init__(self, embodiment: Embodiment | None = None) -> None:
        embodiment = embodiment or load_robot("widowx")
        spec = robot_spec(embodiment)
        _add_tabletop(spec)
        _add_cameras(spec)
        super().__init__(embodiment, spec, {"ego": "ego_optical_frame", "cam_wrist": "wrist_camera_optical_frame"})
        self._tip = self.model.body(self.embodiment.arms[0].tip_link).id
        self._cubes = [self.model.body(f"cube_{i}").id for i in range(CUBES_PER_SCENE)]
        self.scene: Scene
        self.reset(0)

    @property
    def instruction(self) -> str:
        return self.scene.instruction

    def lay_out(self, seed: int) -> None:
        """Place cubes, light and camera as the scene of `seed` has them."""
        self.scene = scene = sample_scene(seed)
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
        camera.quat[:] = look_at(position, EGO_TARGET + scene.camera_target_offset)

    # ----------------------------------------------------------- ground truth
    def tip_pose(self) -> np.ndarray:
        """4×4 pose of the gripper tip in base_link."""
        return self.link_pose(self.embodiment.arms[0].tip_link)

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
        success = grasped and lift > LIFTED
        return TaskState(
            instruction=self.scene.instruction,
            task="pick_cube",
            target=f"{self.scene.cubes[cube].colour} cube",
            success=success,
            distance=distance,
            failure="" if success else self._failure(cube, grasped),
            metrics={"lift": lift, "grasped": float(grasped)},
        )

    def _failure(self, cube: int, grasped: bool) -> str:
        """What is in the way of success."""
        if grasped:
            return "held, not lifted"
        heights = self.data.xpos[self._cubes][:, 2] - CUBE_SIZE / 2
        if any(height > LIFTED for other, height in enumerate(heights) if other != cube):
            return "another cube lifted"
        return "not grasped"


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
    spec.worldbody.add_camera(name="ego", pos=EGO_POSITION, quat=look_at(EGO_POSITION, EGO_TARGET), fovy=EGO_FOVY)
    add_camera_to_link(spec, "cam_wrist", "wrist_camera_link", WRIST_FOVY)
