"""Task suites of the WidowX for `qwen-vla collect` and `qwen-vla evaluate`: how tasks are recorded, started and judged.

Suites are found through the entry point group `qwen_vla.suites`, so that the model library needs no simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment, KinematicsError, load_robot
from qwen_vla_sim.task import SHIFTS, Lead, Shift
from qwen_vla_sim.widowx import recording
from qwen_vla_sim.widowx.env import WidowXEnv
from qwen_vla_sim.widowx.expert import Step, pick_step, place_step
from qwen_vla_sim.widowx.scene import MAX_THINGS, SLOTS
from qwen_vla_sim.widowx.starts import draw_start
from qwen_vla_sim.widowx.tasks import TASKS
from qwen_vla_sim.widowx.tool import ToolDown
from qwen_vla_sim.widowx.world import WidowXWorld

MAX_EXPERT_STEPS = 60
HOLD_STEPS = 3  # frames recorded after it is done: the last actions are "stay", or "go up"
LIFTED_WELL = 0.09  # [m] where a demonstration of picking ends


class WidowXSuite:
    """`widowx`: the tabletop tasks of `tasks.py` at 5 Hz with end-effector deltas."""

    name = "widowx"
    tasks: tuple[str, ...] = tuple(TASKS)
    shifts: tuple[Shift, ...] = SHIFTS
    robot = "widowx"
    max_steps = 100
    max_things = MAX_THINGS

    def __init__(self) -> None:
        self.embodiment: Embodiment = load_robot(self.robot)
        self.tool = ToolDown(self.embodiment)

    def make_env(self, cameras: bool = True, shift: Shift | None = None) -> WidowXEnv:
        world = WidowXWorld(self.embodiment, self.name, shift)
        return WidowXEnv(world, (240, 320) if cameras else None, self.max_steps)

    def features(self) -> recording.Features:
        """Columns of a recording: name → (dtype, shape, element names)."""
        return recording.features(self.embodiment.joint_names, self.max_things)

    def extra_info(self) -> dict:
        """What `info.json` says beyond the LeRobot format."""
        return {**recording.labels_info(self.max_things), "tasks": list(self.tasks), "embodiment": self.robot}

    # ------------------------------------------------------------- recording
    def demonstrate(
        self, env: WidowXEnv, seed: int, varied_start: bool = True, lead: Lead | None = None
    ) -> tuple[str, dict, bool]:
        """Scripted demonstration of scene `seed`: (sentence, frames, success); see `Suite.demonstrate`."""
        rng = np.random.default_rng([seed, 1])
        observation, info = env.reset(seed=seed)
        if lead:
            observation, info = lead(env, observation, info)
            if info["success"]:
                return env.world.instruction, {}, False
        elif varied_start:
            observation, info = env.reset(seed=seed, options=draw_start(env.world, self.tool, rng).options)
        frames: dict[str, list] = {name: [] for name in self.features()}
        joints, done = observation["joints"].astype(float), 0
        for _ in range(MAX_EXPERT_STEPS):
            step = self._expert_step(env.world, observation)
            self._record(frames, env, observation, step)
            try:
                joints = self.tool.joints_for(step, joints)
            except KinematicsError:  # out of reach: a failed demonstration, not the end of a long collection
                return env.world.instruction, {}, False
            observation, _, success, _, info = env.step(joints)
            finished = success and (env.world.scene.goal is not None or info["metrics"]["lift"] > LIFTED_WELL)
            done = done + 1 if finished else 0
            if done > HOLD_STEPS:
                break
        return env.world.instruction, {name: np.array(rows) for name, rows in frames.items()}, bool(info["success"])

    def snapshot(self, env: WidowXEnv, seed: int) -> tuple[str, dict, bool]:
        """One labelled frame of scene `seed` with the arm anywhere: for vision-language pretraining."""
        rng = np.random.default_rng([seed, 2])
        env.reset(seed=seed)
        observation, _ = env.reset(seed=seed, options=draw_start(env.world, self.tool, rng).options)
        frames: dict[str, list] = {name: [] for name in self.features()}
        self._record(frames, env, observation, self._expert_step(env.world, observation))
        return env.world.instruction, {name: np.array(rows) for name, rows in frames.items()}, True

    # ------------------------------------------------------------ evaluation
    def plan(self, chunk: np.ndarray, observation: Mapping[str, Any]) -> np.ndarray:
        """(H, 7) `eef_delta` chunk as (H, 7) joint targets; ValueError when the robot must not do it."""
        return self.tool.follow(chunk, self.hold(observation))

    def hold(self, observation: Mapping[str, Any]) -> np.ndarray:
        return observation["joints"].astype(float)

    def other_instruction(self, env: WidowXEnv, seed: int) -> str:
        """The scene's sentence naming another thing to be taken: what a listener must not succeed with."""
        scene = env.world.scene
        return scene.instruction_for(scene.others[seed % len(scene.others)])

    # --------------------------------------------------------------- internal
    def _expert_step(self, world: WidowXWorld, observation: Mapping[str, Any]) -> Step:
        tip, thing = world.tip_pose()[:3, 3], world.grip_points()[world.scene.target]
        gripper = self.embodiment.gripper_from_joint(float(observation["joints"][-1]))
        if world.scene.goal is None:
            return pick_step(tip, gripper, thing)
        return place_step(tip, gripper, thing, world.release_point(), world.settled())

    def _record(self, frames: dict[str, list], env: WidowXEnv, observation: Mapping, step: Step) -> None:
        row = recording.frame(env.world, observation, step, self.tool.orientation, self.max_things)
        row["annotation.task"] = self.tasks.index(env.world.scene.task.name)
        for name, values in row.items():
            frames[name].append(values)


class WidowXPickSuite(WidowXSuite):
    """`widowx_pick`: pick up the cube that the sentence names, one of three."""

    name = "widowx_pick"
    tasks = ("pick_cube",)
    shifts = ()
    max_steps = 80
    max_things = SLOTS
