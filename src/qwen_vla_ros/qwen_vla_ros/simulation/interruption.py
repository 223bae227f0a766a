# SPDX-License-Identifier: Apache-2.0
"""Delivers terminating signals as exceptions, so that cleanup runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Inside, SIGINT raises KeyboardInterrupt, and SIGTERM and SIGHUP raise SystemExit, all in the main thread.

    SIGHUP stays ignored if it was (nohup). In other threads nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _leave}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handlers[signal.SIGHUP] = _leave
    before = {number: signal.getsignal(number) for number in handlers}
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
