# SPDX-License-Identifier: Apache-2.0
"""Quantile normalization, eq. 5: range, clipping, degenerate channels, round trip, file form."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qwen_vla import Quantiles
from qwen_vla.model.normalization import QuantilesRecord

values = st.floats(-1e3, 1e3, width=32)


@st.composite
def quantiles_and_actions(draw):
    channels = draw(st.integers(1, 8))
    low = draw(arrays.arrays(np.float64, channels, elements=values))
    span = draw(arrays.arrays(np.float64, channels, elements=st.one_of(st.just(0.0), st.floats(1e-3, 1e3))))
    shares = draw(arrays.arrays(np.float64, (5, channels), elements=st.floats(0, 1)))
    return Quantiles(low, low + span), low + shares * span


@given(quantiles_and_actions())
def test_round_trip_inside_the_range(case):
    quantiles, actions = case
    normalized = quantiles.normalize(actions)
    assert normalized.dtype == np.float32 and np.abs(normalized).max() <= 1.0
    scale = np.abs(actions).max() + np.ptp(np.stack([quantiles.q01, quantiles.q99])) + 1.0
    np.testing.assert_allclose(quantiles.unnormalize(normalized), actions, atol=1e-6 * scale)


@given(quantiles_and_actions(), st.floats(-50, 50))
def test_result_is_always_inside_the_quantiles(case, value):
    quantiles, _ = case
    widened = (quantiles.q99 - quantiles.q01 < 1e-4) * 1.0001
    actions = quantiles.unnormalize(np.full(quantiles.q01.shape, value))
    slack = 1e-6 * (np.abs(quantiles.q01) + np.abs(quantiles.q99) + 1)
    assert (actions >= quantiles.q01 - widened - slack).all() and (actions <= quantiles.q99 + widened + slack).all()


def test_equation_five():
    quantiles = Quantiles([0.0, -2.0], [4.0, 2.0])
    np.testing.assert_allclose(quantiles.normalize([[1.0, 0.0], [4.0, -9.0]]), [[-0.5, 0.0], [1.0, -1.0]])


def test_a_channel_that_never_moves_maps_to_zero_and_back():
    quantiles = Quantiles.from_data(np.tile([0.25, 3.0], (40, 1)))
    np.testing.assert_allclose(quantiles.normalize([[0.25, 3.0]]), 0, atol=1e-9)
    np.testing.assert_allclose(quantiles.unnormalize([[0.0, 0.0]]), [[0.25, 3.0]])
    np.testing.assert_allclose(quantiles.normalize([[0.75, 2.0]]), [[0.5, -1.0]])


def test_quantiles_of_data_over_all_leading_axes():
    data = np.linspace(0, 100, 10_001).reshape(73, 137, 1)
    quantiles = Quantiles.from_data(data, ["x"])
    np.testing.assert_allclose([quantiles.q01, quantiles.q99], [[1.0], [99.0]])


def test_json_round_trip():
    quantiles = Quantiles([0.1, 1 / 3], [0.2, 1e6], ["x", "gripper"])
    again = QuantilesRecord.model_validate_json(json.dumps(quantiles.to_json())).quantiles
    assert np.array_equal(again.q01, quantiles.q01) and np.array_equal(again.q99, quantiles.q99)
    assert again.channel_names == ("x", "gripper")


@pytest.mark.parametrize(
    ("q01", "q99", "names", "words"),
    [
        ([0.0], [1.0, 2.0], (), "shapes"),
        ([0.0, np.nan], [1.0, 2.0], (), "finite"),
        ([0.0, 3.0], [1.0, 2.0], (), r"channels \[1\]"),
        ([0.0], [1.0], ("x", "y"), "2 channel names"),
    ],
)
def test_bad_statistics_are_refused(q01, q99, names, words):
    with pytest.raises(ValueError, match=words):
        Quantiles(q01, q99, names)


def test_wrong_width_and_empty_data_are_refused():
    with pytest.raises(ValueError, match="statistics 1"):
        Quantiles([0.0], [1.0]).normalize(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="at least one row"):
        Quantiles.from_data(np.zeros((0, 2)))
