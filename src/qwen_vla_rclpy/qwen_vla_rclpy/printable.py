"""Text that others wrote, made safe to show: every word of a message on its way to a log, a report or a terminal.

An escape sequence could rewrite what a terminal shows, a line break could forge a line of a log, and 28 MB of text
could fill a disk.
"""

from __future__ import annotations

import unicodedata

LONGEST = 1000  # characters: at most 4,000 bytes of UTF-8, which the texts of qwen_vla_msgs have room for
LONGEST_LOG = 4000  # characters
MOST_LINES = 40
CONTINUED = "\n  | "  # no line but the first looks like the beginning of a log entry


def printable(text: object, longest: int = LONGEST) -> str:
    """One line in which every character can be seen.

    Args:
        text: anything; what `str` makes of it.
        longest: what has more characters is cut, and its length named.

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
    """Letters, signs and spaces, that of Chinese texts for example; str.isprintable knows one space alone."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


def printable_lines(text: object) -> str:
    """The same for a text of several lines, a traceback for example; of a long one, its beginning and its end."""
    lines = str(text).split("\n")
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES // 2], f"... ({len(lines)} lines)", *lines[-MOST_LINES // 2 :]]
    shown = [printable(line) for line in lines]
    while len(shown) > 1 and sum(map(len, shown)) > LONGEST_LOG:
        shown.pop(len(shown) // 2)
    return CONTINUED.join(shown)
