# SPDX-License-Identifier: Apache-2.0
"""Scenes with varied looks: their seeds, and that nothing of what the shifts show is among them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla_sim.aloha.scene import COLORS, HELD_OUT_COLORS, MORE_COLORS, OTHER_LIGHT, TONES
from qwen_vla_sim.aloha.suite import NAMES as ALOHA_NAMES
from qwen_vla_sim.aloha.suite import AlohaSuite
from qwen_vla_sim.looks import APART, VARIED_SEEDS, any_color, any_light, any_shade, varies
from qwen_vla_sim.mobile_base.driving_task import UNSEEN_LIGHT as UNSEEN_ROOM_LIGHT
from qwen_vla_sim.mobile_base.driving_task import UNSEEN_ROOMS
from qwen_vla_sim.mobile_base.scene import UNSEEN_COLORS
from qwen_vla_sim.mobile_base.suite import NAMES as BASE_NAMES
from qwen_vla_sim.mobile_base.suite import MobileBaseSuite
from qwen_vla_sim.widowx.scene import UNSEEN_LIGHT, UNSEEN_TABLES
from qwen_vla_sim.widowx.suite import WidowXSuite
from qwen_vla_sim.widowx.things import KINDS, UNSEEN_SHADES

SEEDS = [*VARIED_SEEDS[:150], *VARIED_SEEDS[-50:]]
COLOR = st.tuples(*[st.floats(0, 1)] * 3)


def apart(color, others) -> bool:
    return all(np.linalg.norm(np.subtract(color, other)) >= APART for other in others)


def outside(light: float, ranges) -> bool:
    return all(not low <= light <= high for low, high in ranges)


def test_only_training_seeds_of_one_range_vary_and_no_shifted_scene():
    assert VARIED_SEEDS.start >= 1_000_000, "validation and test scenes keep their looks"
    assert varies(VARIED_SEEDS[0], None) and varies(VARIED_SEEDS[-1], None)
    assert not varies(VARIED_SEEDS[0] - 1, None) and not varies(VARIED_SEEDS[-1] + 1, None)
    assert not varies(VARIED_SEEDS[0], "background")


@given(st.integers(0, 2**32), st.lists(COLOR, max_size=4))
def test_any_color_is_apart_from_the_avoided_ones_and_within_its_limits(seed, avoided):
    color = any_color(np.random.default_rng(seed), avoided, 0.2, 0.9)
    assert apart(color, avoided) and all(0.2 <= channel <= 0.9 for channel in color)


@given(st.integers(0, 2**32), COLOR)
def test_a_shade_is_paler_or_darker_and_apart_from_the_avoided_ones(seed, color):
    avoided = [tuple(0.8 * channel for channel in color)]
    shade = np.array(any_shade(np.random.default_rng(seed), color, avoided))
    assert apart(shade, avoided) and (shade >= 0).all() and (shade <= 1).all()
    low, high = 0.65 * np.array(color) - 0.05, 0.65 * np.array(color) + 0.35 + 0.05
    assert (shade >= low - 1e-9).all() and (shade <= high + 1e-9).all()


@given(st.integers(0, 2**32))
def test_a_light_is_outside_the_avoided_ranges(seed):
    light = any_light(np.random.default_rng(seed), (0.5, 0.9), UNSEEN_LIGHT, 0.2, 1.2)
    assert 0.2 <= light <= 1.2 and outside(light, UNSEEN_LIGHT)


def test_the_widowx_sees_no_unseen_shade_table_or_light():
    suite = WidowXSuite()
    tables = set()
    for scene in (suite.scene(seed) for seed in SEEDS):
        for thing in scene.things:
            assert apart(thing.rgb, UNSEEN_SHADES[thing.color] if thing.color else KINDS[thing.kind].unseen_colors)
        around = scene.surroundings
        assert apart(around.table_rgb, UNSEEN_TABLES) and outside(around.light_intensity, UNSEEN_LIGHT)
        tables.add(max(around.table_rgb) - min(around.table_rgb) > 0.3)
    assert tables == {True, False}, "colored tables and gray ones"


def test_aloha_sees_no_held_out_color_room_or_light():
    suite = AlohaSuite()
    named = set()
    for scene in (suite.scene(seed) for seed in SEEDS):
        first, second = scene.items[:2]
        assert first.color != second.color and {first.name, second.name} <= set(ALOHA_NAMES)
        named |= {first.color, second.color}
        assert apart(first.rgb, HELD_OUT_COLORS.values()) and apart(second.rgb, HELD_OUT_COLORS.values())
        room = scene.room
        assert all(apart(color, TONES) for color in (room.table, room.wall, room.floor))
        assert outside(room.light, OTHER_LIGHT)
    assert named == {*COLORS, *MORE_COLORS} and not named & {*HELD_OUT_COLORS}


def test_the_base_sees_no_unseen_color_room_or_light():
    suite = MobileBaseSuite()
    for scene in (suite.scene(seed) for seed in SEEDS):
        for thing in scene.things:
            assert thing.name in BASE_NAMES and thing.color not in UNSEEN_COLORS
            assert thing.rgb is None or apart(thing.rgb, UNSEEN_COLORS.values())
        floors, walls = zip(*UNSEEN_ROOMS, strict=True)
        assert apart(scene.room_floor, floors) and apart(scene.room_wall, walls)
        assert outside(scene.light_intensity, [UNSEEN_ROOM_LIGHT])


@pytest.mark.parametrize("suite", [WidowXSuite, AlohaSuite, MobileBaseSuite])
def test_a_varied_scene_is_the_same_every_time(suite):
    seed = VARIED_SEEDS[7]
    assert suite().scene(seed) == suite().scene(seed)
