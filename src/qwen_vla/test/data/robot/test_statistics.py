# SPDX-License-Identifier: Apache-2.0
"""Quantiles of streamed values are exact, and are recomputed when their inputs change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qwen_vla.data.robot.statistics import cached_quantiles, exact_quantiles

FLOATS = st.floats(-(2.0**99), 2.0**99, width=32)
VALUES = st.tuples(st.integers(1, 40), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=FLOATS)
)


@given(VALUES, st.integers(1, 7), st.sampled_from([(0.01, 0.99), (0.0, 0.5, 1.0)]))
@settings(max_examples=100, deadline=None)
def test_streamed_quantiles_are_those_of_numpy(values, size, shares):
    blocks = [values[start : start + size] for start in range(0, len(values), size)]
    found = exact_quantiles(lambda: blocks, shares)
    np.testing.assert_allclose(found, np.quantile(values.astype(np.float64), shares, axis=0), rtol=1e-6, atol=1e-30)


def test_many_values_of_many_sizes():
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(20000, 4)) * [1e-6, 1.0, 1e6, 0.0]).astype(np.float32)
    expected = np.quantile(values.astype(np.float64), (0.01, 0.99), axis=0)
    np.testing.assert_allclose(exact_quantiles(lambda: np.array_split(values, 9), (0.01, 0.99)), expected, rtol=1e-9)


@pytest.mark.parametrize("values", [np.zeros((0, 2)), np.array([[1.0, np.nan]]), np.array([[np.inf, 0.0]])])
def test_nothing_and_what_is_not_finite_are_refused(values):
    with pytest.raises(ValueError, match="quantiles need"):
        exact_quantiles(lambda: [values], (0.5,))


def test_statistics_are_kept_until_what_they_were_made_from_changes(tmp_path):
    passes = []

    def quantiles(made_from, scale):
        def blocks():
            passes.append(made_from)
            return [scale * np.arange(101, dtype=np.float32)[:, None]]

        return cached_quantiles(tmp_path, made_from, blocks, ["x"])

    first = quantiles({"data": "a", "steps": 4}, 1)
    assert first.q01 == 1 and first.q99 == 99 and len(passes) == 2
    assert quantiles({"data": "a", "steps": 4}, 5).q99 == 99 and len(passes) == 2
    assert quantiles({"data": "b", "steps": 4}, 2).q99 == 198
    assert quantiles({"data": "a", "steps": 5}, 3).q99 == 297
    assert quantiles({"data": "a", "steps": 4}, 5).q99 == 99
