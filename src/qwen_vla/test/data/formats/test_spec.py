# SPDX-License-Identifier: Apache-2.0
"""Files row by row: bad rows are named with file and line, and refused or left out as the user chose."""

import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_vla.data.formats.spec import DataError, read_rows, split


def positive(row, line):
    if row["n"] <= 0:
        raise ValueError(f"n must be positive, got {row['n']}")
    return row["n"]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_skipping_keeps_the_good_rows_and_names_the_others(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n\n".join(json.dumps({"n": n}) for n in numbers))  # blank lines between them
    good = [n for n in numbers if n > 0]
    if not good:
        with pytest.raises(DataError, match="no usable row"):
            read_rows(path, positive, "skip")
        return
    rows, bad = read_rows(path, positive, "skip")
    assert rows == good
    lines = [2 * i + 1 for i, n in enumerate(numbers) if n <= 0]
    assert [text.split(": ")[0] for text in bad] == [f"{path}:{line}" for line in lines]


def test_refusing_lists_every_bad_row_and_the_way_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n[1]\n{"n": -1}\nnonsense\n')
    with pytest.raises(DataError) as error:
        read_rows(path, positive, "refuse")
    message = str(error.value)
    assert f"{path}:2: a line must be a JSON object, not list" in message
    assert f"{path}:3: n must be positive, got -1" in message
    assert f"{path}:4: " in message
    assert "3 bad rows" in message and "on_bad_rows: skip" in message


def test_a_line_that_is_not_utf8_is_named_and_a_mark_of_an_editor_is_no_fault(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\n{"n": 2, "who": "M\xfcller"}\n{"n": 3}\n')
    rows, (bad,) = read_rows(path, positive, "skip")
    assert rows == [1, 3] and bad.startswith(f"{path}:2: ") and "utf-8" in bad


def test_skipped_rows_are_logged(tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n' + '{"n": 0}\n' * 12)
    with caplog.at_level(logging.WARNING):
        read_rows(path, positive, "skip")
    assert "skipped 12 bad rows" in caplog.text and "and 2 more" in caplog.text


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.jsonl: no such file"):
        read_rows(tmp_path / "nothing.jsonl", positive, "skip")


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_called_empty(tmp_path, text):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=r"rows\.jsonl is empty$"):
        read_rows(path, positive, "skip")


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 500), st.floats(0, 0.9))
def test_a_split_uses_every_row_once(count, share):
    if share and max(1, round(count * share)) >= count:
        with pytest.raises(DataError, match="none left to train on"):
            split(count, share, "rows")
        return
    training, held_out = split(count, share, "rows")
    np.testing.assert_array_equal(np.concatenate([training, held_out]), np.arange(count))
    assert (len(held_out) > 0) == (share > 0)
