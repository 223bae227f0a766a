# SPDX-License-Identifier: Apache-2.0
"""The simulator's own check of limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qwen_vla_sim.controllers.limit_monitor import LimitMonitor

JOINTS = ("waist", "finger")
LOWER, UPPER, SPEED = np.array([-1.0, 0.0]), np.array([1.0, 0.04]), np.array([2.0, 0.5])
TIMESTEP = 0.01


def monitor() -> LimitMonitor:
    return LimitMonitor(JOINTS, LOWER, UPPER, SPEED, TIMESTEP)


@given(arrays(float, st.tuples(st.integers(2, 20), st.just(2)), elements=st.floats(-3, 3)))
def test_peaks_are_those_of_the_whole_history(targets):
    watching = monitor()
    for target in targets:
        watching.record(target)
    peak = watching.peak()
    speeds = np.abs(np.diff(targets, axis=0)) / TIMESTEP / SPEED
    excess = np.maximum(targets - UPPER, LOWER - targets)
    assert peak.speed_share == pytest.approx(speeds.max())
    assert peak.excess == pytest.approx(excess.max())
    if peak.excess > 0:
        assert excess[:, JOINTS.index(peak.farthest_joint)].max() == pytest.approx(peak.excess)


def test_being_placed_elsewhere_is_not_a_motion():
    watching = monitor()
    watching.record(np.array([0.0, 0.01]))
    watching.forget_position()
    watching.record(np.array([0.9, 0.03]))
    assert watching.peak().speed_share == 0


def test_it_names_the_joint():
    watching = monitor()
    watching.record(np.array([0.0, 0.01]))
    watching.record(np.array([0.0, 0.05]))
    peak = watching.peak()
    assert peak.fastest_joint == peak.farthest_joint == "finger"
    assert peak.speed_share == pytest.approx(8.0) and peak.excess == pytest.approx(0.01)


def test_a_joint_that_stands_beyond_a_limit_may_stay_and_come_back_but_not_go_there_again():
    """A finger pressed against its stop is measured a little beyond; a controller that is activated holds it there."""
    watching = monitor()
    watching.record(np.array([0.0, 0.0]))
    watching.continue_from(np.array([0.0, -0.002]), np.zeros(2), np.array([1]))
    watching.record(np.array([0.0, -0.002]))
    assert watching.peak().excess <= 0
    watching.record(np.array([0.0, 0.001]))
    watching.record(np.array([0.0, -0.001]))
    peak = watching.peak()
    assert peak.farthest_joint == "finger" and peak.excess == pytest.approx(0.001)


def test_a_controller_that_is_activated_on_a_false_measurement_makes_a_step_that_no_command_makes():
    watching = monitor()
    watching.record(np.array([0.5, 0.01]))
    watching.continue_from(np.array([0.5, 0.01]), np.array([0.02, 0.0]), np.array([0]))
    watching.record(np.array([0.52, 0.01]))
    peak = watching.peak()
    assert peak.speed_share == peak.step == 0
    assert peak.misled == pytest.approx(0.02) and peak.misled_joint == "waist"
    watching.record(np.array([0.56, 0.01]))  # what comes after it is a command again
    assert watching.peak().speed_share == pytest.approx(2.0)


def test_a_limp_joint_that_is_pushed_beyond_a_limit_was_not_commanded_there():
    watching = monitor()
    watching.record(np.array([0.9, 0.01]))
    watching.record(np.array([1.2, 0.01]), limp=np.array([True, False]))
    watching.record(np.array([1.2, 0.01]))
    assert watching.peak().excess <= 0
    watching.record(np.array([1.25, 0.01]))
    assert watching.peak().excess == pytest.approx(0.05)


def test_a_reset_ends_what_was_admitted():
    watching = monitor()
    watching.record(np.array([0.0, 0.0]))
    watching.continue_from(np.array([0.0, -0.002]), np.zeros(2), np.array([1]))
    watching.forget_position()
    watching.record(np.array([0.0, -0.002]))
    assert watching.peak().excess == pytest.approx(0.002)
