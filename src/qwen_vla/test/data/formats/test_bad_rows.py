# SPDX-License-Identifier: Apache-2.0
"""Which rows are bad, and which chunks are lost with them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla.data.formats.bad_rows import BadRows, usable_rows
from qwen_vla.data.formats.spec import DataError


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 8))
def test_a_row_is_usable_when_all_rows_of_its_chunk_are_good(good, steps):
    good = np.array(good)
    needed = np.minimum(np.arange(len(good)) + steps, len(good)) - np.arange(len(good))
    expected = [good[row : row + steps].all() for row in range(len(good))]
    np.testing.assert_array_equal(usable_rows(good, needed), expected)


def test_every_reason_is_told_once_with_its_place_and_counted_by_kind():
    bad = BadRows()
    values = np.array([[0.0, 1.0], [np.nan, 1.0], [0.0, np.inf], [np.nan, np.nan]])
    bad.add(13, "file row 3", "missing frame: no image")
    bad.add(13, "elsewhere", "missing frame: no image")
    bad.add_not_finite(values, 10, "state", lambda row: f"file row {row}")
    bad.add_gaps([0.0, 0.2, 0.4, 1.0], 5.0, 10, lambda row: f"file row {row}")
    assert bad.lines() == [
        "file row 1: state is not finite in channel 0",
        "file row 2: state is not finite in channel 1",
        "file row 3: missing frame: no image; missing frame: 0.600 s after the row before, 0.200 s expected",
    ]
    assert bad.summary()["bad_rows"] == 3
    assert bad.summary()["bad_row_kinds"] == {"missing frame": 2, "state is not finite": 2}
    np.testing.assert_array_equal(bad.mask(15), [True] * 11 + [False] * 3 + [True])


def test_bad_rows_are_refused_or_reported(caplog):
    bad = BadRows()
    bad.settle("refuse")
    bad.add(0, "file row 0", "image is missing")
    with pytest.raises(DataError, match="file row 0: image is missing\n1 bad rows; repair them"):
        bad.settle("refuse")
    bad.settle("skip")
    assert "skipped 1 bad rows:\nfile row 0: image is missing" in caplog.text
