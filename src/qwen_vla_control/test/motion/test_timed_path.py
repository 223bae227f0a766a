# SPDX-License-Identifier: Apache-2.0
"""A path on the time axis: what of it is still to come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.motion.timed_path import TimedPath

START = 10**18
ROWS = np.array([[0.0, 1.0], [0.1, 0.8], [0.3, 0.7], [0.4, 0.3], [0.45, 0.2]])
PATH = JointPath.through(("a", "b"), ROWS, 0.2, np.array([0.3, -0.2]))
TIMED = TimedPath(PATH, START)


def ahead(seconds: float):
    return TIMED.ahead(START + round(seconds * 1e9))


@given(st.floats(0.0, 0.799))
def test_what_is_ahead_begins_now_and_goes_on_in_steps_of_the_same_length_to_the_end(elapsed):
    elapsed = round(elapsed, 9)
    rest = ahead(elapsed)
    for step in range(rest.steps):
        position, velocity = PATH.at(elapsed + 0.2 * step)
        np.testing.assert_allclose(rest.positions[step], position, atol=1e-6)
        np.testing.assert_allclose(rest.velocities[step], velocity, atol=1e-5)
    assert rest.positions[-1].tolist() == ROWS[-1].tolist() and not rest.velocities[-1].any()
    assert (rest.joints, rest.period) == (PATH.joints, PATH.period)


@pytest.mark.parametrize(
    ("elapsed", "steps"),
    [(0.0, 4), (0.001, 4), (0.199, 4), (0.2 - 1e-8, 3), (0.2, 3), (0.201, 3), (0.6, 1), (0.799, 1)],
)
def test_a_step_that_has_begun_counts_as_a_whole_one_but_for_rounding(elapsed, steps):
    assert ahead(elapsed).steps == steps and not ahead(elapsed).velocities[-1].any()


@pytest.mark.parametrize("elapsed", [0.8 - 1e-8, 0.8, 5.0])
def test_at_its_end_nothing_is_ahead(elapsed):
    assert ahead(elapsed) is None


def test_before_its_start_it_waits_there():
    rest = ahead(-0.2)
    assert rest.steps == 5 and rest.positions[:2].tolist() == [ROWS[0].tolist()] * 2


def test_unless_told_otherwise_all_of_it_is_meant_to_be_executed():
    assert TIMED.execution_horizon == 0
