# SPDX-License-Identifier: Apache-2.0
"""Mini-batches with fixed shares: exact in the long run, a function of (seed, step), balanced when asked for."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_vla.data.mixture import Mixture
from qwen_vla.model.sample import Sample


@dataclass
class Numbers:
    """A source whose samples say which index they are and what was random about them."""

    name: str = "numbers"
    training: np.ndarray = field(default_factory=lambda: np.arange(100, 120))
    statistics: dict = field(default_factory=dict)
    embodiments: dict = field(default_factory=dict)
    tasks: np.ndarray | None = None

    def sample(self, index, rng):
        return Sample(f"{self.name} {index} {rng.integers(1_000_000)}")


def mixture(weights, batch_size, seed=0, **options):
    return Mixture([Numbers(str(i)) for i in range(len(weights))], weights, batch_size, seed, **options)


weights = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8)


@given(weights, st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_after_any_number_of_steps_every_source_is_within_a_row_or_two_of_its_share(weights, batch_size):
    plan = mixture(weights, batch_size)
    shares = np.array(weights) / np.sum(weights)
    given_rows = np.zeros(len(weights))
    for step in range(50):
        counts = plan.counts(step)
        assert counts.sum() == batch_size and (counts >= 0).all()
        given_rows += counts
        # With n sources the remainders add up to less than n: largest-remainder rounding alone never strays further.
        assert np.abs(given_rows - shares * batch_size * (step + 1)).max() < 2


@pytest.mark.parametrize(("weights", "batch_size"), [((0.8, 0.2), 10), ((1, 2, 5), 16), ((742, 60, 75, 37, 86), 1000)])
def test_shares_that_fit_are_the_same_in_every_mini_batch(weights, batch_size):
    plan = mixture(weights, batch_size)
    exact = np.array(weights) * batch_size / np.sum(weights)
    for step in range(20):
        np.testing.assert_array_equal(plan.counts(step), exact)


def test_equal_shares_take_turns():
    plan = mixture((1, 1, 1), 4)
    assert [plan.counts(step).tolist() for step in range(4)] == [[2, 1, 1], [1, 2, 1], [1, 1, 2], [2, 1, 1]]


def test_a_share_of_less_than_a_row_comes_around():
    plan = mixture((0.99, 0.01), 10)
    rows = [int(plan.counts(step)[1]) for step in range(100)]
    assert sum(rows) == 10 and set(rows) == {0, 1}


@given(st.lists(st.integers(0, 300), min_size=1, max_size=6))
@settings(max_examples=20, deadline=None)
def test_a_step_is_the_same_whichever_steps_were_asked_for_before(steps):
    one, other = mixture((0.3, 0.5, 0.2), 7), mixture((0.3, 0.5, 0.2), 7)
    for step in steps:
        one.plan(step)
    assert one.plan(steps[0]) == other.plan(steps[0])


def test_seed_and_step_change_the_rows():
    plans = [mixture((1, 1), 8, seed).plan(step) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(plan) for plan in plans}) == 4


def test_rows_come_from_the_training_indices_and_draw_their_own_numbers():
    plan = mixture((1, 1), 400)
    rows = plan.plan(3)
    assert {row.index for row in rows} == set(range(100, 120))
    samples = plan.samples(rows)
    assert [s.text for s in samples] == [s.text for s in plan.samples(rows)]
    assert len({s.text.split()[2] for s in samples}) > 390
    assert Counter(row.source for row in rows[:200]).keys() == {0, 1}, "every part of a batch holds all sources"


def robot(name, embodiment, tasks):
    tasks = np.array(tasks, dtype=object)
    return Numbers(name, np.arange(len(tasks)), {"statistics": None}, {embodiment: None}, tasks)


def test_balanced_sampling_is_uniform_over_embodiments_then_tasks_then_frames():
    sources = [
        robot("a", "widowx", ["pick"] * 90 + ["place"] * 10),
        robot("b", "widowx", ["place"] * 30 + ["push"] * 5),
        robot("c", "aloha", ["fold"] * 1000),
        Numbers("questions"),
    ]
    plan = Mixture(sources, [10, 1, 1, 4], 64, 0, "task_and_embodiment")
    np.testing.assert_allclose(plan.shares[3], 4 / 16)
    np.testing.assert_allclose([plan.shares[:2].sum(), plan.shares[2]], [3 / 8, 3 / 8])
    seen = Counter()
    frames = Counter()
    for step in range(400):
        for row in plan.plan(step):
            source = sources[row.source]
            if source.tasks is not None:
                seen[next(iter(source.embodiments)), source.tasks[row.index]] += 1
                frames[row.source, row.index] += 1
    total = sum(seen.values())
    for task in ("pick", "place", "push"):
        assert seen["widowx", task] / total == pytest.approx(1 / 6, abs=0.01)
    assert seen["aloha", "fold"] / total == pytest.approx(1 / 2, abs=0.01)
    place = [frames[0, index] for index in range(90, 100)] + [frames[1, index] for index in range(30)]
    assert min(place) > 0.6 * np.mean(place) and max(place) < 1.4 * np.mean(place), (
        "a task's frames alike, in any data set"
    )
