# SPDX-License-Identifier: Apache-2.0
"""Pacing against a steady clock that the test moves by hand."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla_sim.node.real_time import LARGEST_LAG, SHORTEST_PAUSE, Pacer, Schedule


class Machine(threading.Event):
    """A clock that is also the event that is slept on: sleeping moves the clock, and so does work."""

    def __init__(self):
        super().__init__()
        self.time = 100.0

    def __call__(self):
        return self.time

    def wait(self, timeout=None):
        assert timeout >= SHORTEST_PAUSE  # a pause of nothing would keep others from the simulation's lock
        self.time += timeout
        return False


def run(work, factor=1.0, period=0.01):
    """Let periods of `work` [s each] pass and return the machine's clock after each, and the pacer."""
    machine = Machine()
    pacer = Pacer(period, machine)
    ends = []
    for seconds in work:
        machine.time += seconds
        pacer.wait(machine, factor)
        ends.append(machine.time - 100.0)
    return ends, pacer


@pytest.mark.parametrize("factor", [0.5, 1.0, 10.0])
def test_periods_take_their_time(factor):
    ends, pacer = run([0.0005] * 5, factor)
    assert ends == pytest.approx([0.01 / factor * (i + 1) for i in range(5)])
    assert pacer.lost == 0


def test_a_hiccup_is_caught_up():
    ends, pacer = run([0.001, 0.05, *[0.001] * 8])
    assert ends[1] > 0.05
    assert ends[-1] == pytest.approx(0.1)
    assert pacer.lost == 0 and not pacer.take_loss()


def test_a_long_stop_is_not_caught_up_and_reported_once():
    ends, pacer = run([0.001, 2.0, *[0.001] * 5])
    assert pacer.lost == pytest.approx(2.01 - 0.02, abs=0.002)
    assert ends[-1] == pytest.approx(ends[1] + 0.05, abs=1e-3)
    assert pacer.take_loss() and not pacer.take_loss()


@given(work=st.lists(st.floats(0, 0.3), min_size=1, max_size=50))
def test_simulated_time_never_runs_ahead_and_never_lags_by_more_than_allowed(work):
    ends, pacer = run(work)
    for i, end in enumerate(ends):
        simulated = 0.01 * (i + 1)
        assert simulated <= end + 1e-9
    assert end - simulated <= pacer.lost + LARGEST_LAG + 1e-3


@given(rate=st.floats(0.5, 100), ticks=st.integers(200, 1000))
def test_a_schedule_keeps_its_rate_on_the_grid_of_ticks(rate, ticks):
    schedule = Schedule(rate)
    count = sum(schedule.due(10_000_000 * (tick + 1)) for tick in range(ticks))
    assert count == pytest.approx(ticks * 0.01 * rate, abs=1.01)


def test_rate_zero_is_never_due_and_force_schedules_the_next_time():
    assert not Schedule(0).due(0, force=True)
    schedule = Schedule(10)
    assert schedule.due(0)
    assert not schedule.due(50_000_000)
    assert schedule.due(60_000_000, force=True)
    assert schedule.due(100_000_000)
