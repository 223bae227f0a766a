# SPDX-License-Identifier: Apache-2.0
"""Scenes are a function of their seed and leave room for the gripper."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_vla_sim.widowx.tasks.pick_cube_of_three import CLEARANCE, REGION_X, REGION_Y, PickCubeOfThree
from qwen_vla_sim.widowx.things import COLORS

TASK = PickCubeOfThree()
seeds = st.integers(0, 2**31 - 1)


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_the_same_seed_gives_the_same_scene(seed):
    assert TASK.scene(seed) == TASK.scene(seed)


@given(seeds)
@settings(max_examples=100, deadline=None)
def test_cubes_have_different_colors_and_room_between_them(seed):
    scene = TASK.scene(seed)
    assert len({cube.color for cube in scene.things}) == 3
    places = np.array([(cube.x, cube.y) for cube in scene.things])
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.eye(3)
    assert gaps.min() >= CLEARANCE
    assert (places >= (REGION_X[0], REGION_Y[0])).all() and (places <= (REGION_X[1], REGION_Y[1])).all()


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_the_instruction_names_the_target_and_no_other_cube(seed):
    scene = TASK.scene(seed)
    named = [color for color in COLORS if color in scene.instruction.split()]
    assert named == [scene.named.color]
    for other in range(3):
        assert scene.things[other].color in scene.instruction_for(other).split()


def test_colors_and_targets_are_drawn_evenly():
    scenes = [TASK.scene(seed) for seed in range(1200)]
    counts = [sum(scene.named.color == color for scene in scenes) for color in COLORS]
    assert min(counts) > 140 and max(counts) < 260  # 200 expected; five standard deviations
