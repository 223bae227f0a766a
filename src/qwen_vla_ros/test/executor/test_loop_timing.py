# SPDX-License-Identifier: Apache-2.0
"""How regularly a loop runs."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla_ros.executor.loop_timing import CAPACITY, LoopTiming


def test_there_is_no_figure_before_two_calls():
    timing = LoopTiming(0.02)
    timing.tick(5)
    assert all(math.isnan(value) for value in timing.jitter_ms().values())


@given(st.lists(st.integers(0, 100_000_000), min_size=2, max_size=50), st.integers(0, CAPACITY))
def test_it_reports_the_deviation_of_the_gaps_from_the_period(gaps, before):
    timing, now = LoopTiming(0.02), 0
    for gap in [20_000_000] * before + gaps:
        now += gap
        timing.tick(now)
    times = np.cumsum([20_000_000] * before + gaps)[-CAPACITY:]
    off = np.abs(np.diff(times) - 20e6) / 1e6
    assert timing.jitter_ms() == {
        "p50": float(np.median(off)),
        "p99": float(np.quantile(off, 0.99)),
        "max": float(off.max()),
    }
