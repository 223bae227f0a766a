"""Whether a task on the WidowX's table is done, as a person would say, and what is in the way if it is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_vla_sim.task import TaskState
from qwen_vla_sim.widowx.scene import Scene

LIFTED = 0.05  # [m] above its rest height: picked up
LIFTED_ONCE = 0.015  # [m] has been in the gripper
HELD = 0.035  # [m] gripper tip to where it takes the thing: in the gripper
REACHED = 0.045  # [m] the same distance: the gripper was there
MOVED = 0.03  # [m] from where it lay
LEVEL = 0.010  # [m] a thing rests on a place when its height is right within this; leaning on its rim it is not
AT_REST = 0.03  # [m/s]


@dataclass(frozen=True)
class Facts:
    """What the judge sees: things (N) in the order of the scene, since its beginning.

    Attributes:
        tip: (3,) of the gripper in base_link [m].
        positions: (N, 3) origins [m].
        speeds: (N,) [m/s].
        touched: (N,) by the robot, now.
        lifted: (N,) have been off the ground once.
        moved: (N,) distance from where they lay [m].
        nearest: least distance of the tip from the target so far [m].
    """

    tip: np.ndarray
    positions: np.ndarray
    speeds: np.ndarray
    touched: np.ndarray
    lifted: np.ndarray
    moved: np.ndarray
    nearest: float


def judge(scene: Scene, facts: Facts, target: int) -> TaskState:
    """The state of the scene's task if thing number `target` is the one that it is about."""
    return _judge_pick(scene, facts, target) if scene.goal is None else _judge_place(scene, facts, target)


def rests_on_goal(scene: Scene, positions: np.ndarray, target: int) -> bool:
    """Whether the target lies in or on the goal; things (N, 3) at `positions`, held or not."""
    offset = to_goal(scene, positions, target)
    design = scene.things[scene.goal].design
    return bool((np.abs(offset[:2]) < design.inside).all() and abs(offset[2]) < _slack(scene))


def to_goal(scene: Scene, positions: np.ndarray, target: int) -> np.ndarray:
    """(3,) from the target's origin to where it is when it rests on the goal, along the sides of the goal [m]."""
    goal, thing = scene.things[scene.goal], scene.things[target]
    place = positions[scene.goal] + [0, 0, goal.design.top - goal.design.rest + thing.design.rest]
    x, y, z = place - positions[target]
    # A free goal may have been turned by a push; the sides of a cube are alike, so its first yaw is good enough.
    cos, sin = np.cos(goal.yaw), np.sin(goal.yaw)
    return np.array([cos * x + sin * y, cos * y - sin * x, z])


def _slack(scene: Scene) -> float:
    """How far from level a thing may rest: in a basket it may lie askew."""
    return 0.025 if scene.task.goal == "basket" else LEVEL


def _judge_pick(scene: Scene, facts: Facts, target: int) -> TaskState:
    distance = float(np.linalg.norm(facts.positions[target] - facts.tip))
    lift = float(facts.positions[target][2] - scene.things[target].design.rest)
    grasped = distance < HELD and lift > 0.01
    success = grasped and lift > LIFTED
    failure = ""
    if not success:
        lifts = facts.positions[:, 2] - [thing.design.rest for thing in scene.things]
        another = any(lifts[other] > LIFTED for other in range(len(lifts)) if other != target)
        failure = "held, not lifted" if grasped else "another thing lifted" if another else "not grasped"
    return TaskState(
        instruction=scene.instruction,
        task=scene.task.name,
        target=scene.things[target].name,
        success=success,
        distance=distance,
        failure=failure,
        metrics={"lift": lift, "grasped": float(grasped)},
    )


def _judge_place(scene: Scene, facts: Facts, target: int) -> TaskState:
    thing = scene.things[target]
    grip = facts.positions[target] + [0, 0, thing.design.grip]
    distance = float(np.linalg.norm(grip - facts.tip))
    lift = float(facts.positions[target][2] - thing.design.rest)
    placed = rests_on_goal(scene, facts.positions, target)
    held = bool(distance < HELD and facts.touched[target] and (lift > 0.01 or placed))
    success = bool(placed and not facts.touched[target] and facts.speeds[target] < AT_REST)
    gap = to_goal(scene, facts.positions, target)
    return TaskState(
        instruction=scene.instruction,
        task=scene.task.name,
        target=thing.name,
        success=success,
        distance=float(np.linalg.norm(gap)) if held else distance,
        failure="" if success else _why_not_placed(scene, facts, target, placed, held),
        metrics={"lift": lift, "grasped": float(held), "gap": float(np.linalg.norm(gap[:2]))},
    )


def _why_not_placed(scene: Scene, facts: Facts, target: int, placed: bool, held: bool) -> str:
    others = [i for i, thing in enumerate(scene.things) if thing.movable and i not in (target, scene.goal)]
    if placed:
        return "not released"
    if held:
        return "held, not placed"
    if facts.lifted[target]:
        return "dropped beside the goal"
    if any(facts.lifted[others]) or (scene.things[scene.goal].movable and facts.lifted[scene.goal]):
        return "another thing lifted"
    if any(facts.moved[[target, scene.goal, *others]] > MOVED):
        return "pushed away"
    return "not grasped" if facts.nearest < REACHED else "not reached"
