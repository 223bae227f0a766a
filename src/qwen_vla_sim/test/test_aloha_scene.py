"""What a seed decides about a bimanual scene."""

import numpy as np
import pytest

from qwen_vla_sim.aloha.scene import (
    COLOURS,
    CUBE_CLEARANCE,
    HELD_OUT_COLOURS,
    HELD_OUT_SENTENCES,
    NAMES,
    PEG_CLEARANCE,
    SENTENCES,
    TASKS,
    region_of,
    sample_scene,
)
from qwen_vla_sim.task import SHIFTS

SEEDS = range(300)


def inside(item, region):
    low, high = region
    return low[0] <= item.x <= high[0] and low[1] <= item.y <= high[1]


def test_a_seed_is_a_scene():
    assert sample_scene(7) == sample_scene(7) != sample_scene(10)
    assert [sample_scene(seed).task for seed in range(6)] == [*TASKS, *TASKS]


@pytest.mark.parametrize("task", TASKS)
def test_things_lie_in_their_regions_and_apart(task):
    for scene in (sample_scene(seed) for seed in SEEDS if TASKS[seed % 3] == task):
        assert all(inside(item, region_of(task, i)) for i, item in enumerate(scene.items))
        first, second = scene.items[:2]
        assert first.colour != second.colour and {first.colour, second.colour} <= set(COLOURS)
        if task == "cube_transfer":
            assert np.hypot(first.x - second.x, first.y - second.y) >= CUBE_CLEARANCE
        if task == "insertion":
            assert abs(first.x - second.x) >= PEG_CLEARANCE
        assert {item.name for item in scene.items} <= set(NAMES)


def test_the_sentence_names_the_target_and_the_other_sentence_the_other_thing():
    targets = []
    for scene in map(sample_scene, SEEDS):
        assert scene.items[scene.target].name in scene.instruction
        assert scene.items[scene.other].name in scene.other_instruction
        assert scene.items[scene.other].colour not in scene.instruction
        targets.append(scene.target)
    assert 0.4 < np.mean(targets) < 0.6


def test_held_out_sentences_were_never_trained_on():
    for task in TASKS:
        assert not set(SENTENCES[task]) & set(HELD_OUT_SENTENCES[task])
        assert {sample_scene(seed, "instruction").sentence for seed in SEEDS} & set(HELD_OUT_SENTENCES[task])


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_changes_one_thing(shift):
    changed = {
        "colour": lambda s: s.items[s.target].colour in HELD_OUT_COLOURS,
        "instance": lambda s: s.items[s.target].scale != 1.0,
        "position": lambda s: not inside(s.items[s.target], region_of(s.task, s.target)),
        "background": lambda s: s.room != sample_scene(s.seed).room,
        "instruction": lambda s: s.sentence in HELD_OUT_SENTENCES[s.task],
        "dynamic": lambda s: s.drift != (0.0, 0.0),
    }
    for seed in SEEDS:
        plain, scene = sample_scene(seed), sample_scene(seed, shift)
        assert [name for name, is_changed in changed.items() if is_changed(scene)] == [shift]
        assert (scene.task, scene.target) == (plain.task, plain.target)
