# SPDX-License-Identifier: Apache-2.0
"""One task of LIBERO: official and other start states, exact poses, and images on demand.

The package renders two images at every step; here `image` does it when one is needed, and gets the same pixels.
"""

from __future__ import annotations

import logging
import os
from contextlib import redirect_stdout

import mujoco
import numpy as np

logging.getLogger("robosuite_logs").setLevel(logging.ERROR)  # it asks for a file of macros, which is optional
from libero.libero import benchmark, get_libero_path  # noqa: E402
from libero.libero.envs.env_wrapper import ControlEnv  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from benchmarks.public.libero.actions import IDLE  # noqa: E402
from benchmarks.public.libero.expert import Boxes  # noqa: E402
from benchmarks.public.libero.tasks import APART, OFFICIAL_STATES, SUITE_OF, nearest, shifts  # noqa: E402
from benchmarks.public.protocol.poses import matrix  # noqa: E402

CAMERAS = {"ego": "agentview", "cam_wrist": "robot0_eye_in_hand"}
SIZE = (256, 256)  # [px] of an observation's image
SETTLING = 10  # idle actions after a reset, as in the official protocol
ROBOT = ("robot0", "gripper0", "mount0")
TIP, HAND = (
    "gripper0_grip_site",
    "robot0_right_hand",
)  # where the tip is, and how it is turned: as `robot0_eef_…` has it
COLLISION_GROUP = 0  # of geoms, which robosuite does not render
RENDERED = np.array([0, 1, 1, 0, 0, 0], np.uint8)  # groups of geoms
AROUND_A_POINT = 0.08  # [m] about the size of things
MOVED = 0.015  # [m] objects that settle this much otherwise than officially did not have room where they were put
ATTEMPTS = 50  # to find room for one start state


class Scene:
    """A task that can be reset, stepped, looked at and judged. Poses are in the world, whose axes are the base's."""

    def __init__(self, task: str) -> None:
        self._task, suite = task, SUITE_OF[task]
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing):  # the package reports an order of tasks
            tasks = benchmark.get_benchmark(suite)()
            self._states = np.asarray(tasks.get_task_init_states(tasks.get_task_names().index(task)))
            self._env = ControlEnv(
                os.path.join(get_libero_path("bddl_files"), suite, f"{task}.bddl"),
                use_camera_obs=False,
                has_offscreen_renderer=False,
                hard_reset=False,
                ignore_done=True,
            )
        self._domain, self._renderer = self._env.env, None
        self._settlings: dict[int, np.ndarray] = {}
        self._model, self._data = self._env.sim.model._model, self._env.sim.data._data
        self._visible = mujoco.MjvOption()
        self._visible.geomgroup[COLLISION_GROUP] = 0
        goal = self._domain.parsed_problem["goal_state"][0]
        self.object, self.goal = goal[1], goal[-1]
        region = self._domain.object_sites_dict.get(self.goal)
        self.support = region.parent_name if region else self.goal

    # --- start states -----------------------------------------------------------------------------------------------

    def reset_official(self, number: int) -> None:
        """Reset to an official state, 0 … 49."""
        self._put(self._states[number % OFFICIAL_STATES])
        self._settle()

    def reset(self, seed: int) -> None:
        """Reset to a start state of our own: an official one in which all objects were shifted.

        RuntimeError if objects never had room where they were put.
        """
        for attempt in range(ATTEMPTS):
            random = np.random.default_rng([seed, attempt])
            number = int(random.integers(OFFICIAL_STATES))
            state = self._states[number].copy()
            for group, shift in zip(self._groups, shifts(random, len(self._groups)), strict=True):
                for name in group:
                    state[self._xy(name) + 1] += shift  # a state begins with the time
            official = self._settling_of_official(number)
            placed, settling = self._settled(state)
            moved = np.linalg.norm(settling - official, axis=1).max()
            if moved < MOVED and nearest(self.official_places(), placed[:, :2]) >= APART:
                return
        raise RuntimeError(f"{self._task}: no start state for seed {seed} in {ATTEMPTS} tries: objects do not stay put")

    def _settled(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reset to a state; (n, 3) where its objects were put, and how far they went until they stood [m]."""
        self._put(state)
        placed = self.places()
        self._settle()
        return placed, self.places() - placed

    def _settling_of_official(self, number: int) -> np.ndarray:
        """(n, 3) how far the objects of an official state go: they float above what they stand on, or slide off it."""
        if number not in self._settlings:
            self._settlings[number] = self._settled(self._states[number])[1]
        return self._settlings[number]

    def official_places(self) -> np.ndarray:
        """(50, n, 2) x and y of all objects in the official states [m]."""
        return self._states[:, 1 + np.array([self._xy(name) for name in self._domain.objects_dict])]

    @property
    def _groups(self) -> list[list[str]]:
        """Objects that stand on each other move together."""
        initial = self._domain.parsed_problem["initial_state"]
        below = {state[1]: state[2] for state in initial if state[0] == "on" and state[2] in self._domain.objects_dict}
        groups: dict[str, list[str]] = {}
        for name in self._domain.objects_dict:
            root = name
            while root in below:
                root = below[root]
            groups.setdefault(root, []).append(name)
        return list(groups.values())

    def _put(self, state: np.ndarray) -> None:
        """Fixtures are where the package's generator puts them after the seed 0, objects as in the state.

        The package makes everything anew for each episode; of what is kept here, it is the gripper that remembers.
        """
        self._env.seed(0)
        self._env.reset()
        gripper = self._domain.robots[0].gripper
        gripper.current_action = np.zeros(gripper.dof)
        self._env.set_init_state(state)

    def _settle(self) -> None:
        for _ in range(SETTLING):
            self.step(IDLE)

    def _xy(self, name: str) -> np.ndarray:
        """Indices of an object's x and y among the positions of joints."""
        joint = self._domain.objects_dict[name].joints[-1]
        return self._model.joint(joint).qposadr[0] + np.arange(2)

    def places(self) -> np.ndarray:
        """(n, 3) of all objects [m]."""
        return np.array([self.pose(name)[:3, 3] for name in self._domain.objects_dict])

    # --- one step ---------------------------------------------------------------------------------------------------

    def step(self, action: np.ndarray) -> bool:
        """Execute an action (7,) of OSC_POSE for 50 ms; whether the task is done."""
        return bool(self._env.step(action)[2])

    def image(self, tag: str, size: tuple[int, int] = SIZE) -> np.ndarray:
        """What a camera sees (height, width, 3), turned by 180 degrees from how the package returns it."""
        if self._renderer is None or (self._renderer.height, self._renderer.width) != size:
            self._drop_renderer()
            self._renderer = mujoco.Renderer(self._model, *size)
        self._renderer.update_scene(self._data, CAMERAS[tag], self._visible)
        return np.ascontiguousarray(self._renderer.render()[:, ::-1])

    def points(self, tag: str) -> np.ndarray:
        """(3, 3) where object, destination and tip are in a camera's image: u, v in 0…1, and depth [m], 0 if hidden."""
        camera = self._data.cam(CAMERAS[tag])
        things = [self.pose(name)[:3, 3] for name in (self.object, self.support)]
        points = np.stack([*things, self.hand()[:3, 3]])
        right, up, back = ((points - camera.xpos) @ camera.xmat.reshape(3, 3)).T
        scale = 0.5 / np.tan(np.radians(self._model.cam(CAMERAS[tag]).fovy[0]) / 2) / -back
        seen = [self._sees(camera.xpos, point) for point in points]
        return np.column_stack([0.5 - scale * right, 0.5 - scale * up, np.where(seen, -back, 0.0)])

    def _sees(self, eye: np.ndarray, point: np.ndarray) -> bool:
        """Whether nothing is between them, but for what surrounds the point itself."""
        ray, hit = point - eye, np.zeros(1, np.int32)
        length = np.linalg.norm(ray)
        distance = mujoco.mj_ray(self._model, self._data, eye, ray / length, RENDERED, 1, -1, hit)
        return distance < 0 or distance > length - AROUND_A_POINT

    def close(self) -> None:
        """Let go of renderer and simulator, which take a gigabyte."""
        self._drop_renderer()
        self._env.close()

    def _drop_renderer(self) -> None:
        if self._renderer:
            self._renderer.close()
        self._renderer = None

    def joints(self) -> np.ndarray:
        """(8,) the arm's joints [rad] and a finger [m]."""
        return self._data.qpos[:8].copy()

    def hand(self) -> np.ndarray:
        """(4, 4) pose of the tip."""
        turn = self._data.body(HAND).xmat.reshape(3, 3)
        return matrix(self._data.site(TIP).xpos, Rotation.from_matrix(turn))

    def pose(self, name: str) -> np.ndarray:
        """(4, 4) pose of an object, a fixture or a region."""
        if name in self._domain.object_sites_dict:
            part = self._data.site(name)
        else:
            part = self._data.body(self._domain.obj_body_id[name])
        return matrix(part.xpos, Rotation.from_matrix(part.xmat.reshape(3, 3)))

    def boxes(self, name: str) -> Boxes:
        """The boxes by which an object collides."""
        return self._boxes(self._model.body_rootid == self._domain.obj_body_id[name])

    def obstacles(self) -> Boxes:
        """The boxes of everything but robot and object."""
        names = [self._model.body(root).name for root in self._model.body_rootid]
        others = np.array([not name.startswith(ROBOT) for name in names])
        return self._boxes(others & (self._model.body_rootid != self._domain.obj_body_id[self.object]))

    def _boxes(self, bodies: np.ndarray) -> Boxes:
        """Those of the bodies in a mask."""
        model, data = self._model, self._data
        collide = (model.geom_type == mujoco.mjtGeom.mjGEOM_BOX) & (model.geom_contype > 0)
        geoms = np.flatnonzero(collide & bodies[model.geom_bodyid])
        poses = np.tile(np.eye(4), (len(geoms), 1, 1))
        poses[:, :3, :3], poses[:, :3, 3] = data.geom_xmat[geoms].reshape(-1, 3, 3), data.geom_xpos[geoms]
        return Boxes(poses, model.geom_size[geoms].copy())
