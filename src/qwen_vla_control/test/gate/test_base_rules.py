# SPDX-License-Identifier: Apache-2.0
"""How fast a base may move: in any direction, in every step, and only on paths that are one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qwen_vla_control.gate.base_rules import BaseRules, check_base
from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.reasons import Reason

RULES = BaseRules(max_linear=0.5, max_angular=1.5)
PERIOD = 0.5


def path(poses) -> BasePath:
    return BasePath.through("odom", np.asarray(poses, float), PERIOD)


def step(row: int, way) -> BasePath:
    """Four steps, of which one is `way`."""
    poses = np.zeros((5, 3))
    poses[row + 1 :] = way
    return path(poses)


@pytest.mark.parametrize("row", [0, 1, 3])
@pytest.mark.parametrize("degrees", [0, 37, 90, 180, 270])
def test_it_may_drive_as_fast_as_its_limit_in_any_direction_and_no_faster(row, degrees):
    ahead = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0.0]) * PERIOD
    assert check_base(step(row, 0.5 * ahead), RULES) == []
    (violation,) = check_base(step(row, 0.501 * ahead), RULES)
    assert violation.reason is (Reason.VELOCITY_LIMIT if row else Reason.START_JUMP)
    assert violation.message == f"waypoint {row}: the speed is 0.501 m/s, over the limit 0.500 m/s"


@pytest.mark.parametrize("row", [0, 1, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_it_may_turn_as_fast_as_its_limit_either_way_and_no_faster(row, sign):
    assert check_base(step(row, [0.0, 0.0, sign * 1.5 * PERIOD]), RULES) == []
    (violation,) = check_base(step(row, [0.0, 0.0, sign * 1.501 * PERIOD]), RULES)
    assert violation.reason is (Reason.VELOCITY_LIMIT if row else Reason.START_JUMP)
    assert violation.message == f"waypoint {row}: the angular speed is 1.501 rad/s, over the limit 1.500 rad/s"


@pytest.mark.parametrize(("over", "found"), [(0.9e-6, 0), (1.1e-6, 1)])
@pytest.mark.parametrize("column", [0, 2])
def test_rounding_is_no_violation(column, over, found):
    way = np.zeros(3)
    way[column] = ({0: 0.5, 2: 1.5}[column] + over) * PERIOD
    assert len(check_base(step(1, way), RULES)) == found


def test_all_that_is_too_fast_is_told_each_at_its_first_place():
    poses = np.zeros((6, 3))
    poses[1:] = [0.3, 0.0, 1.0]
    poses[3:] = [0.6, 0.4, 0.0]
    poses[5:] = [0.0, 0.0, 0.0]
    found = [(violation.reason, violation.message.split(" is ")[0]) for violation in check_base(path(poses), RULES)]
    assert found == [
        (Reason.START_JUMP, "waypoint 0: the speed"),
        (Reason.START_JUMP, "waypoint 0: the angular speed"),
        (Reason.VELOCITY_LIMIT, "waypoint 2: the speed"),
        (Reason.VELOCITY_LIMIT, "waypoint 2: the angular speed"),
    ]


def test_a_path_without_a_waypoint_is_refused():
    (violation,) = check_base(path(np.zeros((1, 3))), RULES)
    assert violation.reason is Reason.WRONG_SHAPE
    assert check_base(path(np.zeros((2, 3))), RULES) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("what", ["positions", "velocities"])
def test_poses_alone_or_velocities_alone_that_are_not_finite_are_refused(what, column, value):
    spoiled = getattr(step(0, 0.0), what).copy()
    spoiled[2, column] = value
    (violation,) = check_base(replace(step(0, 0.0), **{what: spoiled}), RULES)
    assert violation.reason is Reason.NON_FINITE
