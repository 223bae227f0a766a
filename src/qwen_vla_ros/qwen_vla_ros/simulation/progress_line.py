# SPDX-License-Identifier: Apache-2.0
"""One line of progress, for people who wait."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

REDRAW_PERIOD = 0.1  # [s]


class ProgressLine:
    """Rewritten in place on a terminal; elsewhere (logs, CI) one line per new `text`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._in_place = self._stream.isatty()
        self._text = ""
        self._drawn_at = 0.0
        self._width = 0

    def update(self, text: str, detail: str = "") -> None:
        """Show `text`; `detail` changes constantly and is shown only on terminals."""
        if not self._in_place:
            if text != self._text:
                print(text, file=self._stream, flush=True)
        elif text != self._text or time.monotonic() - self._drawn_at >= REDRAW_PERIOD:
            self._draw(f"{text} {detail}")
        self._text = text

    def finish(self, text: str) -> None:
        """Replace the line by its final text."""
        if self._in_place:
            self._draw(text)
            self._stream.write("\n")
            self._width = 0
        else:
            print(text, file=self._stream, flush=True)
        self._text = ""

    def _draw(self, line: str) -> None:
        line = line[: shutil.get_terminal_size().columns - 1]
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._drawn_at, self._width = time.monotonic(), len(line)
