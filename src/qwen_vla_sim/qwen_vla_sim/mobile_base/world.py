"""The mobile base in MuJoCo: a room with a door to a hall, furniture in both, seen by the camera `ego`.

The base glides on two sliding joints and a hinge, driven at the speed that its wheels have; the wheels turn beside it.
Pushed against something it stands while the wheels go on, so that the odometry is wrong there, as it is in a real room.
Ground truth (poses, task state, image places of things) is offered for judging, scripted experts and training labels.
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
from qwen_vla_sim.task import Shift, TaskState

ROOT = "base_footprint"
PLANAR = {"base_x": ("slide", [1, 0, 0]), "base_y": ("slide", [0, 1, 0]), "base_heading": ("hinge", [0, 0, 1])}
WHEELS = ("wheel_left_joint", "wheel_right_joint")
TIMESTEP = 0.005  # [s]; a base needs no finer one
FOVY = 48.7  # vertical field of view of the camera [deg]: 62.2 wide at 4:3
DRIVE_GAIN = {"slide": 400.0, "hinge": 20.0}  # [N per m/s], [Nm per rad/s]: some 10 ms to reach a speed
DRIVE_FORCE = {"slide": 40.0, "hinge": 6.0}  # [N], [Nm]: what the wheels can push before they slip
WHEEL_GAIN = 5.0  # [Nm per rad/s]
WALL_HEIGHT = 2.4  # [m]
AMBIENT = 0.5  # share of the light that comes from everywhere
REACH = 3.0  # half length of walls and floors [m]: longer than any room, what is too much lies behind other walls
POSTS = (0.05, 0.08, 0.85)  # half thickness of the door's posts along the wall and across, half height [m]
DOOR_RGB, MAT_RGB = (0.40, 0.22, 0.10), (0.13, 0.11, 0.11)
POINT_HEIGHT = 0.15  # [m] at most, of the points that labels see: a little above the camera, in view also from near by
PER_KIND = 2  # things of a kind in a scene at most
EXTENT = 4.0  # [m] of what is to be seen: the camera's near and far planes are shares of it
STORE = 50.0  # [m] below the floor: where furniture waits that a scene does not have
SCENERY = 2  # group of all geoms that are not the robot's: those have 1, or 3 if they are hidden
FAR_OUT = 10.0  # pictures beside the picture
OBSERVED_EVERY = 0.1  # [s] between two looks at the drive


class MobileBaseWorld(RobotWorld):
    """Simulated base; the frame of the world is that of the scenes.

    Args:
        scenes: what a seed means.
        shift: kind of its scenes, as far as it is about the model: other instances of things.
    """

    def __init__(self, embodiment: Embodiment, scenes: Callable[[int], Scene], shift: Shift | None = None) -> None:
        self._scenes = scenes
        spec = robot_spec(embodiment)
        spec.option.timestep = TIMESTEP
        spec.stat.extent = EXTENT
        _let_it_drive(spec)
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
        """Put up walls and furniture, and the base at its start, as the scene of `seed` has them."""
        self.scene = scene = self._scenes(seed)
        self._build(scene)
        self._bodies = self._furnish(scene)
        self.place(np.array(scene.start))

    def place(self, pose: np.ndarray) -> None:
        """Put the base at `pose` (x, y [m], heading [rad]) at once, at rest; the episode starts there."""
        self.data.qpos[self._planar] = pose
        self.data.qvel[:] = 0
        self.data.ctrl[:] = 0
        self._told = (0.0, 0.0)
        self._observed, self._drifted = self.data.time, 0.0
        self._place_things()
        mujoco.mj_forward(self.model, self.data)
        self._history = Drive(self.scene, self.pose, self.things())

    def step(self, n: int = 1) -> None:
        for _ in range(n):
            super().step()
            if self.data.time >= self._observed + OBSERVED_EVERY:
                self._observed += OBSERVED_EVERY
                self._drifted += 0.0 if self._history.journey.been_there else OBSERVED_EVERY  # until it is reached
                self._place_things()
                self._observe()

    @property
    def pose(self) -> np.ndarray:
        """Where the base really is: x [m], y [m], heading [rad]."""
        return self.data.qpos[self._planar]

    def drive(self, linear: float, angular: float, wheels: tuple[float, float]) -> None:
        """Go on at `linear` [m/s] and `angular` [rad/s], and turn the wheels, left and right, at `wheels` [rad/s]."""
        heading = self.data.qpos[self._planar[2]]
        self.data.ctrl[self._drives] = [linear * np.cos(heading), linear * np.sin(heading), angular]
        self.data.ctrl[self._wheel_drives] = wheels
        self._told = (linear, angular)

    def wheel_positions(self) -> np.ndarray:
        """Left and right wheel [rad]; they count on from the start."""
        return self.data.qpos[self._wheels]

    def wheel_velocities(self) -> np.ndarray:
        """Left and right wheel [rad/s]."""
        return self.data.qvel[self._wheel_speeds]

    # ----------------------------------------------------------- ground truth
    def task_state(self) -> TaskState:
        return self.scene.task.judge(self.situation())

    def situation(self) -> Situation:
        """What task and expert depend on, now."""
        return Situation(self.scene.with_things_at(self.things()), self.pose, self.in_view, self._history)

    def things(self) -> np.ndarray:
        """(things, 2) where the things of the scene stand now [m]."""
        return np.array([thing.place_at(self._drifted) for thing in self.scene.things])

    def points(self) -> np.ndarray:
        """(things + 1, 3) points in the middle of the things and, last, of the door [m]."""
        heights = [min(thing.form.height / 2, POINT_HEIGHT) for thing in self.scene.things]
        return np.vstack([np.column_stack([self.things(), heights]), [0.0, self.scene.door, POINT_HEIGHT]])

    def image_points(self) -> np.ndarray:
        """(things + 1, 3) u, v and depth [m] of `points` in `ego`; u, v in 0..1 and depth > 0: seen.

        A negative depth: behind the camera, or something hides it. u, v of what is far out of view are cut off.
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
        """Whether the middle of a thing, None: of the door, is in the picture and nothing hides it."""
        u, v, depth = self.image_points()[-1 if index is None else index]
        return bool(depth > 0 and 0 <= u <= 1 and 0 <= v <= 1)

    # --------------------------------------------------------------- internal
    def _observe(self) -> None:
        """What counts for the drive, ten times a second."""
        self._history.seen = self._history.seen or self.in_view(self.scene.target)
        self._history.observe(self.pose, self._told, self.things(), self.data.ncon > 0, OBSERVED_EVERY)

    def _hidden(self, point: np.ndarray, body: int | None) -> bool:
        """Whether something stands between the camera and a point of a body, None: of no body."""
        eye = self.data.cam_xpos[self.model.camera("ego").id]
        way, geom = point - eye, np.full(1, -1, np.int32)
        hit = mujoco.mj_ray(self.model, self.data, eye, way, self._scenery, 1, -1, geom)
        return 0 <= hit < 1 and (body is None or self.model.geom_bodyid[geom[0]] != body)

    def _build(self, scene: Scene) -> None:
        """Walls, floors, mat, door and light."""
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
        """Choose a body for every thing and paint it; all others go to the store."""
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


def _add_walls(spec: mujoco.MjSpec) -> None:
    """Floors and walls of both spaces, door frame, mat, sky and light; a scene decides about places and colours.

    The wall between room and hall has two layers, one in the colour of either side.
    """
    half, up = WALL / 2, WALL_HEIGHT / 2
    solid, ghost = {"contype": 2, "conaffinity": 1}, {"contype": 0, "conaffinity": 0}
    boxes = {"mat": ([MAT_DEPTH / 2, DOOR_WIDTH / 2, 0.002], 0.002, MAT_RGB, ghost)}
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
    """A thing in store; it stands where its mocap pose says."""
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
