# SPDX-License-Identifier: Apache-2.0
"""Scenes of the suite `widowx`: what a seed determines, what a shift changes, and room for the gripper in both."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_vla_sim.task import SHIFTS
from qwen_vla_sim.widowx.layout import OUTER_REGION, REGION, ROOM, covered
from qwen_vla_sim.widowx.placing import PlaceTask
from qwen_vla_sim.widowx.scene import MAX_THINGS
from qwen_vla_sim.widowx.suite import WidowXSuite
from qwen_vla_sim.widowx.things import COLORS, KINDS, NAMES, UNSEEN_SHADES

seeds = st.integers(0, 2**31 - 1)
SUITE = WidowXSuite()
TASKS = [SUITE.task(name) for name in SUITE.rotation]
TRAINED = range(1_000_000, 1_000_400)


def inside(thing, region):
    return all(low <= value <= high for value, (low, high) in zip((thing.x, thing.y), region, strict=True))


@given(seeds, st.sampled_from((None, *SHIFTS)))
@settings(max_examples=60, deadline=None)
def test_the_same_seed_gives_the_same_scene(seed, shift):
    assert SUITE.scene(seed, shift) == SUITE.scene(seed, shift)


@given(seeds, st.sampled_from((None, *SHIFTS)))
@settings(max_examples=100, deadline=None)
def test_a_scene_is_about_its_task_and_leaves_a_choice(seed, shift):
    scene = SUITE.scene(seed, shift)
    task = scene.task
    assert task == TASKS[seed % len(TASKS)] and scene.named.movable
    if isinstance(task, PlaceTask):
        assert (scene.named.kind, scene.things[scene.goal].kind) == (task.kind, task.goal)
    else:
        assert (scene.named.kind, scene.goal) == ("cube", None)
    assert len(scene.things) <= MAX_THINGS and {thing.name for thing in scene.things} <= set(NAMES)
    assert len({thing.name for thing in scene.things}) == len(scene.things), "a name means one thing"
    assert 1 <= len(scene.others)
    assert len({scene.instruction_for(thing) for thing in (scene.target, *scene.others)}) == 1 + len(scene.others)
    goal = [] if scene.goal is None else scene.things[scene.goal].name.split()
    assert {scene.named.color or scene.named.kind, *goal} <= set(scene.instruction.split())


@given(seeds, st.sampled_from((None, *SHIFTS)))
@settings(max_examples=100, deadline=None)
def test_things_lie_apart_with_room_for_the_fingers(seed, shift):
    boxes = [covered(thing.design, (thing.x, thing.y, thing.yaw)) for thing in SUITE.scene(seed, shift).things]
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            gaps = np.maximum(one[:, 0] - other[:, 1], other[:, 0] - one[:, 1])
            assert (gaps > ROOM).any()


def test_only_the_position_shift_leaves_the_region():
    for seed in range(60):
        for shift in (None, *SHIFTS):
            scene = SUITE.scene(seed, shift)
            assert inside(scene.named, REGION) == (shift != "position")
            assert inside(scene.named, OUTER_REGION)
            assert all(inside(thing, REGION) for i, thing in enumerate(scene.things) if i != scene.target)


@pytest.mark.parametrize("shift", ["colour", "background", "instruction"])
def test_these_shifts_leave_every_thing_where_it_was(shift):
    for seed in range(40):
        usual, shifted = SUITE.scene(seed), SUITE.scene(seed, shift)
        unpainted = [[replace(thing, rgb=(0, 0, 0)) for thing in scene.things] for scene in (usual, shifted)]
        assert unpainted[0] == unpainted[1] and (usual.target, usual.goal) == (shifted.target, shifted.goal)
        assert (usual.things == shifted.things) == (shift != "colour")
        assert (usual.surroundings == shifted.surroundings) == (shift != "background")
        assert (usual.instruction == shifted.instruction) == (shift != "instruction")


def test_no_template_of_the_instruction_shift_is_ever_trained():
    for task in TASKS:
        assert not set(task.instructions) & set(task.held_out_instructions)
    trained = {SUITE.scene(seed).template for seed in TRAINED}
    shifted = {SUITE.scene(seed, "instruction").template for seed in range(200)}
    assert trained == {template for task in TASKS for template in task.instructions}
    assert shifted == {sentence for task in TASKS for sentence in task.held_out_instructions}


def test_no_color_or_design_of_the_shifts_is_ever_trained():
    for color, shades in UNSEEN_SHADES.items():
        for shade in shades:
            others = {name: np.abs(np.subtract(shade, rgb)).max() for name, rgb in COLORS.items()}
            assert min(others, key=others.get) == color and others[color] > 0.08, "another shade of the same color"
    for name, kind in KINDS.items():
        assert not set(kind.designs) & set(kind.unseen_designs)
        for unseen in kind.unseen_colors:
            assert all(np.abs(np.subtract(unseen, seen)).max() > 0.08 for seen in kind.colors), name
    assert all(thing.unseen for seed in range(20) for thing in SUITE.scene(seed, "instance").things)
    assert not any(thing.unseen for seed in range(20) for thing in SUITE.scene(seed).things)


def test_no_table_or_lamp_of_the_background_shift_is_ever_trained():
    trained = [SUITE.scene(seed).surroundings for seed in TRAINED]
    lowest, highest = min(around.light_intensity for around in trained), max(a.light_intensity for a in trained)
    for seed in range(40):
        around = SUITE.scene(seed, "background").surroundings
        assert not lowest <= around.light_intensity <= highest
        assert min(np.abs(np.subtract(around.table_rgb, a.table_rgb)).max() for a in trained) > 0.03


def test_only_the_target_of_a_dynamic_scene_moves():
    for seed in range(20):
        assert SUITE.scene(seed).drift == (0.0, 0.0)
        assert 0.05 < np.linalg.norm(SUITE.scene(seed, "dynamic").drift) < 0.1


def test_targets_goals_and_colors_are_drawn_evenly():
    scenes = [SUITE.scene(seed) for seed in TRAINED]
    stacks = [scene for scene in scenes if scene.task.name == "stack_cube"]
    assert len(stacks) == len(TRAINED) // len(TASKS)
    counts = [sum(scene.named.color == color for scene in stacks) for color in COLORS]
    assert min(counts) >= 4 and max(counts) <= 26  # 13 expected
    assert {scene.target for scene in stacks} == {0, 1, 2}
