# SPDX-License-Identifier: Apache-2.0
"""The base class of tasks in which a thing is placed on, in or on top of another.

Things rest on a goal when they are level with it and within its rim; the task is done when they are released there.
"""

from __future__ import annotations

import numpy as np

from qwen_vla_sim.task import TaskState
from qwen_vla_sim.widowx.grasping import Step, place_step
from qwen_vla_sim.widowx.scene import Choice
from qwen_vla_sim.widowx.situation import Situation
from qwen_vla_sim.widowx.tabletop_task import TabletopTask
from qwen_vla_sim.widowx.things import GRASP_HEIGHT

HELD = 0.035  # [m] from the gripper tip to the thing's grip point: in the gripper
REACHED = 0.045  # [m] the same distance: the gripper has reached it
MOVED = 0.03  # [m] from its initial position
LEVEL = 0.010  # [m] height tolerance of a thing that rests on a goal; leaning on its rim exceeds it
AT_REST = 0.03  # [m/s]
SPARE = ("cube", "cube", "spoon", "carrot", "eggplant")  # possible distractors

ON_INSTRUCTIONS = (
    "put the {object} on the {goal}",
    "place the {object} on the {goal}",
    "move the {object} onto the {goal}",
    "set the {object} down on the {goal}",
    "take the {object} and put it on the {goal}",
    "on the {goal} put the {object}",
)
ON_HELD_OUT = (
    "the {object} goes onto the {goal}",
    "onto the {goal} place the {object}",
    "pick up the {object} and set it down on the {goal}",
)


class PlaceTask(TabletopTask):
    """Bring a thing of one kind to a thing of another.

    Attributes:
        kind, goal: kinds of the target and of its goal.
        slack: height tolerance of resting there [m].
        most_spare_things: largest number of distractors; there is at least one.
    """

    kind: str
    goal: str
    slack = LEVEL
    most_spare_things = 2
    starts = {
        "home": 0.20,
        "anywhere": 0.22,
        "above a thing": 0.10,
        "low near the target": 0.14,
        "holding": 0.22,
        "mislaid": 0.12,
    }

    def choose(self, rng: np.random.Generator) -> Choice:
        more = 1 + int(rng.random() < (0.35 if self.most_spare_things > 1 else 0.0))
        spare = [kind for kind in SPARE if kind == "cube" or kind != self.kind]
        kinds = [self.kind, self.goal, *(str(kind) for kind in rng.choice(spare, more, replace=False))]
        order = [int(i) for i in rng.permutation(len(kinds))]
        return Choice([kinds[i] for i in order], order.index(0), order.index(1))

    def expert(self, situation: Situation) -> Step:
        s = situation
        return place_step(s.tip, s.gripper, s.grip, release_point(s), self.settled(s))

    def judge(self, situation: Situation) -> TaskState:
        scene, target = situation.scene, situation.scene.target
        distance = float(np.linalg.norm(situation.grip - situation.tip))
        placed = self.rests(situation)
        held = bool(distance < HELD and situation.touched[target] and (situation.lift > 0.01 or placed))
        success = bool(placed and not situation.touched[target] and situation.speeds[target] < AT_REST)
        gap = to_goal(situation)
        return TaskState(
            instruction=scene.instruction,
            task=self.name,
            target=scene.named.name,
            success=success,
            distance=float(np.linalg.norm(gap)) if held else distance,
            failure="" if success else _why_not(situation, placed, held),
            metrics={"lift": situation.lift, "grasped": float(held), "gap": float(np.linalg.norm(gap[:2]))},
        )

    def rests(self, situation: Situation) -> bool:
        """Whether the target is in or on the goal, held or not."""
        offset = to_goal(situation)
        inside = situation.scene.goal_thing.design.inside
        return bool((np.abs(offset[:2]) < inside).all() and abs(offset[2]) < self.slack)

    def settled(self, situation: Situation) -> bool:
        """Whether the target is in or on its goal, or would fall there: release it."""
        goal = situation.scene.goal_thing.design
        offset = to_goal(situation)
        return bool((np.abs(offset[:2]) < goal.inside).all() and -offset[2] < goal.drop + LEVEL)


def to_goal(situation: Situation) -> np.ndarray:
    """(3,) from the target's origin to its position at rest on the goal, in the axes of the goal [m]."""
    scene, positions = situation.scene, situation.positions
    goal, thing = scene.goal_thing, scene.named
    place = positions[scene.goal_index] + [0, 0, goal.design.top - goal.design.rest + thing.design.rest]
    x, y, z = place - positions[scene.target]
    # A movable goal may have been rotated by a push; the sides of a cube are equal, so its initial yaw is good enough.
    cos, sin = np.cos(goal.yaw), np.sin(goal.yaw)
    return np.array([cos * x + sin * y, cos * y - sin * x, z])


def release_point(situation: Situation) -> np.ndarray:
    """(3,) position of the target's grip point at which the gripper opens over the goal [m]."""
    goal = situation.scene.goal_thing.design
    x, y, z = situation.positions[situation.scene.goal_index]
    top = z - goal.rest + goal.top
    return np.array([x, y, top + GRASP_HEIGHT + goal.drop])


def _why_not(situation: Situation, placed: bool, held: bool) -> str:
    scene, lifted = situation.scene, situation.lifted
    target, goal = scene.target, scene.goal_index
    others = [i for i, thing in enumerate(scene.things) if thing.movable and i not in (target, goal)]
    if placed:
        return "not released"
    if held:
        return "held, not placed"
    if lifted[target]:
        return "dropped beside the goal"
    if any(lifted[others]) or (scene.things[goal].movable and lifted[goal]):
        return "another thing lifted"
    if any(situation.moved[[target, goal, *others]] > MOVED):
        return "pushed away"
    return "not grasped" if situation.nearest < REACHED else "not reached"
