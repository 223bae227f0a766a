# SPDX-License-Identifier: Apache-2.0
"""`aloha`: bimanual tasks at 50 Hz with joint positions; how they are demonstrated, recorded and executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_control.motion.timed_path import Path
from qwen_vla_sim.aloha.env import IMAGE_STEPS, AlohaEnv
from qwen_vla_sim.aloha.motion import SmoothMotion
from qwen_vla_sim.aloha.scene import NAMES
from qwen_vla_sim.aloha.world import CAMERAS, AlohaWorld
from qwen_vla_sim.suite import ArmSuite
from qwen_vla_sim.task import SHIFTS, Lead, Shift

MAX_EXPERT_STEPS = 450
# Frames recorded after success: the arms come to rest and stay, since the last command pads the chunks.
HOLD_STEPS = 20
THINGS = 3  # at most in a scene
POINTS = (*(f"object {i}" for i in range(THINGS)), "left tip", "right tip")


class AlohaSuite(ArmSuite):
    """Hand over the named cube, insert the named peg, lift the named tray, and added tasks."""

    name = "aloha"
    robot = "aloha"
    rotation = ("cube_transfer", "insertion", "tray_lift")
    shifts = SHIFTS
    max_steps = 600
    record_size = (96, 128)  # stored images (height, width); rendered at the cameras' 240 x 320

    def make_world(
        self, shift: Shift | None = None, task: str | None = None, embodiment: Embodiment | None = None
    ) -> AlohaWorld:
        return AlohaWorld(embodiment or self.embodiment, self._scenes(shift, task))

    def make_env(self, cameras: bool = True, shift: Shift | None = None, task: str | None = None) -> AlohaEnv:
        return AlohaEnv(self.make_world(shift, task), (240, 320) if cameras else None, self.max_steps)

    def features(self) -> dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]]:
        """Columns of a recording: name -> (dtype, shape, element names).

        annotation.points: camera x point x (u, v in 0..1, depth [m]); a point is visible if its depth is positive and
        u, v are in the image. annotation.fresh: 1 where the images were taken at that frame; images and points in
        between are those of the last one.
        """
        height, width = self.record_size
        joints = tuple(self.embodiment.joint_names)
        return {
            **{
                f"observation.images.{tag}": ("image", (height, width, 3), ("height", "width", "channel"))
                for tag in CAMERAS
            },
            "observation.state": ("float32", (len(joints),), joints),
            "action": ("float32", (len(joints),), joints),
            "annotation.points": ("float32", (len(CAMERAS) * len(POINTS) * 3,), ()),
            "annotation.objects": ("int64", (THINGS,), ()),
            "annotation.object": ("int64", (1,), ()),
            "annotation.goal": ("int64", (1,), ()),
            "annotation.task": ("int64", (1,), ()),
            "annotation.fresh": ("int64", (1,), ()),
        }

    def extra_info(self) -> dict:
        """Entries of `info.json` beyond the LeRobot format."""
        return {
            "names": list(NAMES),
            "cameras": list(CAMERAS),
            "points": list(POINTS),
            "embodiment": self.robot,
            "tasks": list(self.tasks),
        }

    # ------------------------------------------------------------- recording
    def demonstrate(
        self, env: AlohaEnv, seed: int, varied_start: bool = True, lead: Lead | None = None
    ) -> tuple[str, dict, bool]:
        """Scripted demonstration of scene `seed`: (instruction, frames, success); see `Suite.demonstrate`."""
        rng = np.random.default_rng([seed, 1])
        observation, info = self._begin(env, rng, seed, varied_start and lead is None)
        if lead:
            observation, info = lead(env, observation, info)
            if info["success"]:
                return env.world.instruction, {}, False
            observation, _ = env.begin(observation["command"])
        motion = SmoothMotion(self.embodiment, env.world.hands)
        motion.begin(observation["command"].astype(float))
        recording = _Recording(self, env)
        done = 0
        for _ in range(MAX_EXPERT_STEPS):
            command = motion.stop() if done else motion.step(env.world.scene.task.expert(env.world.situation()))
            recording.add(observation, command)
            observation, _, success, _, _ = env.step(command)
            done += bool(done or success)
            if done == HOLD_STEPS:
                break
        return env.world.instruction, recording.frames, done > 0

    def snapshot(self, env: AlohaEnv, seed: int) -> tuple[str, dict, bool]:
        """One labeled frame of scene `seed` with the arms anywhere: for vision-language pretraining."""
        observation, _ = self._begin(env, np.random.default_rng([seed, 2]), seed, True)
        recording = _Recording(self, env)
        recording.add(observation, observation["command"])
        return env.world.instruction, recording.frames, True

    def _begin(self, env: AlohaEnv, rng: np.random.Generator, seed: int, varied: bool) -> tuple[dict, dict]:
        """Lay out scene `seed`, with a random start of the arms if `varied`."""
        if not varied:
            return env.reset(seed=seed)
        env.world.reset(seed)
        return env.begin(env.world.scene.task.start(env.world, rng))

    # ------------------------------------------------------------ evaluation
    def _actions(self, path: Path) -> np.ndarray:
        """The path, then rest until the next image: a policy waits for it."""
        rows = super()._actions(path)
        return np.vstack([rows, np.repeat(rows[-1:], -len(rows) % IMAGE_STEPS, axis=0)])


class _Recording:
    """Frames by column, in order."""

    def __init__(self, suite: AlohaSuite, env: AlohaEnv) -> None:
        self._env, self._size = env, suite.record_size
        self.frames: dict[str, list] = {name: [] for name in suite.features()}
        scene = env.world.scene
        objects = [NAMES.index(item.name) for item in scene.items]
        self._scene = {
            "annotation.objects": np.array(objects + [-1] * (THINGS - len(objects))),
            "annotation.object": scene.target,
            "annotation.goal": scene.goal,
            "annotation.task": suite.tasks.index(scene.task.name),
        }
        self._images: dict[str, np.ndarray] = {}

    def add(self, observation: Mapping[str, Any], command: np.ndarray) -> None:
        """Append a frame: what was observed, and the command that follows."""
        if self._env.fresh:
            self._images = self._annotated(observation["images"])
        row = {
            **self._images,
            **self._scene,
            "observation.state": observation["joints"],
            "action": command.astype(np.float32),
            "annotation.fresh": int(self._env.fresh),
        }
        for name, values in self.frames.items():
            if name in row:  # without cameras there are no images
                values.append(row[name])

    def _annotated(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Images as stored, and the points in them."""
        world, (height, width) = self._env.world, self._size
        stored = {
            f"observation.images.{tag}": cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            for tag, image in images.items()
        }
        points = np.full((len(CAMERAS), len(POINTS), 3), -1.0, np.float32)
        count = len(world.scene.items)
        for camera, tag in enumerate(CAMERAS):
            found = world.visible_points(tag)
            points[camera, :count], points[camera, THINGS:] = found[:count], found[count:]
        return stored | {"annotation.points": points.reshape(-1)}
