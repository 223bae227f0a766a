"""Settings for every test process: a ROS domain of its own, off-screen rendering that this machine can do, Ctrl-C, and
which examples property tests try.

They are made at import, before any test module imports rclpy or MuJoCo, and are inherited by child processes.
"""

import ctypes
import fcntl
import os
import random
import signal
import tempfile
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import settings


def _claim_domain() -> tuple[int, TextIO]:
    """Returns a ROS domain (1..101) that no other test process on this machine uses, and the lock that says so."""
    domains = list(range(1, 102))
    random.SystemRandom().shuffle(domains)
    for domain in domains:
        try:
            lock = Path(tempfile.gettempdir(), f"ros_test_domain_{domain}.lock").open("w")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return domain, lock
        except OSError:  # held by another process, or made by another user
            continue
    raise RuntimeError("all ROS domains 1..101 are in use by other test processes")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


_domain, _domain_lock = _claim_domain()  # the lock is held as long as the process lives
os.environ["ROS_DOMAIN_ID"] = str(_domain)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
# A shell without job control starts what it puts into the background with Ctrl-C ignored, and children inherit that:
# tests that interrupt a process would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("MUJOCO_GL", "egl" if _loads("libEGL.so.1") else "osmesa")

# The same examples in every run, so that a change is judged by what it changed; others: HYPOTHESIS_PROFILE=explore.
# No deadline: how long an example takes depends on what else the machine does.
settings.register_profile("repeat", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

# Tests of running nodes and processes, which are particular about time; all others may run beside each other.
NAMES = "bag_parity child_processes command_interfaces dds_profile demo environment instruction_run launch_files"
NAMES += " lifecycle measure_results overlapping_run parameters real_time rviz_config stack view"
ALONE = ["*_graph.py", "*_node.py", "*_nodes.py", *(f"test_{name}.py" for name in NAMES.split())]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say of every test whether it may run beside others."""
    for item in items:
        alone = any(item.path.match(pattern) for pattern in ALONE)
        item.add_marker("alone" if alone else "parallel")
