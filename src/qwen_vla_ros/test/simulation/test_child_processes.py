# SPDX-License-Identifier: Apache-2.0
"""Processes end with their parent, however it ends, and an early end is reported with their output."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from qwen_vla_ros.simulation.child_processes import ChildEnded, ChildProcesses
from qwen_vla_ros.simulation.interruption import signals_as_exceptions

DEADLINE = 60.0  # [s] generous: the machine may be busy
WAITS = "import signal; print('up', flush=True); signal.pause()"
SAYS_GOODBYE = f"""
try:
    {WAITS}
except KeyboardInterrupt:
    print('goodbye')
"""
STUBBORN = """
import signal
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: print('no', flush=True))
print('up', flush=True)
while True:
    signal.pause()
"""
PARENT = """
import sys
import threading
import time
from pathlib import Path
from qwen_vla_ros.simulation.child_processes import ChildProcesses
from qwen_vla_ros.simulation.interruption import signals_as_exceptions
from qwen_vla.output_files import complete_or_absent

folder = Path(sys.argv[1])
with signals_as_exceptions(), ChildProcesses(folder) as children, complete_or_absent(folder / "result") as temporary:
    temporary.write_text("half")
    pid = children.start("child", [sys.executable, "-c", sys.argv[2]], {})
    print(pid, flush=True)
    sys.stdin.read()  # forever
"""


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def wait_for(log: Path, text: str) -> None:
    """Wait until a child has written some text."""
    limit = time.monotonic() + DEADLINE
    while text not in log.read_text():
        assert time.monotonic() < limit, log.read_text()
        threading.Event().wait(0.01)


def wait_for_end(pid: int) -> None:
    """Wait until a child has ended, without reaping its exit code."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture
def children(tmp_path):
    with ChildProcesses(tmp_path, escalation=((signal.SIGINT, 5.0), (signal.SIGTERM, 0.5))) as started:
        yield started


def start(children: ChildProcesses, name: str, program: str) -> psutil.Process:
    process = psutil.Process(children.start(name, python(program), os.environ))
    wait_for(children.logs / f"{name}.log", "up")
    return process


def test_they_are_interrupted_and_only_then_killed(children, tmp_path):
    processes = [start(children, "polite", SAYS_GOODBYE), start(children, "stubborn", STUBBORN)]
    children.check()
    children.stop()
    assert not [process for process in processes if process.is_running()]
    assert (tmp_path / "polite.log").read_text() == "up\ngoodbye\n"


def test_each_has_a_session_of_its_own_and_everything_it_started_ends_with_it(children):
    mother = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WAITS!r}])\n{WAITS}"
    process = start(children, "mother", mother)
    assert os.getsid(process.pid) == process.pid
    (grandchild,) = process.children()
    children.stop()
    psutil.wait_procs([grandchild], DEADLINE)
    assert not grandchild.is_running()


@pytest.mark.parametrize(
    "program, how",
    [
        ("print('no camera'); raise SystemExit(3)", "ended with exit code 3"),
        ("import os; print('no camera', flush=True); os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ],
)
def test_an_early_end_is_reported_with_the_log(children, program, how):
    wait_for_end(children.start("camera", python(program), os.environ))
    with pytest.raises(ChildEnded, match=f"camera {how}; .*camera.log:\n    no camera$"):
        children.check()


def test_a_program_that_does_not_exist_is_named(children):
    wait_for_end(children.start("ghost", ["/no/such/program"], os.environ))
    with pytest.raises(ChildEnded, match="/no/such/program: No such file"):
        children.check()


def test_the_memory_of_running_children_is_known(children):
    start(children, "one", WAITS)
    assert 1 < children.peak_rss_mb()["one"] < 1000


@pytest.fixture
def start_parent(tmp_path):
    """Starts a process that starts a child; returns both. Whatever is left at the end is killed."""
    started = []

    def start(program: str, child: str) -> tuple[subprocess.Popen, psutil.Process]:
        command = [*python(program), str(tmp_path), child]
        parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(parent)
        process = psutil.Process(int(parent.stdout.readline()))
        wait_for(tmp_path / "child.log", "up")
        return parent, process

    yield start
    for parent in started:
        parent.kill()
        parent.communicate()


@pytest.mark.parametrize(
    "number, code, child",
    [(signal.SIGINT, None, WAITS), (signal.SIGTERM, 143, WAITS), (signal.SIGKILL, -9, STUBBORN)],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_no_end_of_the_parent_leaves_a_child(start_parent, tmp_path, number, code, child):
    parent, process = start_parent(PARENT, child)
    parent.send_signal(number)
    parent.wait(DEADLINE)
    psutil.wait_procs([process], DEADLINE)
    assert not process.is_running()
    assert code is None or parent.returncode == code
    left = {file.name for file in tmp_path.iterdir()} - {"child.log"}
    killed = {f"result.{platform.node()}-{parent.pid}.qwen_vla.tmp"}
    assert left == (killed if number == signal.SIGKILL else set())


def test_a_second_ctrl_c_kills_at_once(start_parent, tmp_path):
    """An impatient user does not have to wait until the timeout of the child."""
    program = PARENT.replace("ChildProcesses(folder)", "ChildProcesses(folder, [(2, 1000.0)])")
    parent, process = start_parent(program, STUBBORN)
    parent.send_signal(signal.SIGINT)
    wait_for(tmp_path / "child.log", "no")
    parent.send_signal(signal.SIGINT)
    parent.wait(DEADLINE)
    psutil.wait_procs([process], DEADLINE)
    assert not process.is_running()


@pytest.mark.parametrize("number, exception", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signals_become_exceptions_and_the_previous_handlers_are_restored(number, exception):
    before = signal.getsignal(number)
    with pytest.raises(exception):
        with signals_as_exceptions():
            os.kill(os.getpid(), number)
            signal.pause()
    assert signal.getsignal(number) is before
