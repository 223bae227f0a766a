"""`mobile_base`: go where the sentence says, in one leg or two, at 2 Hz with waypoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from embodiment_descriptions import Embodiment, load_robot
from embodiment_descriptions.angles import wrapped
from embodiment_descriptions.base_path import BasePath, accumulated, moved
from qwen_vla_sim.mobile_base.env import MobileBaseEnv
from qwen_vla_sim.mobile_base.expert import Expert, Plan
from qwen_vla_sim.mobile_base.furniture import FURNITURE, UNCOLOURED
from qwen_vla_sim.mobile_base.scene import (
    COLOURS,
    DOOR_WIDTH,
    IN_HALL,
    IN_ROOM,
    UNSEEN_COLOURS,
    Scene,
    in_hall,
    sees,
    space,
)
from qwen_vla_sim.mobile_base.sentences import TASKS
from qwen_vla_sim.task import SHIFTS, Lead, Shift

DOOR = "door"
NAMES = (
    *(f"{colour} {kind}" for kind in FURNITURE if kind not in UNCOLOURED for colour in (*COLOURS, *UNSEEN_COLOURS)),
    *UNCOLOURED,
    DOOR,
)
POINTS = (*(f"object {i + 1}" for i in range(IN_ROOM + IN_HALL)), DOOR)
EXECUTED = 4  # waypoints of a chunk that are driven before the next look; the base comes to rest at the last of them
START_KINDS = ("the scene's", "anywhere", "near the goal", "in the hall")
START_SHARES = (0.2, 0.35, 0.25, 0.2)
NEAR = (0.28, 0.9)  # [m] from the rim of the target, or before the door
OFF_WALL = 0.27  # [m] from the middle of the base to walls and rims, where it may be put
SPEED_TOLERANCE = 1e-6  # [m/s | rad/s] rounding


class MobileBaseSuite:
    """Three tasks in a room and a hall; success and metrics as in VLN-CE, see `judge` and `journey`."""

    name = "mobile_base"
    tasks = TASKS
    shifts = SHIFTS
    robot = "mobile_base"
    max_steps = 160
    record_size = (120, 160)  # stored images (height, width); rendered at the camera's 240×320

    def __init__(self) -> None:
        self.embodiment: Embodiment = load_robot(self.robot)

    def make_env(self, cameras: bool = True, shift: Shift | None = None) -> MobileBaseEnv:
        return MobileBaseEnv((240, 320) if cameras else None, self.max_steps, shift)

    def features(self) -> dict[str, tuple[str, tuple[int, ...], tuple[str, ...]]]:
        """Columns of a recording: name → (dtype, shape, element names).

        A picture is taken before every plan and repeated until the next. annotation.fresh is 1 where it was taken and
        the chunk that begins there was planned from it as a whole. A hidden point has a negative depth.
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
        """What `info.json` says beyond the LeRobot format."""
        named = {"names": list(NAMES), "points": list(POINTS), "tasks": list(TASKS)}
        return {**named, "cameras": ["ego"], "embodiment": self.robot}

    # ------------------------------------------------------------- recording
    def demonstrate(
        self, env: MobileBaseEnv, seed: int, varied_start: bool = True, lead: Lead | None = None
    ) -> tuple[str, dict, bool]:
        """Scripted demonstration of scene `seed`: (sentence, frames, success); see `Suite.demonstrate`."""
        rng = np.random.default_rng([seed, 1])
        observation, info = env.reset(seed=seed)
        if lead:
            observation, info = lead(env, observation, info)
            if info["success"]:
                return env.world.instruction, {}, False
        elif varied_start:
            observation, info = env.reset(seed=seed, options={"pose": disturbed_start(env.world.scene, rng)})
        frames: dict[str, list] = {name: [] for name in self.features()}
        looks: list[tuple[int, str]] = []
        done = truncated = False
        while not (done or truncated):
            plan = self._plan_of_expert(env)
            looks.append((len(frames["action"]), plan.phase))
            look = self._look(env, observation, plan)
            actions = self.plan(accumulated(np.zeros(3), plan.rows), observation)
            for row, action in zip(plan.rows[:EXECUTED], actions[:EXECUTED], strict=True):
                _append(frames, look, observation, row)
                observation, _, success, truncated, info = env.step(action)
                done = success and plan.phase == "stop"  # also who stands already looks once more, and stays
                if done or truncated:
                    break
        first = _mark_fresh(frames["annotation.fresh"], looks)
        return env.world.instruction, _as_columns(frames, first), bool(info["success"])

    def snapshot(self, env: MobileBaseEnv, seed: int) -> tuple[str, dict, bool]:
        """One labelled frame of scene `seed` with the base anywhere: for vision-language pretraining."""
        rng = np.random.default_rng([seed, 2])
        env.reset(seed=seed)
        observation, _ = env.reset(seed=seed, options={"pose": any_start(env.world.scene, rng)})
        plan = self._plan_of_expert(env)
        frames: dict[str, list] = {name: [] for name in self.features()}
        _append(frames, {**self._look(env, observation, plan), "annotation.fresh": [1]}, observation, plan.rows[0])
        return env.world.instruction, _as_columns(frames), True

    # ------------------------------------------------------------ evaluation
    def plan(self, chunk: np.ndarray, observation: Mapping[str, Any]) -> np.ndarray:
        """(H, 3) waypoints relative to the base as (H, 6) actions: poses and velocities by the odometry.

        As in the executor's synchronous mode, the base comes to rest after every EXECUTED waypoints. ValueError when a
        step is faster than the base may be: a chunk is executed as a whole or not at all.
        """
        chunk = np.asarray(chunk, float)
        if not np.isfinite(chunk).all():
            raise ValueError("the chunk has values that are NaN or infinite")
        measured = np.asarray(observation["pose"], float)
        path = BasePath.through("odom", np.vstack([measured, moved(measured, chunk)]), self.embodiment.period)
        limits, (driving, turning) = self.embodiment.safety.base, path.mean_speeds()
        _refuse_faster(driving, limits.max_linear, "drive", "m/s")
        _refuse_faster(turning, limits.max_angular, "turn", "rad/s")
        velocities = path.velocities[1:].copy()
        velocities[EXECUTED - 1 :: EXECUTED] = 0.0
        return np.hstack([path.positions[1:], velocities])

    def hold(self, observation: Mapping[str, Any]) -> np.ndarray:
        return np.append(np.asarray(observation["pose"], float), np.zeros(3))

    def other_instruction(self, env: MobileBaseEnv, seed: int) -> str:
        """A sentence for another thing of the same scene, in the same space if there is a target."""
        scene = env.world.scene
        if scene.target is None:
            others = list(range(IN_ROOM))
        else:
            here = in_hall(scene.things[scene.target])
            others = [i for i, t in enumerate(scene.things) if i != scene.target and in_hall(t) == here]
        return scene.instruction_for(others[seed % len(others)])

    # --------------------------------------------------------------- internal
    def _plan_of_expert(self, env: MobileBaseEnv) -> Plan:
        expert = Expert(env.world.present_scene(), self.embodiment.chunk_size, self.embodiment.period)
        return expert.plan(env.world.pose, env.world.in_view)

    def _look(self, env: MobileBaseEnv, observation: dict, plan: Plan) -> dict:
        """What is the same in all frames until the next look: the picture and what there is to say about it."""
        height, width = self.record_size
        scene, door = env.world.scene, len(POINTS) - 1
        names = [NAMES.index(thing.name) for thing in scene.things] + [NAMES.index(DOOR)]
        image = observation["images"]["ego"]
        return {
            "observation.images.ego": cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA),
            "annotation.points": env.world.image_points().reshape(-1).astype(np.float32),
            "annotation.objects": names,
            "annotation.object": [door if plan.goal is None else plan.goal],
            "annotation.goal": [door if scene.target is None else scene.target],
            "annotation.task": [TASKS.index(scene.task)],
            "annotation.fresh": [0],
        }


def _refuse_faster(speeds: np.ndarray, limit: float, what: str, unit: str) -> None:
    """ValueError where one of the speeds (steps,) is beyond the limit."""
    if (too_fast := speeds > limit + SPEED_TOLERANCE).any():
        step = int(too_fast.argmax())
        raise ValueError(f"waypoint {step}: the base would {what} at {speeds[step]:.3f} {unit}, its limit is {limit}")


def disturbed_start(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A pose (3,) from which the expert can be asked to recover: clear of walls and things, any heading."""
    hall = scene.start[0] > 0
    while True:
        kind = str(rng.choice(START_KINDS, p=START_SHARES))
        if kind == "the scene's":
            return np.array(scene.start)
        heading = rng.uniform(-np.pi, np.pi)
        if kind == "near the goal":
            place, heading = _near_the_goal(scene, rng)
        else:
            # Who is to go to a thing of the room needs to be in the room: nothing would tell that it is there.
            place = rng.uniform(*space(scene, hall or (kind == "in the hall" and scene.task != "go_to_object")))
        if _is_free(scene, place) and sees(scene, place, _needed(scene, place)):
            return np.array([*place, heading])


def any_start(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Any pose (3,) in the room or the hall that is clear of walls and things."""
    while True:
        place = rng.uniform(*space(scene, bool(rng.random() < 0.5)))
        if _is_free(scene, place):
            return np.array([*place, rng.uniform(-np.pi, np.pi)])


def _near_the_goal(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A place around the target, or on either side of the door, and a heading more or less towards it."""
    if scene.target is None:
        centre, reach = np.array([0.0, scene.door]), rng.uniform(0.0, NEAR[1])
    else:
        thing = scene.things[scene.target]
        centre, reach = np.array([thing.x, thing.y]), thing.form.radius + rng.uniform(*NEAR)
    angle = rng.uniform(-np.pi, np.pi)
    place = centre + reach * np.array([np.cos(angle), np.sin(angle)])
    spread = 0.6 if rng.random() < 0.7 else np.pi
    return place, wrapped(
        (angle if scene.target is None and place[0] > 0 else angle + np.pi) + rng.uniform(-spread, spread)
    )


def _needed(scene: Scene, place: np.ndarray) -> int | None:
    """The thing, None: the door, that is to be reached first from a place."""
    return scene.target if scene.target is None or in_hall(scene.things[scene.target]) == (place[0] > 0) else None


def _is_free(scene: Scene, place: np.ndarray) -> bool:
    """Whether the base may be put at a place (2,): in a room, or between the posts of the door."""
    rims = [np.hypot(*(place - (thing.x, thing.y))) - thing.form.radius for thing in scene.things]
    if min(rims) < OFF_WALL:
        return False
    if abs(place[1] - scene.door) < DOOR_WIDTH / 2 - OFF_WALL and abs(place[0]) < 2 * OFF_WALL:
        return True
    low, high = space(scene, bool(place[0] > 0))
    return bool((place > low + OFF_WALL).all() and (place < high - OFF_WALL).all())


def _append(frames: dict[str, list], look: dict, observation: Mapping[str, Any], waypoint: np.ndarray) -> None:
    """One more frame; the picture is the look's own, not a copy."""
    row = {**look, "observation.odometry": observation["pose"], "action": waypoint.astype(np.float32)}
    for name, values in frames.items():
        values.append(row[name])


def _mark_fresh(fresh: list, looks: list[tuple[int, str]]) -> int:
    """Mark the frames of looks at which a chunk may begin; returns the first of them.

    Where the base turned to find something and then saw it, the last look before has a chunk half of which follows from
    another picture: it is left out.
    """
    for (frame, phase), (_, after) in zip(looks, [*looks[1:], (0, "stop")], strict=True):
        fresh[frame] = [int(phase != "search" or after == "search")]
    return next((frame for frame, _ in looks if fresh[frame][0]), 0)


def _as_columns(frames: dict[str, list], first: int = 0) -> dict:
    """Arrays of the frames from the first one on; pictures stay a list, where one object may come several times."""
    kept = {name: rows[first:] for name, rows in frames.items()}
    return {name: rows if name.startswith("observation.images") else np.array(rows) for name, rows in kept.items()}
