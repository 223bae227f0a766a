# SPDX-License-Identifier: Apache-2.0
"""Settings for every test process: a ROS graph of its own, off-screen rendering that this machine can do, Ctrl-C, and
which examples property tests try. And what a run says of itself: which tests may run beside others, which were rerun.

The settings are made at import, before any test module imports rclpy or MuJoCo, and are inherited by child processes.
"""

import ctypes
import faulthandler
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from qwen_vla_ros.ros.environment import adopt, describe_ignored, has_another_ros, own_environment
from qwen_vla_ros.ros.ros_domain import claim_domain


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


_domain, _claim = claim_domain()  # held as long as the process lives
_ignored = describe_ignored()
if has_another_ros():
    raise pytest.UsageError("another ROS installation is sourced in this shell; use make test, or a new shell")
adopt(own_environment() | {"ROS_DOMAIN_ID": str(_domain)})
# A shell without job control starts what it puts into the background with Ctrl-C ignored, and children inherit that:
# tests that interrupt a process would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("MUJOCO_GL", "egl" if _loads("libEGL.so.1") else "osmesa")

# The same examples in every run, so that a change is judged by what it changed; others: HYPOTHESIS_PROFILE=explore.
# No deadline: how long an example takes depends on what else the machine does.
settings.register_profile("repeat", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

AFTER_TIMEOUT = 60  # [s] a test hangs that its timeout has not ended
_error_output = os.dup(2)  # pytest captures the other one
RERUN_REASON = "rerun reason"  # of a test, in the properties of its reports

# Which tests may run beside which. Nodes mostly wait for each other: two graphs at a time share two cores without harm.
# Alone: what is to happen within half a second, a flood, and what counts the shared memory of the whole machine.
ALONE = ["test_executor_graph.py", "test_policy_graph.py", "test_hostile_input_graph.py", "test_dds_profile.py"]
ALONE += ["test_cluster.py"]  # every process of a node takes half a core when it starts
NAMES = "bag_parity child_processes command_interfaces instruction_run launch_files lifecycle overlapping_run"
NAMES += " ros_domain rviz_config stack"
IN_PAIRS = ["*_graph.py", "*_node.py", "*_nodes.py", *(f"test_{name}.py" for name in NAMES.split())]


def company(path: Path) -> str:
    """The marker of a file's tests: alone, in_pairs (two at a time), or parallel (as many as there are cores)."""
    for marker, patterns in {"alone": ALONE, "in_pairs": IN_PAIRS}.items():
        if any(path.match(pattern) for pattern in patterns):
            return marker
    return "parallel"


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(settings: Any) -> None:
    """End a process that hangs in a library which holds Python's lock: there the timer of pytest-timeout never runs."""
    faulthandler.dump_traceback_later(settings.timeout + AFTER_TIMEOUT, exit=True, file=_error_output)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer() -> None:
    """The test has ended."""
    faulthandler.cancel_dump_traceback_later()


def pytest_report_header() -> list[str]:
    """Name the settings of the shell that the tests do without."""
    return [_ignored] if _ignored else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say of every test whether it may run beside others, and refuse reruns without a reason."""
    for item in items:
        item.add_marker(company(item.path))
        if (flaky := item.get_closest_marker("flaky")) is not None:
            if not flaky.kwargs.get("reason"):
                raise pytest.UsageError(f"{item.nodeid} may be rerun: say why, with flaky(reruns=1, reason='...')")
            item.user_properties.append((RERUN_REASON, flaky.kwargs["reason"]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that were rerun."""
    if reruns := terminalreporter.stats.get("rerun", []):
        terminalreporter.section("reruns")
    for report in reruns:
        reason = dict(report.user_properties).get(RERUN_REASON, "asked for on the command line")
        terminalreporter.line(f"{report.nodeid}: {reason}")
