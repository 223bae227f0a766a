# SPDX-License-Identifier: Apache-2.0
"""A client that causes errors without end does not fill the log."""

import logging

from qwen_vla.serving.seldom import Seldom


def test_after_a_burst_records_pass_seldom_and_those_left_out_are_counted() -> None:
    now = [0.0]
    seldom = Seldom(burst=2, every=5.0, clock=lambda: now[0])

    def passes(text: str) -> str | None:
        record = logging.LogRecord("serving", logging.WARNING, "", 0, "%s", (text,), None)
        return record.getMessage() if seldom.filter(record) else None

    assert [passes(text) for text in "abcd"] == ["a", "b", None, None]
    now[0] = 4.9
    assert passes("e") is None
    now[0] = 5.1
    assert passes("f") == "f (3 more were suppressed)"
    assert passes("g") is None
