"""Task suites for `qwen-vla collect` and `qwen-vla evaluate`: how an embodiment's task is recorded, started and judged.

Suites are found through the entry point group `qwen_vla.suites`, so that the model library needs no simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions import Embodiment, Kinematics, KinematicsError, load_robot, pose_from_delta
from qwen_vla_sim.widowx.env import WidowXPickEnv
from qwen_vla_sim.widowx.expert import HOVER_HEIGHT, Step, expert_step
from qwen_vla_sim.widowx.scene import COLOURS, CUBES_PER_SCENE
from qwen_vla_sim.widowx.world import CAMERAS

MAX_EXPERT_STEPS = 60
HOLD_STEPS = 3  # frames recorded after the lift is done: the last action is "stay"
START_KINDS = ("home", "anywhere", "above a cube", "low near the target")
START_SHARES = (0.25, 0.35, 0.15, 0.25)


class WidowXPickSuite:
    """`widowx_pick`: pick up the cube that the sentence names, one of three, at 5 Hz with end-effector deltas."""

    name = "widowx_pick"
    tasks = ("pick_cube",)
    shifts = ()
    robot = "widowx"
    max_steps = 80
    record_size = (120, 160)  # stored images (height, width); rendered at the cameras' 240×320

    def __init__(self) -> None:
        self.embodiment: Embodiment = load_robot(self.robot)
        self.kinematics = Kinematics(self.embodiment)
        tip_down = self.kinematics.forward(self._home()[:6])
        self.orientation = tip_down[:3, :3]

    def make_env(self, cameras: bool = True, shift: None = None) -> WidowXPickEnv:
        return WidowXPickEnv(render_size=(240, 320) if cameras else None, max_steps=self.max_steps)

    def features(self) -> dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]]:
        """Columns of a recording: name → (dtype, shape, element names). Poses are in base_link, quaternions x y z w."""
        height, width = self.record_size
        pose = ("x", "y", "z", "qx", "qy", "qz", "qw")
        points = len(CAMERAS) * (CUBES_PER_SCENE + 1)
        return {
            **{
                f"observation.images.{tag}": ("image", (height, width, 3), ("height", "width", "channel"))
                for tag in CAMERAS
            },
            "observation.state": ("float32", (7,), tuple(self.embodiment.joint_names)),
            "observation.eef_pose": ("float32", (7,), pose),
            "action": ("float32", (8,), (*pose, "gripper")),
            "annotation.points": ("float32", (points * 3,), ()),  # camera × (cubes, tip) × (u, v in 0..1, depth in m)
            "annotation.objects": ("int64", (CUBES_PER_SCENE,), ()),  # index into the names of `info.json`
            "annotation.object": ("int64", (1,), ()),  # which of them is named
            "annotation.goal": ("int64", (1,), ()),  # which of them it is brought to; -1: none
            "annotation.task": ("int64", (1,), ()),
        }

    def extra_info(self) -> dict:
        """What `info.json` says beyond the LeRobot format."""
        return {
            "names": [f"{colour} cube" for colour in COLOURS],
            "points": [*(f"object {i}" for i in range(CUBES_PER_SCENE)), "tip"],
            "tasks": list(self.tasks),
            "cameras": list(CAMERAS),
            "embodiment": self.robot,
        }

    # ------------------------------------------------------------- recording
    def demonstrate(self, env: WidowXPickEnv, seed: int, varied_start: bool = True) -> tuple[str, dict, bool]:
        """Scripted demonstration of scene `seed`: (sentence, frames, success). Starts anywhere if `varied_start`."""
        rng = np.random.default_rng([seed, 1])
        observation, info = env.reset(seed=seed)
        if varied_start:
            joints = self._start_joints(env, rng)
            observation, info = env.reset(seed=seed, options={"joints": joints})
        frames: dict[str, list] = {name: [] for name in self.features()}
        joints, done = observation["joints"].astype(float), 0
        for _ in range(MAX_EXPERT_STEPS):
            cube = env.world.cube_positions()[env.world.scene.target]
            gripper = self.embodiment.gripper_from_joint(float(observation["joints"][-1]))
            step = expert_step(info["tip_pose"][:3, 3], gripper, cube)
            self._record(frames, env, observation, info["tip_pose"], step)
            try:
                joints = self._joints_for(step, joints)
            except KinematicsError:  # out of reach: a failed demonstration, not the end of a long collection
                return env.world.instruction, {}, False
            observation, _, success, _, info = env.step(joints)
            done = done + 1 if success and info["metrics"]["lift"] > 0.09 else 0
            if done > HOLD_STEPS:
                break
        return env.world.instruction, {name: np.array(rows) for name, rows in frames.items()}, bool(info["success"])

    def snapshot(self, env: WidowXPickEnv, seed: int) -> tuple[str, dict, bool]:
        """One labelled frame of scene `seed` with the arm anywhere: for vision-language pretraining."""
        rng = np.random.default_rng([seed, 2])
        env.reset(seed=seed)
        joints = self._start_joints(env, rng)
        observation, info = env.reset(seed=seed, options={"joints": joints})
        cube = env.world.cube_positions()[env.world.scene.target]
        gripper = self.embodiment.gripper_from_joint(float(observation["joints"][-1]))
        frames: dict[str, list] = {name: [] for name in self.features()}
        self._record(frames, env, observation, info["tip_pose"], expert_step(info["tip_pose"][:3, 3], gripper, cube))
        return env.world.instruction, {name: np.array(rows) for name, rows in frames.items()}, True

    # ------------------------------------------------------------ evaluation
    def plan(self, chunk: np.ndarray, observation: Mapping[str, Any]) -> np.ndarray:
        """(H, 7) `eef_delta` chunk, anchored at the measured joints, as (H, 7) joint targets.

        ValueError when the chunk leads out of reach, out of the robot's workspace box or beyond its speed limits: as
        before the real robot, a chunk is executed as a whole or not at all.
        """
        joints = self.hold(observation)
        origin = self.kinematics.forward(joints[:6])
        poses = pose_from_delta(origin, np.asarray(chunk[:, :6], float))
        self._check_workspace(poses[:, :3, 3])
        arm = self.kinematics.follow(poses, joints[:6])
        fastest = self.kinematics.speed_fractions(arm, joints[:6], self.embodiment.period).max()
        if fastest > self.embodiment.safety.max_joint_speed_fraction:
            raise ValueError(f"the chunk needs {fastest:.2f} times a joint's speed limit")
        fingers = [self.embodiment.gripper_to_joint(float(fraction)) for fraction in chunk[:, 6]]
        return np.column_stack([arm, fingers])

    def hold(self, observation: Mapping[str, Any]) -> np.ndarray:
        return observation["joints"].astype(float)

    def other_instruction(self, env: WidowXPickEnv, seed: int) -> str:
        """The scene's sentence naming one of the other cubes: what a listener must not succeed with."""
        scene = env.world.scene
        others = [i for i in range(len(scene.cubes)) if i != scene.target]
        return scene.instruction_for(others[seed % len(others)])

    # --------------------------------------------------------------- internal
    def _check_workspace(self, positions: np.ndarray) -> None:
        box = self.embodiment.safety.workspace
        if box is None:
            return
        outside = ((positions < box.min) | (positions > box.max)).any(axis=1)
        if outside.any():
            step = int(outside.argmax())
            raise ValueError(f"step {step}: the tip at {positions[step].round(3)} m is outside the workspace")

    def _home(self) -> np.ndarray:
        return np.array([self.embodiment.home[name] for name in self.embodiment.joint_names])

    def _joints_for(self, step: Step, joints: np.ndarray) -> np.ndarray:
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.orientation, step.position
        return np.append(self.kinematics.inverse(pose, joints[:6]), self.embodiment.gripper_to_joint(step.gripper))

    def _start_joints(self, env: WidowXPickEnv, rng: np.random.Generator) -> np.ndarray:
        """A start that the expert can be asked to recover from, never inside a cube."""
        cubes = env.world.cube_positions()
        while True:
            kind = rng.choice(START_KINDS, p=START_SHARES)
            gripper = 1.0 if kind == "low near the target" or rng.random() < 0.8 else float(rng.uniform(0, 1))
            position = self._start_position(str(kind), cubes, env.world.scene.target, rng)
            below = np.linalg.norm(cubes[:, :2] - position[:2], axis=1)
            if position[2] < HOVER_HEIGHT - 0.015 and not _clear(position, cubes, below):
                continue
            try:
                return self._joints_for(Step(position, gripper), self._home())
            except KinematicsError:
                continue

    def _start_position(self, kind: str, cubes: np.ndarray, target: int, rng: np.random.Generator) -> np.ndarray:
        if kind == "home":
            return self.kinematics.forward(self._home()[:6])[:3, 3] + rng.uniform(-0.03, 0.03, 3)
        if kind == "anywhere":
            return rng.uniform((0.19, -0.19, 0.06), (0.41, 0.19, 0.24))
        cube = cubes[rng.integers(len(cubes))] if kind == "above a cube" else cubes[target]
        low, high = (0.075, 0.15) if kind == "above a cube" else (0.020, 0.09)
        return np.append(cube[:2] + rng.normal(0, 0.015, 2), rng.uniform(low, high))

    def _record(self, frames: dict, env: WidowXPickEnv, observation: dict, tip: np.ndarray, step: Step) -> None:
        height, width = self.record_size
        points = np.concatenate([env.world.cube_positions(), tip[None, :3, 3]])
        for tag in CAMERAS:
            image = observation["images"][tag]
            frames[f"observation.images.{tag}"].append(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
        frames["observation.state"].append(observation["joints"])
        frames["observation.eef_pose"].append(_pose_to_vector(tip))
        target = tip.copy()
        target[:3, :3], target[:3, 3] = self.orientation, step.position
        frames["action"].append(np.append(_pose_to_vector(target), step.gripper).astype(np.float32))
        projected = np.concatenate([env.world.project(tag, points) for tag in CAMERAS])
        frames["annotation.points"].append(projected.reshape(-1).astype(np.float32))
        scene = env.world.scene
        frames["annotation.objects"].append([list(COLOURS).index(cube.colour) for cube in scene.cubes])
        frames["annotation.object"].append(scene.target)
        frames["annotation.goal"].append(-1)
        frames["annotation.task"].append(0)


def _clear(position: np.ndarray, cubes: np.ndarray, lateral: np.ndarray) -> bool:
    """Whether a low, open gripper at `position` touches no cube: either far from all, or straddling one."""
    nearest = int(np.argmin(lateral))
    offset = np.abs(cubes[nearest, :2] - position[:2])
    straddles = offset[0] < 0.02 and offset[1] < 0.010
    return straddles or bool((lateral > 0.085).all())


def _pose_to_vector(pose: np.ndarray) -> np.ndarray:
    """(7,) float32 x y z [m], qx qy qz qw with qw ≥ 0."""
    return np.concatenate([pose[:3, 3], Rotation.from_matrix(pose[:3, :3]).as_quat(canonical=True)]).astype(np.float32)
