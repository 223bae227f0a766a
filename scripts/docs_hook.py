# SPDX-License-Identifier: Apache-2.0
"""MkDocs: a link from a page to a file outside of docs/ becomes the file's path, since the site has only the pages.

A file that does not exist is a warning, and so an error in `make docs`.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]+)?\)")
DOCS = Path(__file__).resolve().parent.parent / "docs"
log = logging.getLogger("mkdocs.hooks.docs")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page's text with its links out of docs/ replaced."""
    folder = (DOCS / page.file.src_uri).parent
    return LINK.sub(lambda link: _inside(link, folder, page.file.src_uri), markdown)


def _inside(link: re.Match[str], folder: Path, name: str) -> str:
    target = (folder / link[2]).resolve()
    if target.is_relative_to(DOCS):
        return link[0]
    if not target.exists():
        log.warning("%s links to %s, which does not exist", name, link[2])
    path = f"`{target.relative_to(DOCS.parent)}`"
    return path if path.strip("`") in link[1] else f"{link[1]} ({path})"
