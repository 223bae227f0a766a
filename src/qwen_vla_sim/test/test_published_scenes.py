# SPDX-License-Identifier: Apache-2.0
"""The scenes behind published seeds stay what they are: datasets and figures name them by a suite and a seed alone.

The digests were made before tasks could be added. One that fails means that a published seed shows another scene: mend
the code, not the digest.
"""

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np
import pytest

from qwen_vla_sim.aloha.suite import AlohaSuite
from qwen_vla_sim.mobile_base.suite import MobileBaseSuite
from qwen_vla_sim.task import SHIFTS
from qwen_vla_sim.widowx.suite import WidowXPickSuite, WidowXSuite

SUITES = {suite.name: suite for suite in (WidowXSuite, WidowXPickSuite, AlohaSuite, MobileBaseSuite)}
# Validation scenes, the first and the last ones that may be looked at, and training scenes.
SEEDS = (*range(200), *range(9000, 9060), *range(19_950, 20_000), *range(1_000_000, 1_000_200), 2**31 - 1)
SHIFTED = range(100)
THINGS = {"widowx": "things", "widowx_pick": "things", "aloha": "items", "mobile_base": "things"}
AROUND = {  # what else is visible or moves
    "widowx": ("surroundings", "drift"),
    "widowx_pick": ("surroundings", "drift"),
    "aloha": ("room", "drift"),
    "mobile_base": (
        "room", "hall", "door", "start", "room_floor", "room_wall", "hall_floor", "hall_wall", "light_intensity",
        "light_direction",
    ),
}  # fmt: skip
DIGESTS = {
    ("widowx", None): "b5b2cc11c22231e6",
    ("widowx", "colour"): "a1acb65d6d977cb9",
    ("widowx", "instance"): "2f13ffaa1c86d68d",
    ("widowx", "position"): "15519799d0b2af1a",
    ("widowx", "background"): "bb13c26f458bf98b",
    ("widowx", "instruction"): "7343e6f36c22c941",
    ("widowx", "dynamic"): "14d25aaf24583f3c",
    ("widowx_pick", None): "7645636d377d9137",
    ("aloha", None): "884520bb7bae8adf",
    ("aloha", "colour"): "0961943bb52fa99c",
    ("aloha", "instance"): "7837781748d94506",
    ("aloha", "position"): "036f1f93b7e03555",
    ("aloha", "background"): "ed45c749369e8c00",
    ("aloha", "instruction"): "93cce7b7d5ae8732",
    ("aloha", "dynamic"): "760bd64c0acacae6",
    ("mobile_base", None): "a43182efde497ab1",
    ("mobile_base", "colour"): "a97088e2771c1ea4",
    ("mobile_base", "instance"): "735de46e580cfc95",
    ("mobile_base", "position"): "404da209f3ed67af",
    ("mobile_base", "background"): "a95f31b66e6f7af7",
    ("mobile_base", "instruction"): "9884e0f008670570",
    ("mobile_base", "dynamic"): "ad53a0384eeeb329",
}


def values(part) -> Iterator[str]:
    """Texts and numbers of a part of a scene, in order; numbers to a micrometer, as far as machines agree."""
    if dataclasses.is_dataclass(part):
        assert getattr(part, "shade", None) is None, "only scenes with varied looks have shades"
        part = tuple(getattr(part, field.name) for field in dataclasses.fields(part) if field.name != "shade")
    if isinstance(part, tuple):
        for value in part:
            yield from values(value)
    else:
        yield f"{round(part * 1e6)}" if isinstance(part, float | np.floating) else str(part)


def described(suite: str, scene) -> str:
    """A line that describes a whole scene: its task, what is where, and what it looks like."""
    things = getattr(scene, THINGS[suite])
    parts = (
        scene.task.name,
        scene.instruction,
        scene.target,
        things,
        *(getattr(scene, name) for name in AROUND[suite]),
    )
    return " ".join([str(scene.seed), *(text for part in parts for text in values(part))])


def digest(lines) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("name", "shift"), DIGESTS)
def test_a_published_seed_shows_the_scene_that_it_always_showed(name, shift):
    suite = SUITES[name]()
    scenes = (suite.scene(seed, shift) for seed in (SHIFTED if shift else SEEDS))
    assert digest(described(name, scene) for scene in scenes) == DIGESTS[name, shift]


def test_every_suite_and_shift_is_among_them():
    assert set(DIGESTS) == {(name, shift) for name, suite in SUITES.items() for shift in (None, *suite.shifts)}
    assert {shift for _, shift in DIGESTS} == {None, *SHIFTS}


def test_a_digest_notices_a_thing_that_lies_elsewhere():
    scene = WidowXSuite().scene(0)
    thing = scene.things[0]
    moved = dataclasses.replace(scene, things=(dataclasses.replace(thing, x=thing.x + 1e-5), *scene.things[1:]))
    assert digest([described("widowx", scene)]) != digest([described("widowx", moved)])


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_a_task_chosen_by_name_has_the_scenes_that_its_seeds_alone_mean(suite):
    suite = suite()
    for task in suite.rotation:
        seeds = [suite.seed_of(number, 9001, task) for number in range(4)]
        assert seeds == [seed for seed in range(9001, 9001 + 4 * len(suite.rotation)) if suite.task_of(seed) == task]
        assert [suite.scene(seed, task=task) for seed in seeds] == [suite.scene(seed) for seed in seeds]


def test_every_task_has_a_scene_of_every_seed():
    suite = WidowXSuite()
    scenes = [suite.scene(7, task=name) for name in suite.rotation]
    assert [scene.task.name for scene in scenes] == list(suite.rotation) and len(
        {scene.things for scene in scenes}
    ) == 5
