# SPDX-License-Identifier: Apache-2.0
"""Task suites of the WidowX for `qwen-vla collect` and `qwen-vla evaluate`: how tasks are demonstrated and recorded.

Suites are found through the entry point group `qwen_vla.suites`, so that the model library does not need a simulator.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embodiment_descriptions import Embodiment, KinematicsError
from qwen_vla_sim.suite import ArmSuite
from qwen_vla_sim.task import SHIFTS, Lead, Shift
from qwen_vla_sim.widowx import recording
from qwen_vla_sim.widowx.env import WidowXEnv
from qwen_vla_sim.widowx.grasping import Step
from qwen_vla_sim.widowx.scene import MAX_THINGS, SLOTS
from qwen_vla_sim.widowx.starts import Start
from qwen_vla_sim.widowx.tabletop_task import tabletop
from qwen_vla_sim.widowx.things import KINDS
from qwen_vla_sim.widowx.tool import ToolDown
from qwen_vla_sim.widowx.world import WidowXWorld

MAX_EXPERT_STEPS = 60
HOLD_STEPS = 3  # frames recorded after success: the last actions are to stay, or to rise


class WidowXSuite(ArmSuite):
    """`widowx`: tabletop tasks at 5 Hz with end-effector deltas."""

    name = "widowx"
    robot = "widowx"
    rotation = ("spoon_on_towel", "carrot_on_plate", "stack_cube", "eggplant_in_basket", "pick_cube")
    shifts = SHIFTS
    max_steps = 100
    max_things = MAX_THINGS

    def __init__(self) -> None:
        super().__init__()
        self.tool = ToolDown(self.embodiment)

    def make_world(
        self, shift: Shift | None = None, task: str | None = None, embodiment: Embodiment | None = None
    ) -> WidowXWorld:
        used = {kind for name in {*self.rotation, task or self.rotation[0]} for kind in tabletop(self.task(name)).kinds}
        kinds = [kind for kind in KINDS if kind in used]
        return WidowXWorld(embodiment or self.embodiment, self._scenes(shift, task), kinds, shift)

    def make_env(self, cameras: bool = True, shift: Shift | None = None, task: str | None = None) -> WidowXEnv:
        return WidowXEnv(self.make_world(shift, task), (240, 320) if cameras else None, self.max_steps)

    def features(self) -> recording.Features:
        """Columns of a recording: name → (dtype, shape, element names)."""
        return recording.features(self.embodiment.joint_names, self.max_things)

    def extra_info(self) -> dict:
        """Entries of `info.json` beyond the LeRobot format."""
        return {**recording.labels_info(self.max_things), "tasks": list(self.tasks), "embodiment": self.robot}

    # ------------------------------------------------------------- recording
    def demonstrate(
        self, env: WidowXEnv, seed: int, varied_start: bool = True, lead: Lead | None = None
    ) -> tuple[str, dict, bool]:
        """Scripted demonstration of scene `seed`: (instruction, frames, success); see `Suite.demonstrate`."""
        rng = np.random.default_rng([seed, 1])
        observation, info = env.reset(seed=seed)
        if lead:
            observation, info = lead(env, observation, info)
            if info["success"]:
                return env.world.instruction, {}, False
        elif varied_start:
            observation, info = env.reset(seed=seed, options=self._start(env.world, rng).options)
        frames: dict[str, list] = {name: [] for name in self.features()}
        joints, done = observation["joints"].astype(float), 0
        for _ in range(MAX_EXPERT_STEPS):
            step = env.world.scene.task.expert(env.world.situation())
            self._record(frames, env, observation, step)
            try:
                joints = self.tool.joints_for(step, joints)
            except KinematicsError:  # out of reach: one failed demonstration must not end a long collection
                return env.world.instruction, {}, False
            observation, _, _, _, info = env.step(joints)
            done = done + 1 if tabletop(env.world.scene.task).shown(env.world.task_state()) else 0
            if done > HOLD_STEPS:
                break
        return env.world.instruction, {name: np.array(rows) for name, rows in frames.items()}, bool(info["success"])

    def snapshot(self, env: WidowXEnv, seed: int) -> tuple[str, dict, bool]:
        """One labeled frame of scene `seed` with the arm anywhere: for vision-language pretraining."""
        rng = np.random.default_rng([seed, 2])
        env.reset(seed=seed)
        observation, _ = env.reset(seed=seed, options=self._start(env.world, rng).options)
        frames: dict[str, list] = {name: [] for name in self.features()}
        self._record(frames, env, observation, env.world.scene.task.expert(env.world.situation()))
        return env.world.instruction, {name: np.array(rows) for name, rows in frames.items()}, True

    # --------------------------------------------------------------- internal
    def _start(self, world: WidowXWorld, rng: np.random.Generator) -> Start:
        return world.scene.task.start(world, rng)

    def _record(self, frames: dict[str, list], env: WidowXEnv, observation: Mapping, step: Step) -> None:
        row = recording.frame(env.world, observation, step, self.tool.orientation, self.max_things)
        row["annotation.task"] = self.tasks.index(env.world.scene.task.name)
        for name, values in row.items():
            frames[name].append(values)


class WidowXPickSuite(WidowXSuite):
    """`widowx_pick`: pick up the cube that the instruction names, one of three."""

    name = "widowx_pick"
    rotation = ("pick_cube",)
    shifts = ()
    max_steps = 80
    max_things = SLOTS
