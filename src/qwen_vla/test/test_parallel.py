# SPDX-License-Identifier: Apache-2.0
"""Parallel work: in order, with one state per process, and no process left behind whatever happens."""

import multiprocessing
import operator
import os
import signal
import subprocess
import sys

import psutil
import pytest

from qwen_vla.parallel import WorkerError, parallel_map

# Its one worker answers the first item, then waits for ever.
STUCK = """
import multiprocessing, threading
from qwen_vla.parallel import parallel_map
for _ in parallel_map(threading.Event, threading.Event.wait, [0, None], workers=1):
    print(multiprocessing.active_children()[0].pid, flush=True)
"""


def test_results_come_in_the_order_of_the_items():
    assert list(parallel_map(int, operator.sub, range(20), workers=2)) == [-i for i in range(20)]


def test_an_error_arrives_with_its_message():
    with pytest.raises(WorkerError, match="index out of range"):
        list(parallel_map(list, operator.getitem, [3], workers=1))
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_an_error_and_no_endless_wait():
    with pytest.raises(WorkerError, match="died"):
        list(parallel_map(os.getpid, os.kill, [signal.SIGKILL], workers=1))
    assert not multiprocessing.active_children()


def test_results_that_nobody_fetches_leave_no_process():
    results = parallel_map(int, operator.add, range(9), workers=2)
    assert next(results) == 0
    results.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_caller(how):
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as caller:
        try:
            worker = psutil.Process(int(caller.stdout.readline()))
            caller.send_signal(how)
            caller.wait(60)
        finally:
            caller.kill()  # or leaving the block would wait for it, however long
    try:
        worker.wait(60)
    except psutil.TimeoutExpired:
        assert worker.status() == psutil.STATUS_ZOMBIE  # ended; its new parent has not asked how


def test_a_state_is_made_once_in_each_process():
    # The state is a list that grows with every item: a new one for each item would always be of length 1.
    lengths = [len(state) for state in parallel_map(list, operator.iadd, [[i] for i in range(5)], workers=1)]
    assert lengths == [1, 2, 3, 4, 5]
