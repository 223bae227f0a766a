# SPDX-License-Identifier: Apache-2.0
"""Makes text from outside safe to show in a log, a report or a terminal.

An escape sequence could rewrite what a terminal shows, a line break could forge a log entry, and 28 MB of text could
fill a disk.
"""

from __future__ import annotations

import unicodedata

LONGEST = 1000  # characters: at most 4,000 bytes of UTF-8, which the strings of qwen_vla_msgs can hold
LONGEST_LOG = 4000  # characters
MOST_LINES = 40
CONTINUED = "\n  | "  # only the first line looks like the beginning of a log entry


def printable(text: object, longest: int = LONGEST) -> str:
    """One line in which every character is visible.

    Args:
        text: anything that `str` accepts.
        longest: text with more characters is truncated and its length given.

    Returns:
        The text with its control and formatting characters, line breaks included, as escapes ("\\x1b", "\\n").
    """
    text = str(text)
    if len(text) <= longest and text.isprintable():
        return text
    shown = "".join(c if _is_visible(c) else c.encode("unicode_escape").decode() for c in text[:longest])
    if len(text) <= longest and len(shown) <= longest:
        return shown
    ending = f"... ({len(text)} characters)"
    return shown[: max(0, longest - len(ending))] + ending


def _is_visible(character: str) -> bool:
    """Letters, symbols and spaces, including the ideographic one; str.isprintable accepts only the ASCII space."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


def printable_lines(text: object) -> str:
    """The same for text of several lines, such as a traceback; of a long one, its beginning and its end."""
    lines = str(text).split("\n")
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES // 2], f"... ({len(lines)} lines)", *lines[-MOST_LINES // 2 :]]
    shown = [printable(line) for line in lines]
    while len(shown) > 1 and sum(map(len, shown)) > LONGEST_LOG:
        shown.pop(len(shown) // 2)
    return CONTINUED.join(shown)
