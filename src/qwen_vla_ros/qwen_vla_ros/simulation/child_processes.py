# SPDX-License-Identifier: Apache-2.0
"""Processes that end with their parent: in order if it ends properly, by the kernel if it is killed.

Each child has a session of its own: Ctrl-C in a terminal reaches only the parent, which then decides. Free of ROS.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_vla.output_paths import plain_marker

LAUNCHER = Path(__file__).with_name("die_with_parent.py")
ESCALATION = ((signal.SIGINT, 5.0), (signal.SIGTERM, 2.0))  # signal and timeout [s]; then SIGKILL
TAIL_LINES = 15
LOGS = plain_marker("qwen-vla")  # of a folder of logs


class ChildEnded(RuntimeError):
    """A child that should be running has ended; the message has its name, exit code and the end of its log."""


@dataclass(frozen=True)
class _Child:
    name: str
    process: subprocess.Popen
    log: Path


class ChildProcesses:
    """Starts commands and ends them all in `stop`, which must be called (or use it as a context manager).

    Linux kills the children when the *thread* that started them ends: start them from one that persists.
    """

    def __init__(self, logs: Path, escalation: Sequence[tuple[signal.Signals, float]] = ESCALATION) -> None:
        """Output of the child `name` is written to `logs`/`name`.log, which is truncated by this object."""
        self.logs = logs
        self._escalation = escalation
        self._children: list[_Child] = []
        self._started: set[str] = set()

    def __enter__(self) -> ChildProcesses:
        return self

    def __exit__(self, *_exc) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start a command (its first item is a path) and return its process ID."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        launcher = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid())]
        mode = "ab" if name in self._started else "wb"
        self._started.add(name)
        with log.open(mode) as output:
            process = subprocess.Popen(
                [*launcher, *command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children.append(_Child(name, process, log))
        return process.pid

    def check(self) -> None:
        """Raise ChildEnded when a child has ended."""
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                raise ChildEnded(f"{child.name} {how}; {self.describe_log(child.name)}")

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a child and everything that it has started."""
        _signal_session(self._named(name), number)

    def kill(self, name: str) -> None:
        """SIGKILL a child; from then on it may be missing, and may be restarted."""
        child = self._named(name)
        _signal_session(child, signal.SIGKILL)
        child.process.wait()
        self._children.remove(child)

    def pids(self) -> dict[str, int]:
        """Process IDs by name."""
        return {child.name: child.process.pid for child in self._children}

    def _named(self, name: str) -> _Child:
        return next(child for child in self._children if child.name == name)

    def describe_log(self, name: str) -> str:
        """The end of a child's log, for error messages."""
        log = self._named(name).log
        lines = log.read_text(errors="replace").splitlines()
        tail = "\n".join(f"    {line}" for line in lines[-TAIL_LINES:]) or "    (empty)"
        return f"the end of {log}:\n{tail}"

    def peak_rss_mb(self) -> dict[str, float]:
        """Peak resident memory of each running child [MB]; empty where /proc is not available."""
        peaks = {}
        for child in self._children:
            try:
                status = Path(f"/proc/{child.process.pid}/status").read_text()
            except OSError:
                continue
            kilobytes = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
            if kilobytes:
                peaks[child.name] = round(kilobytes[0] * 1024 / 1e6, 1)
        return peaks

    def stop(self, but: Collection[str] = ()) -> None:
        """End all children except those named: SIGINT, then SIGTERM, then SIGKILL; if interrupted, SIGKILL at once."""
        ending = [child for child in self._children if child.name not in but]
        try:
            for number, patience in self._escalation:
                running = [child for child in ending if child.process.poll() is None]
                if not running:
                    break
                for child in running:
                    _signal_session(child, number)
                _wait(running, patience)
        finally:
            for child in ending:  # including those that have ended: their session may still have processes
                _signal_session(child, signal.SIGKILL)
            for child in ending:
                child.process.wait()
                self._children.remove(child)


def _signal_session(child: _Child, number: signal.Signals) -> None:
    try:
        os.killpg(child.process.pid, number)
    except (ProcessLookupError, PermissionError):  # gone; macOS raises the latter for processes that are not reaped
        pass


def _wait(children: Sequence[_Child], patience: float) -> None:
    limit = time.monotonic() + patience
    for child in children:
        try:
            child.process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            return
