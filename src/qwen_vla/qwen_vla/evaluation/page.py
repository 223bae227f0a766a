# SPDX-License-Identifier: Apache-2.0
"""Building blocks of a static HTML page: no scripts, no external resources."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1e24; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.4rem; border-bottom: 1px solid #d5d8de; } h3 { margin-bottom: .3rem; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .88rem; }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; border-bottom: 1px solid #e6e8ec; vertical-align: top;
         white-space: nowrap; }
td:last-child { white-space: normal; }
figure { margin: .8rem 0 1.6rem; } figcaption, .note { color: #5a6270; font-size: .88rem; }
svg { max-width: 100%; height: auto; }
.good { color: #2c7a3d; } .bad { color: #b03a48; } summary { cursor: pointer; margin: .5rem 0; }
"""


class Cell(str):
    """Text of a table cell with a `mood`, good or bad: a class of the style sheet."""

    mood: str

    def __new__(cls, text: str, mood: str) -> Cell:
        cell = super().__new__(cls, text)
        cell.mood = mood
        return cell


def page(title: str, parts: Iterable[str], maker: str) -> str:
    """The whole page around its parts (HTML); maker: the command, as in `output_paths`."""
    head = f'<meta charset="utf-8"><meta name="generator" content="{escape(maker)}">'
    head += f"<title>{escape(title)}</title><style>{STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{"".join(parts)}</body></html>\n'


def heading(text: str, level: int = 2) -> str:
    return f"<h{level}>{escape(text)}</h{level}>\n"


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>\n'


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; cells are escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>\n"


def figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>\n"


def folded(title: str, content: str) -> str:
    """Content (HTML) shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>\n{content}</details>\n"


def _cell(content: object) -> str:
    mood = f' class="{content.mood}"' if isinstance(content, Cell) else ""
    return f"<td{mood}>{escape(str(content))}</td>"
