# SPDX-License-Identifier: Apache-2.0
"""A base that stands although it was to move is noticed; one that is slow, or turns first, is not."""

from __future__ import annotations

import numpy as np
import pytest

from qwen_vla_control.motion.base_following import WINDOW, BaseFollowingWatch
from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.reasons import Reason

S = 10**9
START = np.zeros(3)


def path(x: float, turn: float = 0.0, seconds: float = 2.0) -> BasePath:
    return BasePath.through("odom", np.linspace(START, [x, 0.0, turn], 5), seconds / 4)


@pytest.fixture
def watch() -> BaseFollowingWatch:
    return BaseFollowingWatch()


def first_fault(watch: BaseFollowingWatch, where, until: float = 2.0):
    """When the watch finds fault first [s], and what; `where`: the pose by time [s]."""
    for tick in range(round(until * 50)):
        now = tick / 50
        if fault := watch.fault(where(max(now - WINDOW, 0.0)), where(now), tick * S // 50):
            return now, fault
    return None, None


def test_a_base_that_stands_is_noticed_within_the_window_and_a_little(watch):
    watch.begin(path(0.4), 0, START)
    when, fault = first_fault(watch, lambda t: START)
    assert when == pytest.approx(WINDOW, abs=0.05) and fault.reason == Reason.NOT_FOLLOWING
    assert "but moved 0.000 m" in fault.message
    assert watch.unfinished(START).reason == Reason.NOT_FOLLOWING


@pytest.mark.parametrize("goal", [path(0.4), path(-0.3), path(0.0, turn=1.5)])
def test_a_base_that_lags_behind_by_half_a_second_follows(watch, goal):
    watch.begin(goal, 0, START)
    assert first_fault(watch, lambda t: goal.at(t - 0.5)[0]) == (None, None)
    assert watch.unfinished(goal.at(1.5)[0]) is None


def test_a_base_that_was_not_to_move_may_stand(watch):
    watch.begin(path(0.02), 0, START)
    assert first_fault(watch, lambda t: START) == (None, None)
    assert watch.unfinished(START) is None


def test_a_short_path_that_was_not_gone_is_noticed_at_its_end(watch):
    watch.begin(path(0.1, seconds=0.5), 0, START)
    assert first_fault(watch, lambda t: START, until=0.5) == (None, None)
    assert "should have moved 0.100 m so far" in watch.unfinished(START).message


def test_paths_that_replace_one_another_are_one_motion(watch):
    for start in range(4):
        watch.begin(path(0.4), start * S // 2, START)
    assert watch.fault(START, START, 2 * S - 1) is not None


def test_at_rest_nothing_is_watched(watch):
    watch.begin(path(0.4), 0, START)
    watch.end()
    assert watch.fault(START, START, 10 * S) is None and watch.unfinished(START) is None


def test_nothing_is_said_before_the_motion_is_as_old_as_the_window(watch):
    start, window = 100 * S, round(WINDOW * S)
    watch.begin(path(0.4), start, START)
    assert watch.fault(START, START, start + window - 1) is None
    assert watch.fault(START, START, start + window) is not None


@pytest.mark.parametrize(("share", "stands"), [(0.19, True), (0.21, False)])
def test_a_base_must_have_gone_a_fifth_of_its_way_from_where_it_was(watch, share, stands):
    began = np.array([3.0, -2.0, 0.5])
    goal = BasePath.through("odom", began + np.linspace(START, [0.5, 0.0, 0.0], 5), 0.5)
    watch.begin(goal, 0, began)
    assert (watch.unfinished(began + [0.5 * share, 0.0, 0.0]) is not None) == stands


@pytest.mark.parametrize(("turn", "watched"), [(0.24, False), (0.26, True), (-0.24, False), (-0.26, True)])
def test_a_rotation_counts_as_the_way_of_a_point_20_cm_from_the_center(watch, turn, watched):
    watch.begin(path(0.0, turn=turn), 0, START)
    assert (watch.unfinished(START) is not None) == watched


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_base_that_turned_as_it_was_told_has_moved(watch, sign):
    watch.begin(path(0.0, turn=1.0 * sign), 0, START)
    assert watch.unfinished(np.array([0.0, 0.0, 0.9 * sign])) is None


@pytest.mark.parametrize(("way", "watched"), [(0.049, False), (0.051, True)])
def test_less_than_5_cm_are_not_judged(watch, way, watched):
    watch.begin(path(way), 0, START)
    assert (watch.unfinished(START) is not None) == watched
