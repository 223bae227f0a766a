# SPDX-License-Identifier: Apache-2.0
"""The mobile base in MuJoCo: a room with a door to a hall, furniture in both, and the camera `ego`.

The base moves on two slide joints and a hinge at the speed of its wheels, which rotate without contact. Pushed against
something, it stands still while the wheels slip, so that the odometry is wrong then, as in a real room.
Ground truth (poses, task state, image positions of things) is for judging, scripted experts and training labels.
"""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions import Embodiment
from qwen_vla_sim.mobile_base.furniture import FURNITURE, Furniture
from qwen_vla_sim.mobile_base.scene import DOOR_WIDTH, MAT_DEPTH, WALL, Scene, Thing
from qwen_vla_sim.mobile_base.situation import Drive, Situation
from qwen_vla_sim.robot_world import RobotWorld, add_camera_to_link, robot_spec
from qwen_vla_sim.spectator.cutaway import cut_walls, view_of
from qwen_vla_sim.spectator.viewpoint import Viewpoint
from qwen_vla_sim.task import Shift, TaskState

ROOT = "base_footprint"
PLANAR = {"base_x": ("slide", [1, 0, 0]), "base_y": ("slide", [0, 1, 0]), "base_heading": ("hinge", [0, 0, 1])}
WHEELS = ("wheel_left_joint", "wheel_right_joint")
TIMESTEP = 0.005  # [s]; fine enough for a base
FOVY = 48.7  # vertical field of view of the camera [deg]: 62.2 wide at 4:3
DRIVE_GAIN = {"slide": 400.0, "hinge": 20.0}  # [N per m/s], [Nm per rad/s]: about 10 ms to reach a speed
DRIVE_FORCE = {"slide": 40.0, "hinge": 6.0}  # [N], [Nm]: what the wheels can push before they slip
WHEEL_GAIN = 5.0  # [Nm per rad/s]
WALL_HEIGHT = 2.4  # [m]
AMBIENT = 0.5  # share of ambient light
REACH = 3.0  # half length of walls and floors [m]: longer than any room, the excess is hidden behind other walls
POSTS = (0.05, 0.08, 0.85)  # half thickness of the door's posts along the wall and across, half height [m]
DOOR_RGB, MAT_RGB = (0.40, 0.22, 0.10), (0.13, 0.11, 0.11)
POINT_HEIGHT = 0.15  # [m] at most, of the labeled points: slightly above the camera, in view also from close by
PER_KIND = 2  # things of a kind in a scene at most
EXTENT = 4.0  # [m] of the visible scene: the camera's near and far planes are multiples of it
STORE = 50.0  # [m] below the floor: where furniture is kept that a scene does not have
SCENERY = 2  # group of all geoms but the robot's, which have 1, or 3 if hidden
FAR_OUT = 10.0  # [image widths or heights] at which coordinates out of view are clipped
OBSERVED_EVERY = 0.1  # [s] between two observations of the drive


class MobileBaseWorld(RobotWorld):
    """Simulated base; the world frame is that of the scenes.

    Args:
        scenes: maps a seed to its scene.
        shift: of its scenes; "instance" changes the model: other instances of things.
    """

    def __init__(self, embodiment: Embodiment, scenes: Callable[[int], Scene], shift: Shift | None = None) -> None:
        self._scenes = scenes
        spec = robot_spec(embodiment)
        spec.option.timestep = TIMESTEP
        spec.stat.extent = EXTENT
        _add_drives(spec)
        _add_walls(spec)
        instance = int(shift == "instance")
        for kind, forms in FURNITURE.items():
            for number in range(PER_KIND):
                _add_furniture(spec, f"{kind} {number}", forms[instance])
        add_camera_to_link(spec, "ego", "camera_link", FOVY)
        super().__init__(embodiment, spec, {"ego": "camera_optical_frame"})
        self._planar = np.array([self.model.joint(name).qposadr[0] for name in PLANAR])
        self._drives = np.array([self.model.actuator(name).id for name in PLANAR])
        self._wheels = np.array([self.model.joint(name).qposadr[0] for name in WHEELS])
        self._wheel_speeds = np.array([self.model.joint(name).dofadr[0] for name in WHEELS])
        self._wheel_drives = np.array([self.model.actuator(name).id for name in WHEELS])
        self._scenery = np.zeros(6, np.uint8)
        self._scenery[SCENERY] = 1
        self.scene: Scene
        self.reset(0)

    @property
    def instruction(self) -> str:
        return self.scene.instruction

    def lay_out(self, seed: int) -> None:
        """Place walls, furniture and, at its start, the base as in the scene of `seed`."""
        self.scene = scene = self._scenes(seed)
        self._build(scene)
        self._bodies = self._furnish(scene)
        self.place(np.array(scene.start))

    def place(self, pose: np.ndarray) -> None:
        """Set the base to `pose` (x, y [m], heading [rad]), at rest; the episode starts there."""
        self.data.qpos[self._planar] = pose
        self.data.qvel[:] = 0
        self.data.ctrl[:] = 0
        self._commanded = (0.0, 0.0)
        self._observed, self._drifted = self.data.time, 0.0
        self._place_things()
        mujoco.mj_forward(self.model, self.data)
        self._history = Drive(self.scene, self.pose, self.things())

    def step(self, n: int = 1) -> None:
        for _ in range(n):
            super().step()
            if self.data.time >= self._observed + OBSERVED_EVERY:
                self._observed += OBSERVED_EVERY
                self._drifted += 0.0 if self._history.journey.ever_reached else OBSERVED_EVERY  # until it is reached
                self._place_things()
                self._observe()

    def viewpoint(self) -> Viewpoint:
        """Above the room, so that the start and everything on the way to the goal are in view."""
        return view_of(self.scene)

    def dress(self, scene: mujoco.MjvScene) -> None:
        cut_walls(scene, self.model, self.scene)

    @property
    def pose(self) -> np.ndarray:
        """True pose of the base: x [m], y [m], heading [rad]."""
        return self.data.qpos[self._planar]

    def drive(self, linear: float, angular: float, wheels: tuple[float, float]) -> None:
        """Drive at `linear` [m/s] and `angular` [rad/s], and rotate the wheels, left and right, at `wheels` [rad/s]."""
        heading = self.data.qpos[self._planar[2]]
        self.data.ctrl[self._drives] = [linear * np.cos(heading), linear * np.sin(heading), angular]
        self.data.ctrl[self._wheel_drives] = wheels
        self._commanded = (linear, angular)

    def wheel_positions(self) -> np.ndarray:
        """Left and right wheel [rad], unwrapped."""
        return self.data.qpos[self._wheels]

    def wheel_velocities(self) -> np.ndarray:
        """Left and right wheel [rad/s]."""
        return self.data.qvel[self._wheel_speeds]

    # ----------------------------------------------------------- ground truth
    def task_state(self) -> TaskState:
        return self.scene.task.judge(self.situation())

    def situation(self) -> Situation:
        """The current state on which task and expert depend."""
        return Situation(self.scene.with_things_at(self.things()), self.pose, self.in_view, self._history)

    def things(self) -> np.ndarray:
        """(things, 2) current positions of the things of the scene [m]."""
        return np.array([thing.place_at(self._drifted) for thing in self.scene.things])

    def points(self) -> np.ndarray:
        """(things + 1, 3) points at the center of the things and, last, of the door [m]."""
        heights = [min(thing.form.height / 2, POINT_HEIGHT) for thing in self.scene.things]
        return np.vstack([np.column_stack([self.things(), heights]), [0.0, self.scene.door, POINT_HEIGHT]])

    def image_points(self) -> np.ndarray:
        """(things + 1, 3) u, v and depth [m] of `points` in `ego`; visible if u, v are in 0..1 and depth > 0.

        A negative depth: behind the camera, or occluded. u, v far out of view are clipped.
        """
        points = self.points()
        found = self.project("ego", points)
        found[:, :2] = np.clip(found[:, :2], -FAR_OUT, FAR_OUT)
        ahead = (found[:, 2] > 0) & (np.abs(found[:, :2] - 0.5) <= 0.5).all(axis=1)
        for index in np.flatnonzero(ahead):
            if self._hidden(points[index], None if index == len(points) - 1 else self._bodies[index]):
                found[index, 2] *= -1
        return found

    def in_view(self, index: int | None) -> bool:
        """Whether the center of a thing, None: of the door, is in the image and not occluded."""
        u, v, depth = self.image_points()[-1 if index is None else index]
        return bool(depth > 0 and 0 <= u <= 1 and 0 <= v <= 1)

    # --------------------------------------------------------------- internal
    def _observe(self) -> None:
        """Update the drive, ten times a second."""
        self._history.seen = self._history.seen or self.in_view(self.scene.target)
        self._history.observe(self.pose, self._commanded, self.things(), self.data.ncon > 0, OBSERVED_EVERY)

    def _hidden(self, point: np.ndarray, body: int | None) -> bool:
        """Whether something is between the camera and a point of a body, None: of no body."""
        eye = self.data.cam_xpos[self.model.camera("ego").id]
        ray, geom = point - eye, np.full(1, -1, np.int32)
        hit = mujoco.mj_ray(self.model, self.data, eye, ray, self._scenery, 1, -1, geom)
        return 0 <= hit < 1 and (body is None or self.model.geom_bodyid[geom[0]] != body)

    def _build(self, scene: Scene) -> None:
        """Place and color walls, floors, mat, door and light."""
        (depth, width), (hall_depth, hall_width), door = scene.room, scene.hall, scene.door
        edge, thick, side = WALL / 2, WALL / 2, DOOR_WIDTH / 2
        places = {
            "room floor": (-REACH, 0),
            "hall floor": (REACH, 0),
            "mat": (edge + MAT_DEPTH / 2, door),
            "room back": (-edge - depth - thick, 0),
            "hall back": (edge + hall_depth + thick, 0),
            "left post": (0, door + side),
            "right post": (0, door - side),
            "lintel": (0, door),
        }
        for name, sign in (("left", 1), ("right", -1)):
            places[f"room {name}"] = (-REACH, sign * (width / 2 + thick))
            places[f"hall {name}"] = (REACH, sign * (hall_width / 2 + thick))
            places[f"room {name} of door"] = (-edge / 2, door + sign * (side + REACH))
            places[f"hall {name} of door"] = (edge / 2, door + sign * (side + REACH))
        for name, place in places.items():
            geom = self.model.geom(name)
            geom.pos[:2] = place
            space, _, part = name.partition(" ")
            if space in ("room", "hall"):
                geom.rgba[:3] = getattr(scene, f"{space}_floor" if part == "floor" else f"{space}_wall")
        self.model.light("lamp").dir[:] = scene.light_direction
        self.model.light("lamp").diffuse[:] = scene.light_intensity
        self.model.vis.headlight.ambient[:] = AMBIENT * scene.light_intensity

    def _furnish(self, scene: Scene) -> list[int]:
        """Choose and color a body for every thing; all others are put in the store."""
        self.data.mocap_pos[:] = [0, 0, -STORE]
        used: dict[str, int] = {}
        bodies = []
        for thing in scene.things:
            number = used.get(thing.kind, 0)
            used[thing.kind] = number + 1
            body = self.model.body(f"{thing.kind} {number}")
            self._paint(body, thing)
            bodies.append(body.id)
        return bodies

    def _paint(self, body, thing: Thing) -> None:
        self.data.mocap_quat[body.mocapid[0]] = Rotation.from_euler("z", thing.yaw).as_quat(scalar_first=True)
        for number, part in enumerate(thing.form.parts):
            if part.rgb is None:
                self.model.geom_rgba[body.geomadr[0] + number, :3] = thing.rgb

    def _place_things(self) -> None:
        self.data.mocap_pos[self.model.body_mocapid[self._bodies], :2] = self.things()
        self.data.mocap_pos[self.model.body_mocapid[self._bodies], 2] = 0


def _add_drives(spec: mujoco.MjSpec) -> None:
    """Add planar joints with drives for the base and drives for the wheels; wheels and casters have no contacts."""
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


def _add_walls(spec: mujoco.MjSpec) -> None:
    """Add floors and walls of both spaces, door frame, mat, sky and light; a scene sets positions and colors.

    The wall between room and hall has two layers, one in the color of each side.
    """
    half, up = WALL / 2, WALL_HEIGHT / 2
    solid, ghost = {"contype": 2, "conaffinity": 1}, {"contype": 0, "conaffinity": 0}
    boxes: dict[str, tuple[list[float], float, tuple[float, ...], dict[str, int]]] = {
        "mat": ([MAT_DEPTH / 2, DOOR_WIDTH / 2, 0.002], 0.002, MAT_RGB, ghost)
    }
    for name in ("room", "hall"):
        boxes[f"{name} floor"] = ([REACH, 2 * REACH, 0.05], -0.05, (0.5,) * 3, ghost)
        boxes[f"{name} back"] = ([half, 2 * REACH, up], up, (0.5,) * 3, solid)
        for side in ("left", "right"):
            boxes[f"{name} {side}"] = ([REACH, half, up], up, (0.5,) * 3, solid)
            boxes[f"{name} {side} of door"] = ([half / 2, REACH, up], up, (0.5,) * 3, solid)
    along, across, tall = POSTS
    for name in ("left post", "right post"):
        boxes[name] = ([across, along, tall], tall, DOOR_RGB, ghost)
    boxes["lintel"] = ([across, DOOR_WIDTH / 2 + along, along], 2 * tall, DOOR_RGB, ghost)
    for name, (size, height, rgb, contact) in boxes.items():
        spec.worldbody.add_geom(
            name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=size, pos=[0, 0, height], rgba=[*rgb, 1], group=SCENERY,
            **contact,
        )  # fmt: skip
    sun = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    spec.worldbody.add_light(name="lamp", type=sun, dir=[0, 0, -1], diffuse=[0.7] * 3, castshadow=False)
    sky = mujoco.mjtTexture.mjTEXTURE_SKYBOX
    flat = mujoco.mjtBuiltin.mjBUILTIN_FLAT
    spec.add_texture(name="sky", type=sky, builtin=flat, rgb1=[0.93] * 3, rgb2=[0.93] * 3, width=8, height=48)


def _add_furniture(spec: mujoco.MjSpec, name: str, form: Furniture) -> None:
    """Add a thing, in the store; its mocap pose places it."""
    kinds = {
        "box": mujoco.mjtGeom.mjGEOM_BOX,
        "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
        "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    }
    body = spec.worldbody.add_body(name=name, mocap=True, pos=[0, 0, -STORE])
    for part in form.parts:
        body.add_geom(
            type=kinds[part.shape], size=[*part.size, 0, 0][:3], pos=part.place, rgba=[*(part.rgb or (0.5,) * 3), 1],
            group=SCENERY, contype=2, conaffinity=1,
        )  # fmt: skip
