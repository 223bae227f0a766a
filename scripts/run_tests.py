# SPDX-License-Identifier: Apache-2.0
"""Runs the tests of the repository in three parts, always all of them, and prints a summary of each at the end.

Side by side: all tests that may run in parallel. In pairs: those of running nodes, which mostly wait. Alone: those that
are particular about time. conftest.py says which is which.
With `nodes`, the first part is left out. With other arguments, pytest runs once, with these. The exit status is
pytest's, the largest of all: 0 only if all parts have passed, and not if one of them found no tests.

    .venv/bin/python scripts/run_tests.py [nodes | PYTEST ARGUMENT...]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from qwen_vla_ros.ros.environment import own_environment, say_what_is_ignored
from qwen_vla_ros.simulation.interruption import signals_as_exceptions

ROOT = Path(__file__).resolve().parent.parent
PARTS = {
    "side by side": ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "-m", "parallel and not slow"],
    "in pairs": ["-n", "2", "--dist", "loadfile", "-m", "in_pairs and not slow"],
    "alone": ["-m", "alone and not slow"],
}
NODES = "nodes"  # argument: only the parts that depend on the distribution of ROS 2
WITHOUT_NODES = "side by side"
BEGUN = "begun.txt"  # file beside the counts
COLUMNS = ("passed", "failed", "skipped", "reruns", "time", "exit status")


@dataclass(frozen=True)
class Result:
    """The result of one pytest run.

    Attributes:
        status: its exit status; as in a shell (128 + number) if a signal ended it.
        seconds: duration [s].
        counts: of tests, by pytest's names of outcomes; None if it did not finish.
        interrupted: by Ctrl-C.
        began: the test that began last, by which a run that did not finish was ended; empty if none had begun.
    """

    status: int
    seconds: float
    counts: dict[str, int] | None
    interrupted: bool
    began: str

    def row(self) -> list[str]:
        """The cells of the summary."""
        known = self.counts or {}
        numbers = [known.get("passed", 0), known.get("failed", 0) + known.get("error", 0), known.get("skipped", 0)]
        cells = [str(number) if self.counts is not None else "?" for number in (*numbers, known.get("rerun", 0))]
        minutes, seconds = divmod(round(self.seconds), 60)
        return [*cells, f"{minutes}:{seconds:02}", str(self.status)]


def main(arguments: list[str]) -> int:
    """Run everything, or as in the arguments; returns the exit status."""
    say_what_is_ignored()
    if arguments and arguments != [NODES]:
        return run(arguments).status
    results: dict[str, Result] = {}
    for name, options in PARTS.items():
        if arguments and name == WITHOUT_NODES:
            continue
        print(f"tests, {name}:", flush=True)
        results[name] = run(options)
        if results[name].interrupted:
            break
    print_summary(results)
    return max(result.status for result in results.values())


def run(arguments: list[str]) -> Result:
    """Run pytest once. Ctrl-C also reaches it, and it ends by itself; this process waits for it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="test_counts_") as folder, signals_as_exceptions():
        counts = Path(folder, "counts.json")
        command = [sys.executable, "-m", "pytest", "-p", "scripts.run_tests", f"--counts={counts}", *arguments]
        process = subprocess.Popen(command, env=own_environment() | {"PYTHONHASHSEED": "0"}, cwd=ROOT)
        interrupted = False
        try:
            status = process.wait()
        except KeyboardInterrupt:
            interrupted, status = True, process.wait()
        except SystemExit:
            process.terminate()
            process.wait()
            raise
        found = json.loads(counts.read_text()) if counts.is_file() else None
        last = counts.with_name(BEGUN)
        test = last.read_text() if last.is_file() else ""
    return Result(128 - status if status < 0 else status, time.monotonic() - began, found, interrupted, test)


def print_summary(results: dict[str, Result]) -> None:
    """All parts, one line each."""
    not_run = ["not run", *[""] * (len(COLUMNS) - 1)]
    rows = [["", *COLUMNS], *([name, *(results[name].row() if name in results else not_run)] for name in PARTS)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for name, *cells in rows:
        line = [name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]
        print("  ".join(line).rstrip())
    for name, result in results.items():
        if result.counts is None and result.began:
            print(f"{name}: ended in the middle, in or after {result.began}")


# The plugin by which the pytest run reports its counts.


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --counts."""
    parser.addoption("--counts", metavar="FILE", type=Path, help="write the numbers of passed, failed ... tests (JSON)")


def pytest_configure(config: pytest.Config) -> None:
    """Note which tests begin, in the process that hears of all of them."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Begun(config.getoption("counts").with_name(BEGUN)))


class _Begun:
    """Keeps the name of the test that began last in a file, as a test may end the process."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._file.write_text(nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the numbers of tests by outcome."""
    counts = {outcome: len(reports) for outcome, reports in terminalreporter.stats.items() if outcome}
    config.getoption("counts").write_text(json.dumps(counts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
