# SPDX-License-Identifier: Apache-2.0
"""Joints that do not go where they are commanded are noticed; those that only lag behind are not."""

from __future__ import annotations

import numpy as np
import pytest

from qwen_vla_control.motion.following import PATIENCE, FollowingWatch
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.reasons import Reason

S = 10**9
JOINTS = ("waist", "elbow", "finger")
TOLERANCE = np.array([0.1, 0.1, np.inf])
LAG = 0.1  # [s]
SETTLED = 3 * S  # a second after the end


def way(*goal: float, start: tuple[float, ...] = (0.0, 0.0, 0.0)) -> JointPath:
    """Two seconds."""
    return JointPath.through(JOINTS, np.linspace(start, goal, 11), 0.2)


@pytest.fixture
def watch() -> FollowingWatch:
    return FollowingWatch(TOLERANCE)


def first_fault(watch: FollowingWatch, measured, until: float = 2.0, since: float = 0.0):
    """When the watch finds fault first [s], and what; `measured`: by time [s]."""
    for tick in range(round(since * 50), round(until * 50)):
        if fault := watch.fault(np.asarray(measured(tick / 50)), tick * S // 50):
            return tick / 50, fault
    return None, None


def test_a_servo_that_lags_behind_follows(watch):
    path = way(1.0, -1.0, 0.02)
    watch.begin(path, 0, np.zeros(3))
    assert first_fault(watch, lambda t: path.at(t - LAG)[0]) == (None, None)
    assert watch.unfinished(path.at(2.0 - LAG)[0], 2 * S) is None


def test_a_joint_that_stands_still_is_named_as_soon_as_it_is_far_enough_away(watch):
    path = way(1.0, -1.0, 0.0)
    watch.begin(path, 0, np.zeros(3))
    time, fault = first_fault(watch, lambda t: path.at(t)[0] * [1.0, 0.0, 1.0])
    far = next(t / 50 for t in range(100) if path.at(t / 50)[0][0] > TOLERANCE[0])
    assert far + PATIENCE - 0.02 <= time <= far + PATIENCE + 0.06
    assert fault.reason is Reason.NOT_FOLLOWING and "joint 'elbow'" in fault.message and "limit 0.1000" in fault.message


def test_a_joint_that_is_pushed_off_its_way_is_named(watch):
    path = way(1.0, -1.0, 0.0)
    watch.begin(path, 0, np.zeros(3))
    time, fault = first_fault(watch, lambda t: path.at(t)[0] + [0.0, 0.4 if t > 1.0 else 0.0, 0.0])
    assert time == 1.02 and "'elbow'" in fault.message


def test_chunks_that_replace_one_another_quickly_hide_nothing(watch):
    path = way(1.0, 0.0, 0.0)
    watch.begin(path, 0, np.zeros(3))
    found = None
    for number in range(1, 18):
        time, found = first_fault(watch, lambda t: np.zeros(3), until=number * 0.1, since=(number - 1) * 0.1)
        if found:
            break
        rest = JointPath.through(JOINTS, [path.at(number * 0.1 + 0.2 * k)[0] for k in range(11)], 0.2)
        watch.begin(rest, round(number * 0.1 * S), np.zeros(3))
    assert found and 0.3 < time < 1.0


def test_a_short_way_that_nobody_went_is_noticed_at_its_end(watch):
    watch.begin(way(0.06, 0.02, 0.0), 0, np.zeros(3))
    assert first_fault(watch, lambda t: np.zeros(3)) == (None, None)
    unfinished = watch.unfinished(np.zeros(3), SETTLED)
    assert unfinished.reason is Reason.NOT_FOLLOWING
    assert "'waist' should have moved +0.0600 but moved +0.0000" in unfinished.message


def test_a_servo_that_lags_behind_a_path_that_turns_has_gone_its_way(watch):
    """Out by 0.06 and back to 0.03 beyond its start: at the end it is still out there, or just on its way."""
    out = np.concatenate([np.linspace(0.0, 0.06, 6), np.linspace(0.06, -0.03, 6)[1:]])
    turning = JointPath.through(JOINTS, np.stack([out, 0 * out, 0 * out], axis=1), 0.1)
    for lag in (0.05, 0.1, 0.2):
        watch.begin(turning, 0, np.array([-0.01, 0.0, 0.0]))
        assert watch.unfinished(turning.at(1.0 - lag)[0], S) is None
        assert watch.unfinished(turning.at(1.0)[0], SETTLED) is None
        watch.end()


def test_a_joint_that_stood_still_is_named_when_it_should_have_arrived_though_the_way_was_fast(watch):
    fast = JointPath.through(JOINTS, [[0.0, 0.0, 0.0], [0.08, 0.0, 0.0]], 0.2)
    watch.begin(fast, 0, np.zeros(3))
    assert watch.unfinished(np.zeros(3), S // 5) is None
    assert "'waist' should have moved +0.0800 but moved" in watch.unfinished(np.zeros(3), S).message


def test_a_gripper_that_holds_something_is_no_fault(watch):
    watch.begin(way(0.0, 0.0, 0.5), 0, np.zeros(3))
    assert first_fault(watch, lambda t: np.zeros(3)) == (None, None)
    assert watch.unfinished(np.zeros(3), SETTLED) is None


def test_at_rest_nothing_is_watched(watch):
    watch.begin(way(1.0, 0.0, 0.0), 0, np.zeros(3))
    watch.end()
    assert first_fault(watch, lambda t: np.full(3, 9.0)) == (None, None)
    assert watch.unfinished(np.full(3, 9.0), SETTLED) is None


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("share", "idle"), [(0.24, True), (0.26, False)])
def test_a_joint_must_have_gone_a_quarter_of_its_way_from_where_it_was(watch, sign, share, idle):
    began = np.array([0.5, -0.7, 0.3])
    watch.begin(way(0.5 + 0.2 * sign, -0.7, 0.3, start=tuple(began)), 0, began)
    unfinished = watch.unfinished(began + [0.2 * sign * share, 0.0, 0.0], SETTLED)
    assert (unfinished is not None) == idle
    if unfinished:
        assert f"should have moved {0.2 * sign:+.4f} but moved {0.2 * sign * share:+.4f}" in unfinished.message


@pytest.mark.parametrize(("goals", "named"), [((0.05, -0.09), "elbow"), ((-0.09, 0.05), "waist")])
def test_of_several_that_stood_still_the_one_with_the_longest_way_is_named(watch, goals, named):
    watch.begin(way(*goals, 0.0), 0, np.zeros(3))
    assert f"joint '{named}'" in watch.unfinished(np.zeros(3), SETTLED).message


def test_the_joint_that_is_farthest_beyond_its_own_tolerance_is_named():
    watch = FollowingWatch(np.array([0.5, 0.1, np.inf]))
    watch.begin(way(0.0, 0.0, 0.0), 0, np.zeros(3))
    fault = watch.fault(np.array([0.55, 0.3, 0.0]), S)
    assert "joint 'elbow' is 0.3000 away" in fault.message
    assert watch.fault(np.array([0.5, 0.1, 0.0]), S) is None  # at the tolerance it follows


def test_nothing_is_said_before_the_motion_is_as_old_as_a_joint_may_lag(watch):
    start = 100 * S
    watch.begin(way(0.0, 0.0, 0.0), start, np.zeros(3))
    away, patience = np.ones(3), round(PATIENCE * S)
    assert watch.fault(away, start + patience - 1) is None
    assert watch.fault(away, start + patience) is not None
