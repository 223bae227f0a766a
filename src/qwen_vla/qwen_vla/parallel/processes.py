# SPDX-License-Identifier: Apache-2.0
"""Worker processes of this machine, that end with the call and with the calling process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import repeat

from tqdm import tqdm

from qwen_vla.parallel.task import Item, Result, State, WorkerError, perform


def process_map(
    prepare: Callable[[], State], work: Callable[[State, Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """As `parallel_map`. Processes are spawned."""
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(min(workers, len(items)), context, start_worker)
    try:
        yield from executor.map(perform, repeat(""), repeat(prepare), repeat(work), items)
    except BrokenProcessPool as error:
        raise WorkerError("a worker process died; if it ran out of memory, use fewer --workers") from error
    finally:
        for child in multiprocessing.active_children():
            if child not in others:
                child.terminate()
        executor.shutdown(cancel_futures=True)


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
