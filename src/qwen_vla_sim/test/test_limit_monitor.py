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
