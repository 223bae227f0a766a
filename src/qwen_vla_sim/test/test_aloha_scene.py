# SPDX-License-Identifier: Apache-2.0
"""What a seed determines in a bimanual scene."""

import numpy as np
import pytest

from qwen_vla_sim.aloha.scene import COLORS, HELD_OUT_COLORS, NAMES
from qwen_vla_sim.aloha.suite import AlohaSuite
from qwen_vla_sim.aloha.tasks import cube_transfer, insertion
from qwen_vla_sim.task import SHIFTS

SUITE = AlohaSuite()
TASKS = [SUITE.task(name) for name in SUITE.rotation]
SEEDS = range(300)


def inside(item, region):
    low, high = region
    return low[0] <= item.x <= high[0] and low[1] <= item.y <= high[1]


def test_a_seed_determines_a_scene():
    assert SUITE.scene(7) == SUITE.scene(7) != SUITE.scene(10)
    assert [SUITE.scene(seed).task for seed in range(6)] == [*TASKS, *TASKS]


@pytest.mark.parametrize("task", TASKS, ids=SUITE.rotation)
def test_things_lie_in_their_regions_and_apart(task):
    for scene in (SUITE.scene(seed) for seed in SEEDS if TASKS[seed % 3] == task):
        assert all(inside(item, task.regions[i]) for i, item in enumerate(scene.items))
        first, second = scene.items[:2]
        assert first.color != second.color and {first.color, second.color} <= set(COLORS)
        if task.name == "cube_transfer":
            assert np.hypot(first.x - second.x, first.y - second.y) >= cube_transfer.CLEARANCE
        if task.name == "insertion":
            assert abs(first.x - second.x) >= insertion.CLEARANCE
        assert {item.name for item in scene.items} <= set(NAMES)


def test_the_instruction_names_the_target_and_the_other_instruction_the_other_thing():
    targets = []
    for scene in map(SUITE.scene, SEEDS):
        assert scene.items[scene.target].name in scene.instruction
        assert scene.items[scene.other].name in scene.other_instruction
        assert scene.items[scene.other].color not in scene.instruction
        targets.append(scene.target)
    assert 0.4 < np.mean(targets) < 0.6


def test_held_out_instructions_are_never_trained_on():
    for task in TASKS:
        assert not set(task.instructions) & set(task.held_out_instructions)
        assert {SUITE.scene(seed, "instruction").template for seed in SEEDS} & set(task.held_out_instructions)


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_changes_one_thing(shift):
    changed = {
        "colour": lambda s: s.items[s.target].color in HELD_OUT_COLORS,
        "instance": lambda s: s.items[s.target].scale != 1.0,
        "position": lambda s: not inside(s.items[s.target], s.region),
        "background": lambda s: s.room != SUITE.scene(s.seed).room,
        "instruction": lambda s: s.template in s.task.held_out_instructions,
        "dynamic": lambda s: s.drift != (0.0, 0.0),
    }
    for seed in SEEDS:
        plain, scene = SUITE.scene(seed), SUITE.scene(seed, shift)
        assert [name for name, is_changed in changed.items() if is_changed(scene)] == [shift]
        assert (scene.task, scene.target) == (plain.task, plain.target)
