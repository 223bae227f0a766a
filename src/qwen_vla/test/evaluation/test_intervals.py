# SPDX-License-Identifier: Apache-2.0
"""Intervals of rates and of their differences: published examples, and what holds for every count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla.evaluation.intervals import newcombe_interval, wilson_interval

COUNTS = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_wilson_interval_of_a_published_example():
    low, high = wilson_interval(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert low == pytest.approx(0.2553, abs=5e-5) and high == pytest.approx(0.3662, abs=5e-5)


@given(COUNTS)
def test_wilson_interval_holds_the_rate(case):
    successes, trials = case
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials <= high <= 1.0


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((2, 7), (6, 7), 0.0582, 0.8062),
        ((0, 29), (5, 56), -0.0381, 0.1926),
        ((0, 20), (0, 10), -0.1611, 0.2775),
        ((0, 10), (10, 10), 0.6075, 1.0),
    ],
)
def test_differences_of_published_examples(first, second, low, high):
    assert newcombe_interval(first, second) == pytest.approx((low, high), abs=5e-5)


@given(COUNTS, COUNTS)
def test_a_difference_lies_in_its_interval_which_turns_with_the_order(first, second):
    low, high = newcombe_interval(first, second)
    assert -1.0 <= low <= second[0] / second[1] - first[0] / first[1] <= high <= 1.0
    assert newcombe_interval(second, first) == pytest.approx((-high, -low))


def test_without_trials_nothing_is_known():
    assert wilson_interval(0, 0) == (0.0, 1.0) and newcombe_interval((0, 0), (5, 10)) == (-1.0, 1.0)
