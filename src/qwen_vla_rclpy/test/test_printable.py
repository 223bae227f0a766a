# SPDX-License-Identifier: Apache-2.0
"""Text from outside can be shown anywhere: one line, every character visible, never too long."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_vla_rclpy.printable import CONTINUED, LONGEST, LONGEST_LOG, printable, printable_lines


@pytest.mark.parametrize(
    "text, shown",
    [
        ("pick up the red cube", "pick up the red cube"),
        ("leg den Würfel in die Schale 大", "leg den Würfel in die Schale 大"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),  # a terminal would interpret it
        ("ok\n[ERROR] [executor_node]: forged", "ok\\n[ERROR] [executor_node]: forged"),
        ("a\rb\tc\x07\x00", "a\\rb\\tc\\x07\\x00"),
        ("\x9b2J", "\\x9b2J"),  # the one-byte form of an escape sequence
        ("abc\u202ecba", "abc\\u202ecba"),  # reverses the writing direction
        ("\u2028\ufeff\ud800", "\\u2028\\ufeff\\ud800"),
        ("把红色方块\u3000放进碗里", "把红色方块\u3000放进碗里"),  # the ideographic space
        (None, "None"),
    ],
)
def test_invisible_characters_are_escaped(text, shown):
    assert printable(text) == shown


def test_text_that_is_too_long_is_truncated_and_gives_its_length():
    assert printable("x" * 28_000_000).endswith("x... (28000000 characters)")
    assert printable("abcdefghij" * 3, longest=24) == "abcde... (30 characters)"


def is_visible(text: str) -> bool:
    return all(c.isprintable() or unicodedata.category(c) == "Zs" for c in text)


@given(st.text(max_size=3000))
def test_any_text_becomes_one_short_line_of_visible_characters(text):
    shown = printable(text)
    assert is_visible(shown) and len(shown) <= LONGEST
    shown.encode()  # no lone surrogate is left, which no publisher could send


@given(st.text(max_size=3000) | st.lists(st.text(max_size=200), max_size=100).map("\n".join))
def test_lines_stay_lines_but_none_can_pass_for_a_new_entry(text):
    first, *others = printable_lines(text).split("\n")
    assert is_visible(first)
    assert all(line.startswith(CONTINUED[1:]) and is_visible(line) for line in others)
    assert len(printable_lines(text)) <= LONGEST_LOG + 45 * len(CONTINUED)


def test_a_long_traceback_keeps_its_beginning_and_its_end():
    shown = printable_lines("\n".join(f"line {number}" for number in range(1000)))
    assert shown.startswith("line 0\n") and shown.endswith("line 999") and "... (1000 lines)" in shown
