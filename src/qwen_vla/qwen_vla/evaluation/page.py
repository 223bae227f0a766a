# SPDX-License-Identifier: Apache-2.0
"""Building blocks of a static HTML page: no scripts, no external resources."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1e24; background: #fff; max-width: 68rem; margin: 2rem auto;
       padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { margin-top: 2.4rem; border-bottom: 1px solid #d5d8de; }
h3 { margin-bottom: .3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .9rem; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid #e6e8ec; vertical-align: top; }
.wide th, .wide td { white-space: nowrap; }
figure { margin: .8rem 0 1.6rem; } figcaption, .note { color: #565d6b; font-size: .9rem; }
figure svg { width: 100%; max-width: 36rem; height: auto; }
.robots { display: flex; flex-wrap: wrap; gap: 1rem; } .robots figure { flex: 1 1 15rem; max-width: 22rem; margin: 0; }
img { width: 100%; height: auto; border-radius: .4rem; }
.good { color: #23682f; } .bad { color: #a82f3e; } summary { cursor: pointer; margin: .5rem 0; }
@media (max-width: 44rem) {
  .stacked thead { display: none; } .stacked, .stacked tbody, .stacked tr, .stacked td { display: block; }
  .stacked tr { padding: .5rem 0; border-bottom: 1px solid #d5d8de; }
  .stacked td { border: 0; padding: .1rem 0; }
  .stacked td:first-child { font-weight: 600; }
  .stacked td:not(:first-child)::before { content: attr(data-label) ": "; color: #565d6b; }
}
"""
WIDE = 8  # a table with more columns scrolls on a narrow screen; any other one is stacked, a block for each row


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
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{"".join(parts)}</body></html>\n'


def heading(text: str, level: int = 2) -> str:
    return f"<h{level}>{escape(text)}</h{level}>\n"


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>\n'


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; cells are escaped. On a narrow screen it scrolls or is stacked, see WIDE."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(f"<tr>{''.join(map(_cell, header, row))}</tr>\n" for row in rows)
    kind = "wide" if len(header) > WIDE else "stacked"
    content = f'<table class="{kind}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
    return f'<div class="scroll">{content}</div>\n'


def figure(svg: str, caption: str, alternative: str) -> str:
    """A plot; alternative: what it shows, for those who do not see it."""
    described = svg.replace("<svg", f'<svg role="img" aria-label="{escape(alternative)}"', 1)
    return f"<figure>{described}<figcaption>{escape(caption)}</figcaption></figure>\n"


def robots(pictures: Mapping[str, bytes]) -> str:
    """Pictures (PNG) of simulated robots side by side, by their suite, each within the page itself."""
    figures = []
    for suite, png in pictures.items():
        source = f"data:image/png;base64,{b64encode(png).decode()}"
        image = f'<img src="{source}" alt="The simulated robot of the suite {escape(suite)} in one of its scenes">'
        figures.append(f"<figure>{image}<figcaption>{escape(suite)}</figcaption></figure>")
    return f'<div class="robots">{"".join(figures)}</div>\n' if figures else ""


def folded(title: str, content: str) -> str:
    """Content (HTML) shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>\n{content}</details>\n"


def _cell(name: str, content: object) -> str:
    mood = f' class="{content.mood}"' if isinstance(content, Cell) else ""
    return f'<td{mood} data-label="{escape(name)}">{escape(str(content))}</td>'
