# SPDX-License-Identifier: Apache-2.0
"""`mobile_base`: go where the instruction says, at 2 Hz with waypoints; how tasks are demonstrated and executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_control.chunk import Chunk
from qwen_vla_control.gate import RobotState
from qwen_vla_control.motion.base_path import accumulated
from qwen_vla_control.motion.timed_path import Path
from qwen_vla_sim.mobile_base.driving import Plan, plan
from qwen_vla_sim.mobile_base.env import ODOMETRY, MobileBaseEnv
from qwen_vla_sim.mobile_base.furniture import FURNITURE, UNCOLORED
from qwen_vla_sim.mobile_base.journey import REFERENCE
from qwen_vla_sim.mobile_base.scene import COLORS, IN_HALL, IN_ROOM, MORE_COLORS, UNSEEN_COLORS
from qwen_vla_sim.mobile_base.starts import any_start
from qwen_vla_sim.mobile_base.world import MobileBaseWorld
from qwen_vla_sim.suite import SimulatedSuite
from qwen_vla_sim.task import SHIFTS, Lead, Shift

DOOR = "door"
NAMES = (
    *(
        f"{color} {kind}"
        for kind in FURNITURE
        if kind not in UNCOLORED
        for color in (*COLORS, *UNSEEN_COLORS, *MORE_COLORS)
    ),
    *UNCOLORED,
    DOOR,
)
POINTS = (*(f"object {i + 1}" for i in range(IN_ROOM + IN_HALL)), DOOR)
EXECUTED = 4  # waypoints of a chunk executed before the next observation; the base comes to rest at the last of them


class MobileBaseSuite(SimulatedSuite):
    """Tasks in a room and a hall; success and metrics as in VLN-CE, see `driving_task` and `journey`."""

    name = "mobile_base"
    robot = "mobile_base"
    rotation = ("go_to_object", "leave_room", "two_legs")
    shifts = SHIFTS
    max_steps = 160
    reference_path = REFERENCE
    record_size = (120, 160)  # stored images (height, width); rendered at the camera's 240×320

    def make_world(
        self, shift: Shift | None = None, task: str | None = None, embodiment: Embodiment | None = None
    ) -> MobileBaseWorld:
        return MobileBaseWorld(embodiment or self.embodiment, self._scenes(shift, task), shift)

    def make_env(self, cameras: bool = True, shift: Shift | None = None, task: str | None = None) -> MobileBaseEnv:
        return MobileBaseEnv(self.make_world(shift, task), (240, 320) if cameras else None, self.max_steps)

    def features(self) -> dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]]:
        """Columns of a recording: name → (dtype, shape, element names).

        An image is taken before every plan and repeated until the next one. annotation.fresh is 1 where it was taken
        and the whole chunk that begins there was planned from it. An occluded point has a negative depth.
        """
        height, width = self.record_size
        return {
            "observation.images.ego": ("image", (height, width, 3), ("height", "width", "channel")),
            "observation.odometry": ("float32", (3,), ("x", "y", "theta")),
            "action": ("float32", (3,), self.embodiment.channel_names),
            "annotation.points": ("float32", (len(POINTS) * 3,), ()),
            "annotation.objects": ("int64", (len(POINTS),), ()),
            "annotation.object": ("int64", (1,), ()),
            "annotation.goal": ("int64", (1,), ()),
            "annotation.task": ("int64", (1,), ()),
            "annotation.fresh": ("int64", (1,), ()),
        }

    def extra_info(self) -> dict:
        """Entries of `info.json` beyond the LeRobot format."""
        named = {"names": list(NAMES), "points": list(POINTS), "tasks": list(self.tasks)}
        return {**named, "cameras": ["ego"], "embodiment": self.robot}

    # ------------------------------------------------------------- recording
    def demonstrate(
        self, env: MobileBaseEnv, seed: int, varied_start: bool = True, lead: Lead | None = None
    ) -> tuple[str, dict, bool]:
        """Scripted demonstration of scene `seed`: (instruction, frames, success); see `Suite.demonstrate`."""
        rng = np.random.default_rng([seed, 1])
        observation, info = env.reset(seed=seed)
        if lead:
            observation, info = lead(env, observation, info)
            if info["success"]:
                return env.world.instruction, {}, False
        elif varied_start:
            observation, info = env.reset(seed=seed, options={"pose": env.world.scene.task.start(env.world, rng)})
        frames: dict[str, list] = {name: [] for name in self.features()}
        observed: list[tuple[int, str]] = []
        done = truncated = False
        while not (done or truncated):
            planned = self._plan_of_expert(env)
            observed.append((len(frames["action"]), planned.phase))
            annotated = self._annotated(env, observation, planned)
            waypoints = accumulated(np.zeros(3), planned.rows)
            actions = self.plan(Chunk.of_rows(self.embodiment, waypoints, EXECUTED), observation)
            for row, action in zip(planned.rows[:EXECUTED], actions, strict=True):
                _append(frames, annotated, observation, row)
                observation, _, success, truncated, info = env.step(action)
                done = success and planned.phase == "stop"  # a base at rest observes once more, and stays
                if done or truncated:
                    break
        first = _mark_fresh(frames["annotation.fresh"], observed)
        return env.world.instruction, _as_columns(frames, first), bool(info["success"])

    def snapshot(self, env: MobileBaseEnv, seed: int) -> tuple[str, dict, bool]:
        """One labeled frame of scene `seed` with the base anywhere: for vision-language pretraining."""
        rng = np.random.default_rng([seed, 2])
        env.reset(seed=seed)
        observation, _ = env.reset(seed=seed, options={"pose": any_start(env.world.scene, rng)})
        planned = self._plan_of_expert(env)
        frames: dict[str, list] = {name: [] for name in self.features()}
        annotated = {**self._annotated(env, observation, planned), "annotation.fresh": [1]}
        _append(frames, annotated, observation, planned.rows[0])
        return env.world.instruction, _as_columns(frames), True

    # ------------------------------------------------------------ evaluation
    def hold(self, observation: Mapping[str, Any]) -> np.ndarray:
        return np.append(np.asarray(observation["pose"], float), np.zeros(3))

    # --------------------------------------------------------------- internal
    def _at_rest(self, observation: Mapping[str, Any], now_ns: int) -> RobotState:
        pose = np.asarray(observation["pose"], float)
        return RobotState(now_ns, pose, pose, frame=ODOMETRY)

    def _actions(self, path: Path) -> np.ndarray:
        return np.hstack([path.positions, path.velocities])[1:]

    def _plan_of_expert(self, env: MobileBaseEnv) -> Plan:
        situation = env.world.situation()
        aim = situation.scene.task.expert(situation)
        return plan(situation.scene, situation.pose, aim, self.embodiment.chunk_size, self.embodiment.period)

    def _annotated(self, env: MobileBaseEnv, observation: dict, planned: Plan) -> dict:
        """The columns that stay the same until the next observation: the image and its annotations."""
        height, width = self.record_size
        scene, door = env.world.scene, len(POINTS) - 1
        names = [NAMES.index(thing.name) for thing in scene.things] + [NAMES.index(DOOR)]
        image = observation["images"]["ego"]
        return {
            "observation.images.ego": cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA),
            "annotation.points": env.world.image_points().reshape(-1).astype(np.float32),
            "annotation.objects": names,
            "annotation.object": [door if planned.goal is None else planned.goal],
            "annotation.goal": [door if scene.target is None else scene.target],
            "annotation.task": [self.tasks.index(scene.task.name)],
            "annotation.fresh": [0],
        }


def _append(frames: dict[str, list], annotated: dict, observation: Mapping[str, Any], waypoint: np.ndarray) -> None:
    """Append a frame; its image is not copied."""
    row = {**annotated, "observation.odometry": observation["pose"], "action": waypoint.astype(np.float32)}
    for name, values in frames.items():
        values.append(row[name])


def _mark_fresh(fresh: list, observed: list[tuple[int, str]]) -> int:
    """Mark the observed frames at which a chunk may begin; returns the first of them.

    Where the base found what it was searching for, half of the chunk from the last observation before follows from
    another image: that frame is not marked.
    """
    for (frame, phase), (_, after) in zip(observed, [*observed[1:], (0, "stop")], strict=True):
        fresh[frame] = [int(phase != "search" or after == "search")]
    return next((frame for frame, _ in observed if fresh[frame][0]), 0)


def _as_columns(frames: dict[str, list], first: int = 0) -> dict:
    """Arrays of the frames from the first one on; images stay a list, in which one object may occur several times."""
    kept = {name: rows[first:] for name, rows in frames.items()}
    return {name: rows if name.startswith("observation.images") else np.array(rows) for name, rows in kept.items()}
