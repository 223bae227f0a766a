# SPDX-License-Identifier: Apache-2.0
"""Scenes of the base: the same for a seed, as specified, and different where they are shifted."""

import numpy as np
import pytest

from qwen_vla_sim.mobile_base.driving_task import DOOR_OFFSET
from qwen_vla_sim.mobile_base.furnishing import APART, FROM_WALL, FROM_WALL_UNSEEN, LEAST_PATH
from qwen_vla_sim.mobile_base.scene import COLORS, DRIFT, DRIFT_SPEED, IN_ROOM, UNSEEN_COLORS, in_hall, sees, space
from qwen_vla_sim.mobile_base.suite import MobileBaseSuite

SUITE = MobileBaseSuite()
TASKS = [SUITE.task(name) for name in SUITE.rotation]
SEEDS = range(60)


def to_wall(scene, thing):
    low, high = space(scene, in_hall(thing))
    place = np.array([thing.x, thing.y])
    return float(min(np.minimum(place - low, high - place)))


def test_a_seed_is_a_scene_and_its_rest_the_task():
    assert SUITE.scene(17) == SUITE.scene(17) and SUITE.scene(17) != SUITE.scene(20)
    assert [SUITE.scene(seed).task for seed in range(3)] == TASKS


@pytest.mark.parametrize("shift", [None, "dynamic"])
def test_things_stand_apart_and_the_target_is_where_the_task_wants_it(shift):
    for seed in SEEDS:
        scene = SUITE.scene(seed, shift)
        assert [in_hall(thing) for thing in scene.things] == [False] * IN_ROOM + [True] * 2
        places = np.array([(thing.x, thing.y) for thing in scene.things])
        gaps = np.linalg.norm(places[:, None] - places, axis=2) + 10 * np.eye(len(places))
        assert gaps.min() >= APART
        assert len({thing.name for thing in scene.things}) == len(scene.things)
        start = np.array(scene.start[:2])
        if scene.task.name == "go_to_object":
            target = scene.things[scene.target]
            assert in_hall(target) == (start[0] > 0)
            assert np.hypot(*(start - (target.x, target.y))) - target.form.radius >= LEAST_PATH
            assert sees(scene, start, scene.target)
        else:
            assert start[0] < 0 and sees(scene, start, None)
        assert scene.task.name != "two_legs" or in_hall(scene.things[scene.target])


def test_instructions_name_the_target_and_no_other():
    for seed in SEEDS:
        scene = SUITE.scene(seed)
        named = [thing for thing in scene.things if thing.name in scene.instruction]
        if scene.task.name == "leave_room":
            assert scene.instruction in scene.task.instructions and scene.target_name == "door"
        elif named:
            assert named == [scene.things[scene.target]]
        else:  # the kind alone, where there is one of it
            kind = scene.things[scene.target].kind
            assert kind in scene.instruction and [thing.kind for thing in scene.things].count(kind) == 1


def test_what_is_held_out_never_occurs_in_training():
    trained = [SUITE.scene(seed) for seed in SEEDS]
    assert {thing.color for scene in trained for thing in scene.things} <= {*COLORS, None}
    assert {thing.instance for scene in trained for thing in scene.things} == {0}
    assert all(FROM_WALL[0] <= to_wall(scene, thing) <= FROM_WALL[1] for scene in trained for thing in scene.things)
    assert all(abs(scene.door) <= DOOR_OFFSET[1] for scene in trained)
    held_out = {text for task in TASKS for text in task.held_out_instructions}
    assert not {scene.template for scene in trained} & held_out


def test_shifts_show_what_training_does_not():
    dimmest = min(SUITE.scene(seed).light_intensity for seed in SEEDS)
    for seed in range(12):
        color, position = SUITE.scene(seed, "colour"), SUITE.scene(seed, "position")
        assert {thing.color for thing in color.things} <= {*UNSEEN_COLORS, None}
        assert not any(name in color.instruction for name in UNSEEN_COLORS)
        assert {thing.instance for thing in SUITE.scene(seed, "instance").things} == {1}
        assert SUITE.scene(seed, "instruction").template in TASKS[seed % 3].held_out_instructions
        assert abs(position.door) > DOOR_OFFSET[1]
        if position.target is not None:
            assert to_wall(position, position.things[position.target]) >= FROM_WALL_UNSEEN
        assert SUITE.scene(seed, "background").light_intensity < dimmest


def test_a_moving_target_goes_back_and_forth():
    scene = SUITE.scene(0, "dynamic")
    (thing,) = (thing for thing in scene.things if thing.drift)
    assert thing is scene.things[scene.target]
    times = np.arange(0.0, 60.0, 0.1)
    places = np.array([thing.place_at(time) for time in times])
    speeds = np.linalg.norm(np.diff(places, axis=0), axis=1) / 0.1
    assert speeds.max() == pytest.approx(DRIFT_SPEED, rel=1e-6)
    assert np.linalg.norm(places - (thing.x, thing.y), axis=1).max() == pytest.approx(DRIFT, abs=0.01)
    np.testing.assert_allclose(places[0], (thing.x, thing.y))


def test_another_instruction_names_another_thing_in_the_same_space():
    for seed in SEEDS:
        scene = SUITE.scene(seed)
        named = set()
        for number in range(IN_ROOM):
            instruction = scene.task.other_instruction(scene, number)
            (thing,) = (thing for thing in scene.things if thing.name in instruction)
            assert scene.target is None or thing != scene.things[scene.target]
            assert in_hall(thing) == (scene.target is not None and in_hall(scene.things[scene.target]))
            if scene.task.name == "two_legs":
                assert instruction in [text.format(thing=thing.name) for text in scene.task.instructions]
            named.add(thing.name)
        assert len(named) == (IN_ROOM if scene.target is None else 1 if scene.target >= IN_ROOM else IN_ROOM - 1)
