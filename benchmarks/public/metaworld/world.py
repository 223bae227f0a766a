# SPDX-License-Identifier: Apache-2.0
"""Meta-World in its own environment: the tasks of MT50 as LeRobot evaluates them, and the package's scripted policies.

A row of a chunk is a set-point of the hand and an opening of the gripper, which four of the simulator's steps approach:
its own actions are shifts of the set-point by up to 1 cm a step, and an effort of the fingers from -1 (open) to 1.
"""

from __future__ import annotations

import warnings
from contextlib import closing

import numpy as np

from benchmarks.public.metaworld.tasks import INSTRUCTIONS
from benchmarks.public.protocol.world_server import serve_world, use_software_rendering

use_software_rendering()  # before MuJoCo is imported

import mujoco  # noqa: E402
from metaworld.env_dict import ALL_V3_ENVIRONMENTS  # noqa: E402
from metaworld.policies import ENV_POLICY_MAP  # noqa: E402

STEPS = 4  # of the simulator for a row
MAX_STEPS = 500
SHIFT = 0.01  # [m] of the set-point for an action of 1
GAP = 0.1  # [m] between the fingers where the observation is 1
SIZE = (480, 480)  # [px] of an observation's image
CAMERA, CAMERA_POSITION = "corner2", (0.75, 0.075, 0.7)  # as in LeRobot
SUPERSAMPLING = 2  # smaller images are rendered larger by this, and averaged: cheaper than the renderer's smoothing
SMOOTHING = 4  # samples of a pixel in a full image
PERTURBED = 0.5  # share of the demonstrations that begin where random motion has led
PROGRESS = (0, 15)  # rows of the task before that, of about 25
PUSH = (2, 6)  # rows of random motion
REACH = 0.12  # [m] that it leads away, at most, along each axis


class MetaWorld:
    """One task at a time. See `World`."""

    def __init__(self) -> None:
        self._task = ""
        self._renderer: mujoco.Renderer | None = None
        warnings.filterwarnings("ignore", message="Constant.s. may be too high")  # the scripted policies saturate

    def start(self, task: str, start: int) -> dict:
        self._reset(task, start)
        return self._seen(SIZE)

    def execute(self, rows: np.ndarray, film: bool) -> dict:
        looks = []
        for row in rows:
            self._approach(row)
            if film:
                looks.append({"seconds": self._seconds, "images": self._seen(SIZE)["images"]})
            if self._over:
                break
        return {
            "observation": self._seen(SIZE),
            "success": self._success,
            "over": self._over,
            "seconds": self._seconds,
            "failure": "" if self._success else self._failure(),
            "distance": float(self._info["obj_to_target"]),
            "looks": looks,
            "elapsed": self._steps / MAX_STEPS,
            "free": True,  # the package's policies remember nothing
        }

    def demonstrate(self, task: str, start: int, size: list[int] | None) -> dict:
        """Half of those with images begin where random motion amid the task has led: the expert recovers from it."""
        self._reset(task, start)
        if size:
            self._perturb(start)
        return self._recorded(size)

    def take_over(self, size: list[int] | None) -> dict:
        self._steps = 0
        return self._recorded(size)

    def _recorded(self, size: list[int] | None) -> dict:
        """Run the expert from here."""
        frames: dict[str, list] = {"observation.state": [], "action": []}
        images = []
        while not self._over:
            if size:
                images.append(self._seen(tuple(size))["images"]["ego"])
            frames["observation.state"].append(self._state())
            frames["action"].append(self._demonstrated_row())
        columns = {name: np.array(rows, np.float32) for name, rows in frames.items()}
        if size:
            columns["observation.images.ego"] = np.array(images)
        shown = self._success and len(columns["action"]) > 0  # random motion may have succeeded by itself
        return {"success": shown, "instruction": INSTRUCTIONS[self._task], "frames": columns}

    def close(self) -> None:
        """Let go of the renderer: before another one is made, which would return garbage, and at the end."""
        if self._renderer:
            self._renderer.close()
        self._renderer = None

    # --- the episode ------------------------------------------------------------------------------------------------

    def _reset(self, task: str, start: int) -> None:
        if task != self._task:
            self._load(task)
        self._env.seed(start)
        self._observation, _ = self._env.reset()
        self._expert = ENV_POLICY_MAP[f"{task}-v3"]()
        self._steps, self._success = 0, False
        self._info, self._stages = {"obj_to_target": np.nan}, set()

    def _load(self, task: str) -> None:
        self.close()
        env = ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
        env._freeze_rand_vec, env.seeded_rand_vec, env._set_task_called = False, True, True
        env._partially_observable = False  # the scripted policies read the goal; the images and the state do not change
        env.__dict__.pop("sawyer_observation_space", None)  # cached for the former
        env.model.camera(CAMERA).pos[:] = CAMERA_POSITION
        env.model.vis.quality.shadowsize = 0
        self._env, self._task = env, task

    @property
    def _over(self) -> bool:
        return self._success or self._steps >= MAX_STEPS

    @property
    def _seconds(self) -> float:
        return self._steps * self._env.dt

    def _step(self, action: np.ndarray) -> None:
        self._observation, *_, self._info = self._env.step(np.clip(action, -1.0, 1.0))
        self._steps += 1
        self._success = bool(self._info["success"])
        self._stages |= {name for name in ("near_object", "grasp_success") if self._info[name] > 0}

    def _approach(self, row: np.ndarray) -> None:
        """Move the set-point evenly to that of a row."""
        for left in range(STEPS, 0, -1):
            if self._over:
                return
            shift = (row[:3] - self._set_point) / SHIFT / left
            self._step(np.append(shift, 1.0 - 2.0 * row[3]))

    @property
    def _set_point(self) -> np.ndarray:
        return self._env.data.mocap_pos[0]

    def _failure(self) -> str:
        if "grasp_success" in self._stages:
            return "held the object, but not to the goal"
        return "reached the object" if "near_object" in self._stages else "did not reach the object"

    # --- what is seen -----------------------------------------------------------------------------------------------

    def _seen(self, size: tuple[int, int]) -> dict:
        return {"images": {"ego": self._image(size)}, "state": self._state(), "instruction": INSTRUCTIONS[self._task]}

    def _state(self) -> np.ndarray:
        """Position of the hand [m], gap between the fingers [m]."""
        return np.append(self._observation[:3], GAP * self._observation[3])

    def _image(self, size: tuple[int, int]) -> np.ndarray:
        """The camera's image, turned by 180 degrees as the benchmark has it."""
        factor = 1 if size == SIZE else SUPERSAMPLING
        height, width = (factor * side for side in size)
        if self._renderer is None or (self._renderer.height, self._renderer.width) != (height, width):
            self.close()
            self._env.model.vis.quality.offsamples = SMOOTHING if factor == 1 else 0
            self._renderer = mujoco.Renderer(self._env.model, height, width)
        self._renderer.update_scene(self._env.data, CAMERA)
        image = self._renderer.render()[::-1, ::-1]
        blocks = image.reshape(size[0], factor, size[1], factor, 3)
        return blocks.mean((1, 3)).round().astype(np.uint8) if factor > 1 else np.ascontiguousarray(image)

    # --- the expert -------------------------------------------------------------------------------------------------

    def _demonstrated_row(self) -> np.ndarray:
        """Let the expert act for one row; returns the set-point where that led, and the first gap asked for [m]."""
        gaps = []
        for _ in range(STEPS):
            if not self._over:
                action = np.clip(self._expert.get_action(self._observation), -1.0, 1.0)
                gaps.append(GAP * (1.0 - action[3]) / 2.0)
                self._step(action)
        return np.append(self._set_point, gaps[:1])

    def _perturb(self, start: int) -> None:
        """In half of the start states: act until somewhere in the task, then move at random; the same for a state."""
        random = np.random.default_rng(start)
        if random.random() >= PERTURBED:
            return
        for _ in range(int(random.integers(*PROGRESS))):
            self._demonstrated_row()
        goal = np.append(self._set_point + random.uniform(-REACH, REACH, 3), random.random() < 0.5)
        for _ in range(int(random.integers(*PUSH))):
            self._approach(goal)


if __name__ == "__main__":
    with closing(MetaWorld()) as world:
        serve_world(world)
