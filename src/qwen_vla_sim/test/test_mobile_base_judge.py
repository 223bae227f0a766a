# SPDX-License-Identifier: Apache-2.0
"""Shortest paths, the metrics of VLN-CE, and the judge's result for a drive."""

import math
from dataclasses import replace

import numpy as np
import pytest

from qwen_vla_sim.mobile_base.free_space import FreeSpace, length, resampled, shortened
from qwen_vla_sim.mobile_base.journey import SUCCESS_RADIUS, Journey
from qwen_vla_sim.mobile_base.scene import Scene, Thing
from qwen_vla_sim.mobile_base.situation import OUTSIDE, REST, Drive, Situation
from qwen_vla_sim.mobile_base.suite import MobileBaseSuite

SUITE = MobileBaseSuite()
GO, LEAVE, BOTH = 0, 1, 2  # seeds of the tasks


def scene_with(*things: Thing) -> Scene:
    return replace(SUITE.scene(GO), things=things, target=0, door=0.0)


def box(x, y):
    return Thing("box", "red", x, y, 0.0)


# Shortest paths -------------------------------------------------------------------------------------------------------


def test_without_obstacles_the_path_is_a_straight_line():
    space = FreeSpace(scene_with(box(-1.0, 1.0)), np.array([-1.0, -1.0]), 0.25)
    np.testing.assert_allclose(space.path([-2.5, -1.0]), [[-2.5, -1.0], [-1.0, -1.0]])


def test_a_thing_is_gone_around_at_its_distance():
    thing = box(-1.5, 0.0)
    space = FreeSpace(scene_with(thing), np.array([-0.7, 0.0]), 0.25)
    way = resampled(space.path([-2.3, 0.0]), 0.01)
    gaps = np.linalg.norm(way - (thing.x, thing.y), axis=1)
    keep = thing.form.radius + 0.25
    assert keep - 0.01 < gaps.min() < keep + 0.05
    around = 2 * (math.sqrt(0.8**2 - keep**2) + keep * (math.pi / 2 - math.acos(keep / 0.8)))  # tangents and an arc
    assert around <= length(way) + 0.01 and length(way) < 1.03 * around


def test_the_other_side_of_the_wall_is_reached_through_the_door():
    goal = np.array([0.5, 1.2])
    way = FreeSpace(scene_with(box(-2.0, -1.0)), goal, 0.25).path([-0.6, 1.2])
    inside = resampled(way, 0.01)
    crossing = inside[np.abs(inside[:, 0]) < 0.05]
    assert len(crossing) and (np.abs(crossing[:, 1]) < 0.45).all()
    assert length(way) > 2.0


@pytest.mark.parametrize("start", [(-0.1, 1.0), (-1.02, -1.0), (0.1, 1.0)])
def test_a_path_leads_out_of_an_obstacle_but_not_through_the_wall(start):
    space = FreeSpace(scene_with(box(-1.0, -1.0)), np.array([-2.0, 1.0]), 0.25)
    way = resampled(space.path(start), 0.01)
    crossing = way[np.abs(way[:, 0]) < 0.05]
    assert (np.abs(crossing[:, 1]) < 0.45).all() or start[0] < 0


def test_paths_are_shortened_and_resampled_evenly():
    way = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    assert length(shortened(way, 0.5)) == pytest.approx(1.5) and len(shortened(way, 5.0)) == 1
    np.testing.assert_allclose(np.linalg.norm(np.diff(resampled(way, 0.25), axis=0), axis=1), 0.25)


# Metrics --------------------------------------------------------------------------------------------------------------


LINE = np.array([[0.0, 0.0], [0.2, 0.0]])


def travel(journey, points, reached=False):
    for point in points:
        journey.update(np.asarray(point, float), reached)


def test_the_reference_itself_is_perfect():
    journey = Journey(np.array([[0.0, 0.0], [2.0, 0.0]]))
    travel(journey, [[x, 0.0] for x in np.arange(0.05, 2.01, 0.05)])
    found = journey.metrics(True, 0.0)
    assert found["sr"] == found["osr"] == 1 and found["spl"] == pytest.approx(1.0, abs=1e-6)
    assert found["ndtw"] == pytest.approx(1.0, abs=0.01)


def test_a_detour_lowers_spl_and_similarity():
    journey = Journey(np.array([[0.0, 0.0], [2.0, 0.0]]))
    travel(journey, [[0.0, y] for y in np.arange(0.1, 1.01, 0.1)] + [[0.0, 1.0 - y] for y in np.arange(0.1, 1.01, 0.1)])
    travel(journey, [[x, 0.0] for x in np.arange(0.1, 2.01, 0.1)])
    found = journey.metrics(True, 0.0)
    assert found["spl"] == pytest.approx(0.5, abs=0.01) and found["ndtw"] < 0.7
    assert journey.metrics(False, 0.0)["spl"] == 0


def test_warping_matches_the_full_table():
    rng = np.random.default_rng(0)
    reference, drive = np.array([[0.0, 0.0], [1.5, 0.5]]), rng.normal(0, 1, (9, 2)).cumsum(axis=0)
    journey = Journey(reference)
    travel(journey, drive)
    r, q = resampled(reference, 0.1), np.vstack([reference[:1], drive])
    table = np.full((len(q) + 1, len(r) + 1), math.inf)
    table[0, 0] = 0.0
    for i in range(len(q)):
        for j in range(len(r)):
            best = min(table[i, j], table[i, j + 1], table[i + 1, j])
            table[i + 1, j + 1] = np.linalg.norm(q[i] - r[j]) + best
    assert journey.ndtw() == pytest.approx(math.exp(-table[-1, -1] / (len(r) * SUCCESS_RADIUS)))


def alignments(rows, columns):
    """Every way to walk two sequences from their beginnings to their ends, none of them backwards."""
    if (rows, columns) == (0, 0):
        yield [(0, 0)]
        return
    for i, j in ((rows - 1, columns), (rows, columns - 1), (rows - 1, columns - 1)):
        if i >= 0 and j >= 0:
            yield from ([*before, (rows, columns)] for before in alignments(i, j))


@pytest.mark.parametrize("drive", [[(0.1, 0.1), (0.2, 0.1)], [(0.0, -0.2), (0.1, -0.2), (0.3, 0.0), (0.1, 0.0)]])
def test_similarity_is_that_of_the_best_of_all_alignments(drive):
    """Three points of the reference, of 0.5 m each: DTW is divided by 1.5 m."""
    reference, track = [(0.0, 0.0), (0.1, 0.0), (0.2, 0.0)], [(0.0, 0.0), *drive]
    journey = Journey(np.array([reference[0], reference[-1]]))
    travel(journey, drive)
    every = alignments(len(track) - 1, len(reference) - 1)
    best = min(sum(math.dist(track[i], reference[j]) for i, j in pairs) for pairs in every)
    assert journey.ndtw() == pytest.approx(math.exp(-best / 1.5))


def test_a_drive_beside_the_reference_has_a_similarity_known_by_hand():
    """After the common start, 20 points are 0.25 m off: exp(-20 · 0.25 / (21 · 0.5))."""
    journey = Journey(np.array([[0.0, 0.0], [2.0, 0.0]]))
    travel(journey, [[x, 0.25] for x in np.linspace(0.1, 2.0, 20)])
    assert journey.ndtw() == pytest.approx(math.exp(-5.0 / 10.5))


def test_standing_adds_no_point_and_a_reference_has_none_twice():
    there, journey, rested = [[0.1, 0.2], [0.2, 0.2]], Journey(LINE), Journey(LINE)
    travel(journey, there)
    travel(rested, [there[0]] * 50 + [there[1]] * 50)
    assert rested.metrics(True, 0.0) == pytest.approx(journey.metrics(True, 0.0))
    for end in (0.6, 0.6 + 1e-10, math.nextafter(0.3, 1), 0.3):
        dense = resampled(np.array([[0.0, 0.0], [end, 0.0]]), 0.1)
        assert len(dense) == round(end * 10) + 1 and np.diff(dense[:, 0]).min() > 0.05


def test_the_reference_is_dense():
    """With its two ends alone, DTW of the same drive would be divided by 1 m instead of 10.5 m."""
    journey = Journey(np.array([[0.0, 0.0], [2.0, 0.0]]))
    travel(journey, [[x, 0.0] for x in np.linspace(0.1, 2.0, 20)])
    ends_only = 2 * sum(np.linspace(0.0, 0.9, 10)) + 1.0
    assert journey.ndtw() == pytest.approx(1.0) and math.exp(-ends_only / 1.0) < 0.01


def test_oracle_success_is_to_have_reached_the_goal_once():
    journey = Journey(np.array([[0.0, 0.0], [1.0, 0.0]]))
    travel(journey, [[1.0, 0.0]], reached=True)
    travel(journey, [[3.0, 0.0]])
    assert journey.metrics(False, 2.0)["osr"] == 1 and journey.metrics(False, 2.0)["sr"] == 0


# Results --------------------------------------------------------------------------------------------------------------


def judged(seed, pose, told=(0.0, 0.0), seconds=REST, touches=False):
    """The judge's result after the base has been at one place for a while."""
    return verdict(SUITE.scene(seed), pose, told, seconds, touches)


def verdict(scene, pose, told=(0.0, 0.0), seconds=REST, touches=False, start=None):
    pose, places = np.array(pose, float), np.array([(thing.x, thing.y) for thing in scene.things])
    drive = Drive(scene, np.array(start or scene.start), places)
    for _ in range(round(seconds / 0.1)):
        drive.observe(pose, told, places, touches, 0.1)
    return scene.task.judge(Situation(scene, pose, lambda thing: False, drive))


def beside(seed, index, gap):
    thing = SUITE.scene(seed).things[index]
    inwards = -np.sign(thing.x) * np.sign(abs(thing.x) - 1.5), -np.sign(thing.y)
    way = np.array(inwards) / np.linalg.norm(inwards)
    return [*(np.array([thing.x, thing.y]) + (thing.form.radius + gap) * way), 0.0]


def test_stopping_near_the_target_is_success_and_passing_it_is_not():
    target = SUITE.scene(GO).target
    assert judged(GO, beside(GO, target, 0.4)).success
    assert judged(GO, beside(GO, target, 0.4)).distance == pytest.approx(0.4, abs=0.02)
    assert not judged(GO, beside(GO, target, 0.4), seconds=REST - 0.2).success
    passing = judged(GO, beside(GO, target, 0.4), told=(0.2, 0.0))
    assert not passing.success and passing.failure == "did not stop" and passing.metrics["osr"] == 1
    assert not judged(GO, beside(GO, target, 0.6)).success


def test_who_stops_at_the_goal_and_leaves_again_has_only_been_there():
    scene, place = SUITE.scene(GO), np.array(beside(GO, SUITE.scene(GO).target, 0.4))
    places = np.array([(thing.x, thing.y) for thing in scene.things])
    drive = Drive(scene, np.array(scene.start), places)
    judge = lambda pose: scene.task.judge(Situation(scene, pose, lambda thing: False, drive))  # noqa: E731
    for _ in range(round((REST - 0.2) / 0.1)):
        drive.observe(place, (0.0, 0.0), places, False, 0.1)
    assert not judge(place).success  # not for long enough
    for _ in range(round(REST / 0.1)):
        drive.observe(np.array(scene.start), (0.0, 0.0), places, False, 0.1)
    found = judge(np.array(scene.start))
    assert not found.success and found.failure == "did not stop"
    assert found.metrics["sr"] == found.metrics["spl"] == 0 and found.metrics["osr"] == 1


def test_stopping_elsewhere_is_named():
    other = next(index for index in range(3) if index != SUITE.scene(GO).target)
    assert judged(GO, beside(GO, other, 0.3)).failure == "stopped at another thing"
    start = SUITE.scene(GO).start
    assert judged(GO, start).failure == "stopped elsewhere"
    assert judged(GO, start, told=(0.0, 0.5)).failure == "not found"
    assert judged(GO, start, told=(0.2, 0.0), touches=True).failure == "stuck"


def test_a_room_is_left_when_the_base_is_in_the_hall():
    door = SUITE.scene(LEAVE).door
    assert judged(LEAVE, [OUTSIDE + 0.1, door, 0.0]).success
    threshold = judged(LEAVE, [OUTSIDE - 0.2, door, 0.0])
    assert not threshold.success and threshold.failure == "did not leave the room"
    assert threshold.distance == pytest.approx(0.2, abs=0.01)


def test_both_legs_are_needed():
    scene = SUITE.scene(BOTH)
    assert judged(BOTH, scene.start).failure == "did not leave the room"
    assert judged(BOTH, beside(BOTH, scene.target, 0.4)).success
    # Beside it behind the wall is not near it.
    target = scene.things[scene.target]
    behind = replace(target, x=0.5, y=1.2)
    things = tuple(behind if thing is target else thing for thing in scene.things)
    moved = replace(scene, things=things, room=(3.0, 3.4), hall=(3.0, 3.4), door=0.0)
    place = [-0.3, 1.2, 0.0]
    assert not verdict(moved, place, seconds=2.0, start=place).success


def test_running_into_something_is_counted_once_for_as_long_as_it_lasts():
    scene = SUITE.scene(GO)
    places = np.array([(thing.x, thing.y) for thing in scene.things])
    drive = Drive(scene, np.array(scene.start), places)
    for touches in (False, True, True, False, True):
        drive.observe(np.array(scene.start), (0.2, 0.0), places, touches, 0.1)
    assert drive.collisions == 2
