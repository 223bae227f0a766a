# SPDX-License-Identifier: Apache-2.0
"""Work in parallel processes, each with its own state, that end with the call and with the calling process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import repeat
from typing import Any, TypeVar

from tqdm import tqdm

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerError(RuntimeError):
    """The work failed in its process, or the process died; the message gives the reason."""


def parallel_map(
    prepare: Callable[[], State], work: Callable[[State, Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield `work(state, item)` in the order of `items`; `state` is what `prepare` returns, called once per process.

    Processes are spawned, so both functions must be importable by name. WorkerError when one of them fails.
    """
    items = list(items)
    if not items:
        return
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(min(workers, len(items)), context, start_worker)
    try:
        yield from executor.map(_work, repeat(prepare), repeat(work), items)
    except BrokenProcessPool as error:
        raise WorkerError("a worker process died; if it ran out of memory, use fewer --workers") from error
    finally:
        for child in multiprocessing.active_children():
            if child not in others:
                child.terminate()
        executor.shutdown(cancel_futures=True)


_state: dict[str, Any] = {}


def start_worker() -> None:
    """Call first in a worker process: it ignores Ctrl-C, which its caller handles, and ends with its caller."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the caller ends its workers
    tqdm.set_lock(threading.RLock())  # its default lock is a system-wide semaphore, leaked by a killed worker
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the caller was killed; workers would wait for it forever."""
    if (caller := multiprocessing.parent_process()) is not None:
        caller.join()
        os._exit(1)


def _work(prepare: Callable[[], State], work: Callable[[State, Item], Result], item: Item) -> Result:
    try:
        if "state" not in _state:
            _state["state"] = prepare()
        return work(_state["state"], item)
    except Exception as error:  # any error, as a type that can be pickled
        raise WorkerError(str(error) or type(error).__name__) from error
