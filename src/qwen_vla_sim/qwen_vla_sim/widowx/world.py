# SPDX-License-Identifier: Apache-2.0
"""The WidowX tabletop in MuJoCo: the arm at a table with things on it, and the cameras `ego` and `cam_wrist`.

Ground truth (positions of things, task state, image positions) is for judging, scripted experts and training labels;
a policy gets only images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions import Embodiment
from qwen_vla_sim.robot_world import RobotWorld, look_at, robot_spec
from qwen_vla_sim.spectator.viewpoint import Viewpoint, add_ground
from qwen_vla_sim.task import Shift, TaskState
from qwen_vla_sim.widowx.scene import DRIFT_SPEED, SLOTS, Scene, Thing
from qwen_vla_sim.widowx.situation import LIFTED_ONCE, Situation
from qwen_vla_sim.widowx.table_spec import (
    EGO_POSITION,
    EGO_TARGET,
    add_cameras,
    add_planks,
    add_table,
    add_thing,
    body_name,
)
from qwen_vla_sim.widowx.things import KINDS
from qwen_vla_sim.widowx.tool import ToolDown

GROUND = -0.75  # [m] of the floor that a spectator sees below the table
REACHED = 0.05  # [m] from the tip, at which a moving thing stops
AWAY = np.array([0.0, 0.0, -3.0])  # where things that a scene does not have are kept, out of view
SETTLE_STEPS = 100  # physics steps until a setup is at rest: a thing on an edge, fingers around a thing
DRIFT_STEPS = 5  # physics steps between two displacements of a moving thing


class WidowXWorld(RobotWorld):
    """Simulated WidowX 250s at its table; the world frame is base_link.

    Args:
        scenes: maps a seed to its scene.
        kinds: of all things that its scenes may have.
        shift: of its scenes; some change the model: unseen designs of things, another table.
    """

    def __init__(
        self, embodiment: Embodiment, scenes: Callable[[int], Scene], kinds: Sequence[str], shift: Shift | None = None
    ) -> None:
        self._scenes, self._kinds, self.shift = scenes, kinds, shift
        spec = robot_spec(embodiment)
        add_table(spec)
        self._bodies = self._add_things(spec)
        if shift == "background":
            add_planks(spec)
        add_cameras(spec)
        super().__init__(embodiment, spec, {"ego": "ego_optical_frame", "cam_wrist": "wrist_camera_optical_frame"})
        self._find_bodies()
        self.scene: Scene
        self.reset(0)

    @property
    def instruction(self) -> str:
        return self.scene.instruction

    def lay_out(self, seed: int) -> None:
        """Place things, light and camera as in the scene of `seed`."""
        self.scene = scene = self._scenes(seed)
        self._used = np.array([self._numbers[thing.kind, thing.slot] for thing in scene.things])
        for number in set(range(len(self._bodies))) - set(self._used.tolist()):
            self._put_away(number)
        for thing, number in zip(scene.things, self._used, strict=True):
            self._put(thing, number)
        around = scene.surroundings
        self.model.geom("table").rgba[:3] = around.table_rgb
        self.model.light("lamp").pos[:] = around.light_position
        self.model.light("lamp").diffuse[:] = around.light_intensity
        camera = self.model.camera("ego")
        position = EGO_POSITION + around.camera_offset
        camera.pos[:] = position
        camera.quat[:] = look_at(position, EGO_TARGET + around.camera_target_offset)
        self._start = np.array([(thing.x, thing.y, thing.design.rest) for thing in scene.things])
        self._lifted = np.zeros(len(scene.things), bool)
        self._nearest = np.inf
        self._drifting, self._drifted = any(scene.drift), 0.0

    def step(self, n: int = 1) -> None:
        """Advance by n physics steps."""
        while n > 0:
            steps = min(n, DRIFT_STEPS) if self._drifting else n
            if self._drifting:
                self._move_target(steps * self.timestep)
            mujoco.mj_step(self.model, self.data, steps)
            n -= steps
        positions = self.thing_positions()
        self._lifted |= positions[:, 2] - self._start[:, 2] > LIFTED_ONCE
        self._nearest = min(self._nearest, self._tip_distance(positions))

    def viewpoint(self) -> Viewpoint:
        """Beside the table, opposite the arm."""
        return Viewpoint((0.26, 0.05, 0.12), 1.14, 128.0, -29.0)

    def dress(self, scene: mujoco.MjvScene) -> None:
        add_ground(scene, GROUND)

    @cached_property
    def tool(self) -> ToolDown:
        """Kinematics of the arm."""
        return ToolDown(self.embodiment)

    # ----------------------------------------------------------- ground truth
    def tip_pose(self) -> np.ndarray:
        """4×4 pose of the gripper tip in base_link."""
        return self.link_pose(self.embodiment.arms[0].tip_link)

    def thing_positions(self) -> np.ndarray:
        """(N, 3) origins of the things in base_link [m], in the order of `scene.things`."""
        return self.data.xpos[self._body_ids[self._used]].copy()

    def grip_points(self) -> np.ndarray:
        """(N, 3) the tip's positions when it holds a thing [m]; for a fixed thing, its origin."""
        points = self.thing_positions()
        points[:, 2] += [thing.design.grip if thing.movable else 0.0 for thing in self.scene.things]
        return points

    def label_points(self) -> np.ndarray:
        """(N, 3) points that label the things [m]: their origins; for a fixed thing, the center of its top."""
        points = self.thing_positions()
        points[:, 2] += [0.0 if thing.movable else thing.design.top for thing in self.scene.things]
        return points

    def move_target(self, x: float, y: float, yaw: float) -> None:
        """Set up: place the target at x, y [m] and `yaw` [rad], on what is there."""
        thing, goal = self.scene.named, self.scene.goal_thing
        quaternion = Rotation.from_euler("z", yaw).as_quat(scalar_first=True)
        on_edge = 0.0 if goal.movable else goal.design.top
        position = np.array([x, y, thing.design.rest + on_edge + 0.001])
        self._place(self._used[self.scene.target], position, quaternion)
        self._start[self.scene.target] = position
        self._drifting = False
        mujoco.mj_forward(self.model, self.data)
        self.step(SETTLE_STEPS)

    def put_into_gripper(self, joints: np.ndarray) -> None:
        """Set up: the arm at `joints` holds the target; the finger gap must be the target's width."""
        self.place_arm(joints)
        thing, tip = self.scene.named, self.tip_pose()[:3, 3]
        yaw = np.pi * round(thing.yaw / np.pi)  # closing fingers align it
        quaternion = Rotation.from_euler("z", yaw).as_quat(scalar_first=True)
        self._place(self._used[self.scene.target], tip - [0, 0, thing.design.grip], quaternion)
        self._drifting = False
        mujoco.mj_forward(self.model, self.data)
        self.set_joint_target(np.append(joints[:-1], self.closed_gripper))
        self.step(SETTLE_STEPS)

    @property
    def closed_gripper(self) -> float:
        """Position of the gripper's joint when it is closed [m]."""
        gripper = self.embodiment.arms[0].gripper
        if gripper is None:
            raise ValueError(f"embodiment '{self.embodiment.name}' has no gripper; the tasks need one")
        return gripper.closed

    def task_state(self) -> TaskState:
        return self.scene.task.judge(self.situation())

    def situation(self) -> Situation:
        """The current state on which task and expert depend."""
        positions = self.thing_positions()
        return Situation(
            scene=self.scene,
            tip=self.data.xpos[self._tip].copy(),
            gripper=self.embodiment.gripper_from_joint(float(self.joint_positions()[-1])),
            positions=positions,
            speeds=np.linalg.norm(self.data.cvel[self._body_ids[self._used]][:, 3:], axis=1),
            touched=self._touched(),
            lifted=self._lifted.copy(),
            moved=np.linalg.norm(positions - self._start, axis=1),
            nearest=self._nearest,
        )

    def _touched(self) -> np.ndarray:
        """(N,) whether the robot touches each thing."""
        pairs = self._body_of_geom[self.data.contact.geom.reshape(-1, 2)]
        robot = self._is_robot[pairs]
        bodies = np.concatenate([pairs[robot[:, 1], 0], pairs[robot[:, 0], 1]])
        return np.isin(self._body_ids[self._used], bodies)

    # --------------------------------------------------------------- internal
    def _add_things(self, spec: mujoco.MjSpec) -> list[Thing]:
        """Add everything that a scene may have, once; returns what was added."""
        unseen = self.shift == "instance"
        stock = []
        for kind in self._kinds:
            for slot in range(SLOTS if kind == "cube" else len(KINDS[kind].designs)):
                stock.append(Thing(kind, slot, (0.5, 0.5, 0.5), 0, 0, 0, "", unseen))
                add_thing(spec, stock[-1], len(stock) - 1)
        return stock

    def _find_bodies(self) -> None:
        names = [body_name(thing) for thing in self._bodies]
        self._numbers = {(thing.kind, thing.slot): number for number, thing in enumerate(self._bodies)}
        self._body_ids = np.array([self.model.body(name).id for name in names])
        joints = self.model.body_jntadr[self._body_ids]
        self._addresses = np.where(joints >= 0, self.model.jnt_qposadr[joints], -1)  # fixed things have none
        self._tip = self.model.body(self.embodiment.arms[0].tip_link).id
        self._body_of_geom = self.model.geom_bodyid.copy()
        self._is_robot = np.ones(self.model.nbody, bool)
        self._is_robot[0] = False
        self._is_robot[self._body_ids] = False

    def _put(self, thing: Thing, number: int) -> None:
        """Place and color a thing."""
        quaternion = Rotation.from_euler("z", thing.yaw).as_quat(scalar_first=True)
        self._place(number, np.array([thing.x, thing.y, thing.design.rest]), quaternion)
        body = self._body_ids[number]
        self.model.body_gravcomp[body] = 0.0
        first, count = self.model.body_geomadr[body], self.model.body_geomnum[body]
        parts = thing.design.visual or thing.design.collision
        for geom, part in zip(range(first + count - len(parts), first + count), parts, strict=True):
            paint = part.paint
            self.model.geom_rgba[geom, :3] = paint if isinstance(paint, tuple) else np.multiply(thing.rgb, paint)

    def _put_away(self, number: int) -> None:
        """Let a thing that the scene does not have float far below the table."""
        self._place(number, AWAY - [0, 0, 0.3 * number], np.array([1.0, 0, 0, 0]))
        self.model.body_gravcomp[self._body_ids[number]] = 1.0

    def _place(self, number: int, position: np.ndarray, quaternion: np.ndarray) -> None:
        address, body = self._addresses[number], self._body_ids[number]
        if address >= 0:
            self.data.qpos[address : address + 7] = [*position, *quaternion]
        else:
            self.model.body_pos[body], self.model.body_quat[body] = position, quaternion

    def _move_target(self, seconds: float) -> None:
        """Move a drifting target back and forth until the gripper reaches it or something touches it."""
        target = self.scene.target
        position = self.thing_positions()[target]
        if self._tip_distance(self.thing_positions()) < REACHED or self._touched()[target]:
            self._drifting = False
            return
        length = float(np.linalg.norm(self.scene.drift))
        before = _triangle_wave(self._drifted, length)
        self._drifted += DRIFT_SPEED * seconds
        displacement = np.array(self.scene.drift) * (_triangle_wave(self._drifted, length) - before) / length
        address = self._addresses[self._used[target]]
        self.data.qpos[address : address + 2] = self._start[target, :2] = position[:2] + displacement

    def _tip_distance(self, positions: np.ndarray) -> float:
        return float(np.linalg.norm(positions[self.scene.target] - self.data.xpos[self._tip]))


def _triangle_wave(distance: float, length: float) -> float:
    """Position between 0 and `length` after moving `distance` back and forth."""
    phase = distance % (2 * length)
    return min(phase, 2 * length - phase)
